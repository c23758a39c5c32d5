#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/criu_wire.h"

/* Written by hand from the numbers in rpc.proto, so that they can contradict the encoder. */

static void a_request_for_the_version_stays_open(void **state)
{
        (void)state;
        static const char wanted[] = "\x08\x0a\x20\x01";
        struct criu_request request = { .kind = CRIU_VERSION, .keep_open = true };
        auto_buf got = { 0 };
        criu_encode(&request, &got);
        assert_int_equal(got.size, sizeof(wanted) - 1);
        assert_memory_equal(got.data, wanted, got.size);
}

static void an_answer_to_a_notification_tells_failure_too(void **state)
{
        (void)state;
        struct criu_request request = { .kind = CRIU_NOTIFY, .notified = true };
        auto_buf got = { 0 };
        criu_encode(&request, &got);
        assert_int_equal(got.size, 4);
        assert_memory_equal(got.data, "\x08\x06\x18\x00", 4);
}

static void options_are_nested_and_lists_repeat(void **state)
{
        (void)state;
        static const char wanted[] =
                "\x08\x02\x12\x46"
                "\x08\x07"                             /* images_dir_fd: 7 */
                "\x48\x04\x52\x01l"                    /* log_level: 4, log_file: "l" */
                "\x60\x01\x6a\x02/r"                   /* notify_scripts, root: "/r" */
                "\xc0\x01\x01\xd0\x01\x01\x90\x02\x03" /* manage_cgroups, rst_sibling, SOFT */
                "\x90\x03\x01"                         /* orphan_pts_master */
                "\xba\x01\x06\x0a\x01k\x12\x01v"       /* ext_mnt { key: "k" val: "v" } */
                "\xba\x01\x06\x0a\x01K\x12\x01V"       /* and another */
                "\xda\x01\x05\x0a\x01p\x10\x02"        /* inherit_fd { key: "p" fd: 2 } */
                "\xaa\x02\x05n[5]:"                    /* external: "n[5]:" */
                "\xba\x02\x08\x0a\x03ipc\x12\x01n";    /* join_ns { ns: "ipc" ns_file: "n" } */
        struct criu_pair mounts[] = { { "k", "v" }, { "K", "V" } };
        struct criu_inherit inherit = { "p", 2 };
        struct criu_pair join = { "ipc", "n" };
        char *externals[] = { "n[5]:", NULL };
        struct criu_options options = {
                .images_fd = 7,
                .work_fd = -1,
                .log_file = "l",
                .root = "/r",
                .cgroups = CRIU_CGROUPS_SOFT,
                .restore_sibling = true,
                .mounts = mounts,
                .mounts_length = 2,
                .joins = &join,
                .joins_length = 1,
                .inherits = &inherit,
                .inherits_length = 1,
                .externals = externals,
        };
        struct criu_request request = { .kind = CRIU_RESTORE, .options = &options };
        auto_buf got = { 0 };
        criu_encode(&request, &got);
        assert_int_equal(got.size, sizeof(wanted) - 1);
        assert_memory_equal(got.data, wanted, got.size);
}

static int decode(const char *bytes, size_t size, struct criu_response *ret)
{
        struct err err = { 0 };
        memset(ret, 0, sizeof(*ret));
        return criu_decode(bytes, size, ret, &err);
}

#define DECODE(text, to) decode(text, sizeof(text) - 1, to)

static void responses_are_read(void **state)
{
        (void)state;
        struct criu_response response;
        assert_int_equal(
                DECODE("\x08\x0a\x10\x01\x52\x0b\x08\x04\x10\x01\x1a\x03g1x\x20\x01", &response),
                0);
        assert_int_equal(response.kind, CRIU_VERSION);
        assert_true(response.success);
        assert_int_equal(response.version, 40101);
        assert_int_equal(
                DECODE("\x08\x06\x10\x01\x2a\x0f\x0a\x0apost-notes\x10\xac\x02", &response), 0);
        assert_string_equal(response.script, "post-notes");
        assert_int_equal(response.pid, 300);
        assert_int_equal(DECODE("\x08\x01\x10\x00\x38\x16\x4a\x05why\n\x01", &response), 0);
        assert_false(response.success);
        assert_int_equal(response.error, EINVAL);
        assert_string_equal(response.message, "why");
        assert_int_equal(DECODE("\x08\x09\x10\x01\x42\x02\x08\x01", &response), 0);
        assert_true(response.tracks_memory);
}

/* Every cut through a message is refused, unless it falls between two fields. */
static void what_is_cut_off_is_refused(void **state)
{
        (void)state;
        static const char whole[] = "\x08\x06\x10\x01\x2a\x08\x0a\x03"
                                    "abc\x10\xac\x02";
        struct criu_response response;
        for (size_t size = 0; size < sizeof(whole) - 1; size++)
                assert_int_equal(decode(whole, size, &response),
                                 size == 0 || size == 2 || size == 4 ? 0 : -EBADMSG);
        assert_int_equal(DECODE(whole, &response), 0);
}

static void nonsense_is_refused(void **state)
{
        (void)state;
        struct criu_response response;
        assert_int_equal(DECODE("\x0b", &response), -EBADMSG);     /* a group */
        assert_int_equal(DECODE("\x00\x01", &response), -EBADMSG); /* field 0 */
        assert_int_equal(DECODE("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", &response),
                         -EBADMSG); /* a varint of eleven bytes */
        assert_int_equal(DECODE("\x4a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01x", &response),
                         -EBADMSG); /* longer than there is memory */
        assert_int_equal(DECODE("\x52\x04\x08\x04\x10\x64", &response), -EBADMSG); /* 4.100 */
}

static void long_texts_are_cut(void **state)
{
        (void)state;
        char bytes[3 + 300] = { 0x4a, (char)0xac, 0x02 }; /* 300 bytes of cr_errmsg */
        struct criu_response response;
        memset(bytes + 3, 'x', 300);
        assert_int_equal(decode(bytes, sizeof(bytes), &response), 0);
        assert_int_equal(strlen(response.message), sizeof(response.message) - 1);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_request_for_the_version_stays_open),
                cmocka_unit_test(an_answer_to_a_notification_tells_failure_too),
                cmocka_unit_test(options_are_nested_and_lists_repeat),
                cmocka_unit_test(responses_are_read),
                cmocka_unit_test(what_is_cut_off_is_refused),
                cmocka_unit_test(nonsense_is_refused),
                cmocka_unit_test(long_texts_are_cut),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
