/* Messages, detach keys, and the json-file log. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"
#include "base/tests/test.h"
#include "monitor/detach.h"
#include "monitor/jsonlog.h"
#include "monitor/protocol.h"

static void messages_come_out_as_they_went_in(void **state)
{
        (void)state;
        static char packet[MONITOR_MESSAGE_MAX];
        struct monitor_message in = {
                .kind = MONITOR_STATE,
                .phase = MONITOR_EXITED,
                .pid = 42,
                .exit_code = -1,
                .started_ns = 5,
                .finished_ns = 6,
                .text = "why",
                .text_size = 3,
        };
        struct monitor_message out;
        ssize_t size = monitor_format(&in, packet);
        assert_true(size > 0);
        assert_int_equal(monitor_parse(packet, (size_t)size, &out), 0);
        assert_int_equal(out.phase, MONITOR_EXITED);
        assert_int_equal(out.exit_code, -1);
        assert_memory_equal(out.text, "why", 3);
        for (ssize_t cut = 0; cut < size; cut++)
                assert_int_equal(monitor_parse(packet, (size_t)cut, &out), -EBADMSG);
        packet[0] ^= 1; /* version */
        assert_int_equal(monitor_parse(packet, (size_t)size, &out), -EBADMSG);

        struct monitor_message kill = { .kind = MONITOR_KILL };
        size = monitor_format(&kill, packet);
        assert_int_equal(monitor_parse(packet, (size_t)size, &out), 0);
        assert_int_equal(out.kind, MONITOR_KILL);

        struct monitor_message long_text = { .kind = MONITOR_STATE,
                                             .text = packet,
                                             .text_size = MONITOR_TEXT_MAX + 1 };
        assert_int_equal(monitor_format(&long_text, packet), -E2BIG);
}

static void descriptors_travel_with_messages(void **state)
{
        (void)state;
        int ends[2];
        assert_int_equal(
                socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
        static char packet[MONITOR_MESSAGE_MAX];
        struct monitor_message in = { .kind = MONITOR_ATTACH,
                                      .flags = MONITOR_ATTACH_OUT,
                                      .keys = (const uint8_t *)"\x10\x11",
                                      .keys_size = 2,
                                      .early = (const uint8_t *)"hi",
                                      .early_size = 2 };
        assert_int_equal(monitor_send(ends[0], &in, STDERR_FILENO), 0);
        struct monitor_message out;
        int fd = -1;
        assert_int_equal(monitor_receive(ends[1], packet, &out, &fd), 1);
        assert_int_equal(out.kind, MONITOR_ATTACH);
        assert_memory_equal(out.early, "hi", 2);
        assert_true(fd >= 0);
        close(fd);
        assert_int_equal(monitor_receive(ends[1], packet, &out, &fd), -EAGAIN);
        assert_int_equal(write(ends[0], "rubbish", 7), 7);
        assert_int_equal(monitor_receive(ends[1], packet, &out, &fd), -EBADMSG);
        close(ends[0]);
        assert_int_equal(monitor_receive(ends[1], packet, &out, &fd), 0);
        close(ends[1]);
}

static bool scan(struct detach *detach, const char *in, char *out)
{
        size_t size;
        bool found = detach_scan(detach, (const uint8_t *)in, strlen(in), (uint8_t *)out, &size);
        out[size] = '\0';
        return found;
}

static void detach_keys_are_found_across_reads(void **state)
{
        (void)state;
        struct detach detach = { .keys = { 0x10, 0x11 }, .length = 2 };
        char out[256];
        assert_false(scan(&detach, "ab\x10", out));
        assert_string_equal(out, "ab"); /* the first key is held back */
        assert_false(scan(&detach, "c", out));
        assert_string_equal(out, "\x10"
                                 "c");
        assert_false(scan(&detach, "\x10\x10", out));
        assert_string_equal(out, "\x10");
        assert_true(scan(&detach, "\x11rest", out));
        assert_string_equal(out, "");
        struct detach none = { .length = 0 };
        assert_false(scan(&none, "\x10\x11", out));
        assert_string_equal(out, "\x10\x11");
}

static int setup(void **state)
{
        char *root = strdup("/tmp/isle-log-XXXXXX");
        *state = mkdtemp(root);
        return *state ? 0 : -1;
}

static int teardown(void **state)
{
        int r = file_remove_tree(AT_FDCWD, *state, NULL);
        free(*state);
        return r;
}

static char *content(const char *root, const char *name)
{
        auto_free char *path = xasprintf("%s/%s", root, name);
        char *text = NULL;
        return file_read(AT_FDCWD, path, 1 << 20, &text, NULL, NULL) < 0 ? NULL : text;
}

static void lines_are_escaped_and_joined(void **state)
{
        const char *root = *state;
        auto_free char *path = xasprintf("%s/log", root);
        struct jsonlog log;
        assert_int_equal(jsonlog_open(&log, path, 0, 1, NULL), 0);
        jsonlog_write(&log, JSONLOG_OUT, "half", 4, 0);
        jsonlog_write(&log, JSONLOG_ERR, "err\"\xff\n", 6, 0);
        jsonlog_write(&log, JSONLOG_OUT, " line\nlast", 10, 0);
        jsonlog_close(&log, 0);
        auto_free char *text = content(root, "log");
        assert_string_equal(text, "{\"log\":\"err\\\"\\ufffd\\n\",\"stream\":\"stderr\","
                                  "\"time\":\"1970-01-01T00:00:00.000000000Z\"}\n"
                                  "{\"log\":\"half line\\n\",\"stream\":\"stdout\","
                                  "\"time\":\"1970-01-01T00:00:00.000000000Z\"}\n"
                                  "{\"log\":\"last\",\"stream\":\"stdout\","
                                  "\"time\":\"1970-01-01T00:00:00.000000000Z\"}\n");
}

static void long_lines_are_cut_between_characters(void **state)
{
        const char *root = *state;
        auto_free char *path = xasprintf("%s/log", root);
        struct jsonlog log;
        assert_int_equal(jsonlog_open(&log, path, 0, 1, NULL), 0);
        size_t size = JSONLOG_LINE_MAX + 10;
        auto_free char *line = xmalloc(size);
        line[0] = 'x'; /* then two bytes each, so that the limit falls inside one */
        for (size_t i = 1; i + 1 < size; i += 2)
                memcpy(line + i, "\xc3\xa9", 2);
        line[size - 1] = '\n';
        jsonlog_write(&log, JSONLOG_OUT, line, size, 0);
        jsonlog_close(&log, 0);
        auto_free char *text = content(root, "log");
        assert_null(strstr(text, "\\ufffd"));
        assert_int_equal(strtok(text, "\n") != NULL && strtok(NULL, "\n") != NULL, 1);
}

static void files_are_rotated(void **state)
{
        const char *root = *state;
        auto_free char *path = xasprintf("%s/log", root);
        struct jsonlog log;
        assert_int_equal(jsonlog_open(&log, path, 200, 2, NULL), 0);
        for (int i = 0; i < 9; i++) {
                char line[] = { (char)('0' + i), '\n' };
                jsonlog_write(&log, JSONLOG_OUT, line, 2, 0);
        }
        jsonlog_close(&log, 0);
        auto_free char *now = content(root, "log"), *before = content(root, "log.1"),
                       *older = content(root, "log.2");
        assert_non_null(now);
        assert_non_null(before);
        assert_null(older);
        assert_non_null(strstr(now, "\"8\\n\""));
        assert_true(strlen(now) <= 200 && strlen(before) <= 200);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(messages_come_out_as_they_went_in),
                cmocka_unit_test(descriptors_travel_with_messages),
                cmocka_unit_test(detach_keys_are_found_across_reads),
                cmocka_unit_test_setup_teardown(lines_are_escaped_and_joined, setup, teardown),
                cmocka_unit_test_setup_teardown(long_lines_are_cut_between_characters, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(files_are_rotated, setup, teardown),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
