/* Slices, properties, and what is made of the answers of something that is called systemd. */
#include "sys/systemd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"
#include "base/tests/test.h"
#include "sys/dbus_wire.h"

static void slices_are_paths(void **state)
{
        (void)state;
        static const char *const good[][2] = { { "-.slice", "" },
                                               { "a.slice", "/a.slice" },
                                               { "a-b-c.slice",
                                                 "/a.slice/a-b.slice/a-b-c.slice" } };
        static const char *const bad[] = { "",         "a",        ".slice",    "a/b.slice",
                                           "-a.slice", "a-.slice", "a--b.slice" };
        for (size_t i = 0; i < ELEMENTS(good); i++) {
                auto_free char *path = systemd_slice_path(good[i][0]);
                assert_string_equal(path, good[i][1]);
        }
        for (size_t i = 0; i < ELEMENTS(bad); i++)
                assert_null(systemd_slice_path(bad[i]));
}

/* Where the value of a property begins; the test fails where there is none of this type. */
static struct dbus_reader value_of(const struct buf *properties, const char *name,
                                   const char *signature)
{
        const char *at = memmem(properties->data, properties->size, name, strlen(name) + 1);
        const char *type;
        assert_non_null(at);
        struct dbus_reader reader = { .data = (const uint8_t *)properties->data,
                                      .size = properties->size,
                                      .at = (size_t)(at - properties->data) + strlen(name) + 1 };
        assert_int_equal(dbus_get_signature(&reader, &type), 0);
        assert_string_equal(type, signature);
        return reader;
}

static uint64_t number_of(const struct buf *properties, const char *name)
{
        uint64_t value;
        struct dbus_reader reader = value_of(properties, name, "t");
        memcpy(&value, reader.data + ((reader.at + 7) & ~(size_t)7), sizeof(value));
        return value;
}

static bool has(const struct buf *properties, const char *name)
{
        return memmem(properties->data, properties->size, name, strlen(name) + 1) != NULL;
}

static void limits_are_properties(void **state)
{
        (void)state;
        auto_buf v1 = { 0 }, v2 = { 0 };
        struct err err;
        struct cgroup_limits l;
        cgroup_limits_init(&l);
        l.memory_bytes = 1000;
        l.memory_swap_bytes = 1500;
        l.memory_reservation_bytes = 700;
        l.pids_max = -1;
        l.cpu_shares = 1024;
        l.cpu_quota_us = 12345;
        l.cpu_period_us = 100000;
        l.cpuset_cpus = "0-2,9";
        assert_int_equal(systemd_put_limits(&v2, &l, true, &err), 0);
        assert_int_equal(number_of(&v2, "MemoryMax"), 1000);
        assert_int_equal(number_of(&v2, "MemorySwapMax"), 500);
        assert_int_equal(number_of(&v2, "MemoryLow"), 700);
        assert_true(number_of(&v2, "TasksMax") == UINT64_MAX);
        assert_int_equal(number_of(&v2, "CPUWeight"), 100);
        assert_int_equal(number_of(&v2, "CPUQuotaPerSecUSec"), 130000); /* in whole percents */
        assert_false(has(&v2, "CPUQuotaPeriodUSec"));
        struct dbus_reader mask = value_of(&v2, "AllowedCPUs", "ay");
        uint32_t size;
        uint8_t byte;
        assert_int_equal(dbus_get_u32(&mask, &size), 0);
        assert_int_equal(size, 2);
        assert_int_equal(dbus_get_byte(&mask, &byte), 0);
        assert_int_equal(byte, 7);
        assert_int_equal(dbus_get_byte(&mask, &byte), 0);
        assert_int_equal(byte, 2);

        assert_int_equal(systemd_put_limits(&v1, &l, false, &err), 0);
        assert_int_equal(number_of(&v1, "CPUShares"), 1024);
        assert_false(has(&v1, "AllowedCPUs") || has(&v1, "MemorySwapMax") || has(&v1, "CPUWeight"));
        static const char *const bad[] = { "x", "1-", "3-1", "5000", "1,,2", "-1" };
        for (size_t i = 0; i < ELEMENTS(bad); i++) {
                l.cpuset_cpus = bad[i];
                assert_int_equal(systemd_put_limits(&v2, &l, true, &err), -EINVAL);
                assert_non_null(strstr(err_text(&err), bad[i]));
        }
}

static void unified_files_are_properties(void **state)
{
        (void)state;
        auto_buf to = { 0 };
        struct err err;
        struct cgroup_limits l;
        char *unified[] = { (char *)"memory.high=4096",    (char *)"pids.max=max",
                            (char *)"cpu.max=20000 50000", (char *)"cpuset.mems=0",
                            (char *)"io.max=8:0 rbps=1",   NULL };
        char *bad[] = { (char *)"memory.max=lots", NULL };
        cgroup_limits_init(&l);
        l.unified = unified;
        assert_int_equal(systemd_put_limits(&to, &l, true, &err), 0);
        assert_int_equal(number_of(&to, "MemoryHigh"), 4096);
        assert_true(number_of(&to, "TasksMax") == UINT64_MAX);
        assert_int_equal(number_of(&to, "CPUQuotaPerSecUSec"), 400000);
        assert_int_equal(number_of(&to, "CPUQuotaPeriodUSec"), 50000);
        (void)value_of(&to, "AllowedMemoryNodes", "ay");
        l.unified = bad;
        assert_int_equal(systemd_put_limits(&to, &l, true, &err), -EINVAL);
        assert_non_null(strstr(err_text(&err), "memory.max: 'lots'"));
}

static void devices_are_names(void **state)
{
        (void)state;
        static const char majors[] = "Character devices:\n  1 mem\n136 pts\n\nBlock devices:\n"
                                     "  8 sd\n";
        static const struct cgroup_device_rule rules[] = {
                { true, 'c', 9, 9, "rwm" },  { false, 'a', -1, -1, "rwm" },
                { true, 'c', 1, 3, "rw" },   { true, 'c', 136, -1, "rwm" },
                { true, 'b', 8, -1, "r" },   { true, 'b', 77, -1, "r" },
                { false, 'c', 5, 5, "rwm" }, { true, 'c', -1, -1, "m" },
        };
        auto_buf to = { 0 };
        systemd_put_devices(&to, rules, ELEMENTS(rules), majors);
        static const char *const there[] = { "strict", "/dev/char/1:3", "char-pts", "block-sd",
                                             "char-*" };
        static const char *const not_there[] = { "/dev/char/9:9", "/dev/char/5:5", "block-77" };
        for (size_t i = 0; i < ELEMENTS(there); i++)
                assert_true(has(&to, there[i]));
        for (size_t i = 0; i < ELEMENTS(not_there); i++)
                assert_false(has(&to, not_there[i]));
}

static void texts_have_types(void **state)
{
        (void)state;
        static const struct {
                const char *name, *text, *real_name, *signature;
        } good[] = {
                { "A", "'x y'", "A", "s" },
                { "A", " \"x\" ", "A", "s" },
                { "A", "true", "A", "b" },
                { "A", "5", "A", "i" },
                { "A", "uint32 5", "A", "u" },
                { "A", "int64 -5", "A", "x" },
                { "A", "uint64 18446744073709551615", "A", "t" },
                { "A", "byte 255", "A", "y" },
                { "A", "[]", "A", "as" },
                { "A", "['a', \"b\"]", "A", "as" },
                { "StopSec", "1.5", "StopUSec", "t" },
                { "StopSec", "uint32 2", "StopUSec", "t" },
        };
        static const char *const bad[] = { "",    "'x",       "'x' y'",    "truly",
                                           "5x",  "byte 256", "uint8 1",   "uint32 -1",
                                           "[a]", "['a',]",   "2147483648" };
        struct err err;
        for (size_t i = 0; i < ELEMENTS(good); i++) {
                auto_buf to = { 0 };
                assert_int_equal(systemd_put_text(&to, good[i].name, good[i].text, &err), 0);
                (void)value_of(&to, good[i].real_name, good[i].signature);
        }
        for (size_t i = 0; i < ELEMENTS(bad); i++) {
                auto_buf to = { 0 };
                assert_int_equal(systemd_put_text(&to, "A", bad[i], &err), -EINVAL);
        }
        auto_buf to = { 0 };
        assert_int_equal(systemd_put_text(&to, "A.B", "1", &err), -EINVAL);
        assert_int_equal(systemd_put_text(&to, "StopSec", "-1", &err), -EINVAL);
}

/* A peer in a process of its own answers each call with what `script` says, and exits with 0
 * where the calls came in the order that it knows. */
struct step {
        const char *member;
        enum { RETURN, RETURN_JOB, REFUSE, JOB_FIRST, CLOSE, GARBAGE, HUGE } what;
        const char *text; /* of an error: its name; of a job: its result */
};

#define JOB "/org/freedesktop/systemd1/job/1"

static void put_message(struct buf *stream, enum dbus_type type, uint32_t reply_to,
                        const char *error, const char *signature, const struct buf *body)
{
        auto_buf message = { 0 }; /* begins aligned */
        struct buf *to = &message;
        dbus_put_byte(to, 'l');
        dbus_put_byte(to, (uint8_t)type);
        dbus_put_byte(to, 0);
        dbus_put_byte(to, 1);
        dbus_put_u32(to, (uint32_t)body->size);
        dbus_put_u32(to, 7);
        struct dbus_array fields = dbus_array_begin(to, 8);
        const char *const texts[] = { [1] = type == DBUS_SIGNAL ? "/org/freedesktop/systemd1"
                                                                : NULL,
                                      [2] = "org.freedesktop.systemd1.Manager",
                                      [3] = "JobRemoved",
                                      [4] = error,
                                      [8] = signature };
        for (uint8_t code = 1; code <= 8; code++) {
                const char *text = code < ELEMENTS(texts) ? texts[code] : NULL;
                if (code == 5 && reply_to) {
                        dbus_put_padding(to, 8);
                        dbus_put_byte(to, code);
                        dbus_put_signature(to, "u");
                        dbus_put_u32(to, reply_to);
                } else if (text) {
                        dbus_put_padding(to, 8);
                        dbus_put_byte(to, code);
                        dbus_put_signature(to, code == 1 ? "o" : code == 8 ? "g" : "s");
                        if (code == 8)
                                dbus_put_signature(to, text);
                        else
                                dbus_put_string(to, text);
                }
        }
        dbus_array_end(to, fields);
        dbus_put_padding(to, 8);
        if (body->size)
                buf_append(to, body->data, body->size);
        buf_append(stream, message.data, message.size);
}

static void put_job_end(struct buf *to, const char *result)
{
        auto_buf body = { 0 };
        dbus_put_u32(&body, 1);
        dbus_put_string(&body, JOB);
        dbus_put_string(&body, "x.scope");
        dbus_put_string(&body, result);
        put_message(to, DBUS_SIGNAL, 0, NULL, "uoss", &body);
}

static void answer(struct buf *to, const struct step *step, uint32_t serial)
{
        auto_buf body = { 0 };
        if (step->what == JOB_FIRST)
                put_job_end(to, step->text);
        if (step->what == REFUSE) {
                dbus_put_string(&body, "the reason");
                put_message(to, DBUS_ERROR, serial, step->text, "s", &body);
        } else if (step->what == GARBAGE) {
                buf_puts(to, "this is no message of D-Bus");
        } else if (step->what == HUGE) {
                buf_append(to, "l\1\0\1\377\377\377\177\1\0\0\0\0\0\0\0", 16);
        } else if (step->what != CLOSE) {
                dbus_put_string(&body, JOB);
                put_message(to, DBUS_METHOD_RETURN, serial, NULL, "o", &body);
        }
        if (step->what == RETURN_JOB)
                put_job_end(to, step->text);
}

static size_t read_call(int fd, char *data, size_t room, struct dbus_message *ret)
{
        size_t size = 0;
        for (;;) {
                ssize_t whole = dbus_message_size(data, size);
                if (whole > 0 && (size_t)whole == size && dbus_parse(data, size, ret, NULL) == 0)
                        return size;
                ssize_t n = read(fd, data + size,
                                 whole > 0 ? (size_t)whole - size : 16 - (size < 16 ? size : 15));
                if (n <= 0 || size + (size_t)n > room)
                        return 0;
                size += (size_t)n;
        }
}

static void serve(int listening, const struct step *script)
{
        static const char ok[] = "DATA\r\nOK 1\r\n";
        char data[8192];
        int fd = accept(listening, NULL, NULL);
        ssize_t n = read(fd, data, sizeof(data));
        if (n < 0 || !memmem(data, (size_t)n, "BEGIN\r\n", 7) ||
            write(fd, ok, sizeof(ok) - 1) != (ssize_t)sizeof(ok) - 1)
                _exit(1);
        for (; script->member; script++) {
                struct dbus_message call;
                auto_buf reply = { 0 };
                if (!read_call(fd, data, sizeof(data), &call) ||
                    !streq(call.member, script->member))
                        _exit(2);
                answer(&reply, script, call.serial);
                if (reply.size && write(fd, reply.data, reply.size) != (ssize_t)reply.size)
                        _exit(3);
        }
        _exit(0);
}

struct peer {
        char directory[32];
        char *address;
        pid_t pid;
};

static void peer_start(struct peer *peer, const char *name, const struct step *script)
{
        struct sockaddr_un where = { .sun_family = AF_UNIX };
        strcpy(peer->directory, "/tmp/isle-bus-XXXXXX");
        assert_non_null(mkdtemp(peer->directory));
        auto_free char *below = xasprintf("%s/systemd", peer->directory);
        assert_int_equal(file_make_dirs(AT_FDCWD, below, 0700, NULL), 0);
        snprintf(where.sun_path, sizeof(where.sun_path), "%s/%s", below, name);
        peer->address = xasprintf("unix:path=%s", where.sun_path);
        auto_fd fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(bind(fd, (struct sockaddr *)&where, sizeof(where)), 0);
        assert_int_equal(listen(fd, 1), 0);
        peer->pid = fork();
        if (peer->pid == 0)
                serve(fd, script);
}

static void peer_end(struct peer *peer)
{
        int status;
        assert_int_equal(waitpid(peer->pid, &status, 0), peer->pid);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
        free(peer->address);
        assert_int_equal(file_remove_tree(AT_FDCWD, peer->directory, NULL), 0);
}

static const struct systemd_scope scope = {
        .unit = "x.scope", .slice = "a.slice", .description = "x", .pid = 1
};

#define START "StartTransientUnit"
#define RESET "ResetFailedUnit"
#define NAME  "org.freedesktop.systemd1."

static void answers_are_understood(void **state)
{
        (void)state;
        static const struct {
                struct step script[6];
                int result;
                const char *said;
        } table[] = {
                { { { START, RETURN_JOB, "done" } }, 0, NULL },
                { { { START, JOB_FIRST, "done" } }, 0, NULL },
                { { { START, RETURN_JOB, "failed" } },
                  -EIO,
                  "the job for x.scope ended as failed" },
                { { { START, REFUSE, NAME "UnitExists" },
                    { RESET, RETURN, NULL },
                    { START, RETURN_JOB, "done" } },
                  0,
                  NULL },
                { { { START, REFUSE, NAME "UnitExists" },
                    { RESET, REFUSE, NAME "NoSuchUnit" },
                    { START, REFUSE, NAME "UnitExists" } },
                  -EEXIST,
                  "StartTransientUnit: the reason" },
                { { { START, REFUSE, "org.freedesktop.DBus.Error.AccessDenied" } },
                  -EACCES,
                  "the reason" },
                { { { START, CLOSE, NULL } }, -ECONNRESET, "StartTransientUnit" },
                { { { START, RETURN, NULL } }, -ECONNRESET, "wait for the job for x.scope" },
                { { { START, GARBAGE, NULL } }, -EBADMSG, "malformed" },
                { { { START, HUGE, NULL } }, -EMSGSIZE, "too large" },
        };
        for (size_t i = 0; i < ELEMENTS(table); i++) {
                struct peer peer;
                struct systemd *systemd = NULL;
                struct err err = { 0 };
                peer_start(&peer, "private", table[i].script);
                assert_int_equal(systemd_connect(peer.address, false, &systemd, &err), 0);
                assert_int_equal(systemd_start_scope(systemd, &scope, &err), table[i].result);
                if (table[i].said)
                        assert_non_null(strstr(err_text(&err), table[i].said));
                systemd_close(systemd);
                peer_end(&peer);
        }
}

static void a_unit_that_has_gone_is_stopped(void **state)
{
        (void)state;
        static const struct step script[] = { { "StopUnit", REFUSE, NAME "NoSuchUnit" },
                                              { RESET, REFUSE, NAME "NoSuchUnit" },
                                              { NULL, RETURN, NULL } };
        struct peer peer;
        struct err err;
        auto_systemd systemd = NULL;
        peer_start(&peer, "private", script);
        assert_int_equal(systemd_connect(peer.address, false, &systemd, &err), 0);
        assert_int_equal(systemd_stop(systemd, "x.scope", &err), 0);
        peer_end(&peer);
}

static void on_a_bus_one_says_hello(void **state)
{
        (void)state;
        static const struct step script[] = { { "Hello", RETURN, NULL },
                                              { "AddMatch", RETURN, NULL },
                                              { "Subscribe", RETURN, NULL },
                                              { "Get", RETURN, NULL },
                                              { NULL, RETURN, NULL } };
        struct peer peer;
        struct err err;
        auto_systemd systemd = NULL;
        auto_free char *group = NULL;
        peer_start(&peer, "bus", script);
        assert_int_equal(systemd_connect(peer.address, false, &systemd, &err), 0);
        assert_int_equal(systemd_control_group(systemd, &group, &err), -EBADMSG);
        peer_end(&peer);
        assert_int_equal(systemd_connect("tcp:host=x", false, &systemd, &err), -EINVAL);
        assert_non_null(strstr(err_text(&err), "'tcp:host=x'"));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(slices_are_paths),
                cmocka_unit_test(limits_are_properties),
                cmocka_unit_test(unified_files_are_properties),
                cmocka_unit_test(devices_are_names),
                cmocka_unit_test(texts_have_types),
                cmocka_unit_test(answers_are_understood),
                cmocka_unit_test(a_unit_that_has_gone_is_stopped),
                cmocka_unit_test(on_a_bus_one_says_hello),
        };
        return cmocka_run_group_tests_name("sys-systemd", tests, NULL, NULL);
}
