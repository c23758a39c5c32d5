#include "guest/relay.h"

#include <errno.h>
#include <sys/stat.h>

#include "base/auto.h"
#include "base/str.h"
#include "base/tests/test.h"
#include "guest/tests/framed.h"

#define OK "{\"ok\":true}\n"

static const struct tar_entry tree = { .path = "tree", .mode = S_IFDIR | 0755 };

static int to_frames(void *arg, const void *data, size_t size, struct err *err)
{
        (void)err;
        framed_put(arg, STDCOPY_STDOUT, data, size);
        return 0;
}

static void put(struct framed *framed, const struct tar_entry *entries, size_t length)
{
        auto_tar_writer writer = NULL;
        assert_int_equal(tar_writer_create(to_frames, framed, &writer, NULL), 0);
        for (size_t i = 0; i < length; i++) {
                assert_int_equal(tar_writer_entry(writer, &entries[i], NULL), 0);
                if (entries[i].size_bytes)
                        assert_int_equal(tar_writer_data(writer, "content", 7, NULL), 0);
        }
        assert_int_equal(tar_writer_finish(writer, NULL), 0);
}

/* What is said of these entries, between a tree and the end; "" where they go on. */
static const char *verdict(const struct tar_entry *entries, size_t length, const char *last)
{
        static struct err err;
        struct framed framed = { 0 };
        auto_buf out = { 0 };
        struct tar_entry all[8] = { tree };
        err = (struct err){ 0 };
        if (length)
                memcpy(all + 1, entries, length * sizeof(*all));
        put(&framed, all, length + 1);
        framed_put(&framed, STDCOPY_SYSTEM, last, strlen(last));
        int r = relay_archive(framed_read, &framed, "tree", framed_keep, &out, &err);
        buf_finish(&framed.bytes);
        return r == 0 ? "" : err_text(&err);
}

static void a_tree_goes_on_as_it_is(void **state)
{
        static const struct tar_xattr capability = { "user.a", "b", 1 };
        static const struct tar_entry entries[] = {
                { .path = "tree", .mode = S_IFDIR | 0700, .uid = 7 },
                { .path = "tree/a", .mode = S_IFDIR | 0755 },
                { .path = "tree/a/f",
                  .mode = S_IFREG | 0644,
                  .size_bytes = 7,
                  .mtime_ns = 5,
                  .xattrs = &capability,
                  .xattrs_length = 1 },
                { .path = "tree/h", .mode = S_IFREG | 0644, .hard_link = true, .link = "tree/a/f" },
                { .path = "tree/out", .mode = S_IFLNK | 0777, .link = "/etc/passwd" },
                { .path = "tree/n", .mode = S_IFCHR | 0600, .dev_major = 1, .dev_minor = 3 },
        };
        struct framed framed = { 0 };
        auto_buf before = { 0 }, after = { 0 };
        auto_tar_writer writer = NULL;
        (void)state;
        put(&framed, entries, ELEMENTS(entries));
        framed_put(&framed, STDCOPY_SYSTEM, OK, strlen(OK));
        assert_int_equal(relay_archive(framed_read, &framed, "tree", framed_keep, &after, NULL), 0);
        assert_int_equal(tar_writer_create(framed_keep, &before, &writer, NULL), 0);
        for (size_t i = 0; i < ELEMENTS(entries); i++) {
                assert_int_equal(tar_writer_entry(writer, &entries[i], NULL), 0);
                if (entries[i].size_bytes)
                        assert_int_equal(tar_writer_data(writer, "content", 7, NULL), 0);
        }
        assert_int_equal(tar_writer_finish(writer, NULL), 0);
        assert_int_equal(before.size, after.size);
        assert_memory_equal(before.data, after.data, after.size);
        buf_finish(&framed.bytes);
}

static void what_is_no_tree_is_refused(void **state)
{
        static const struct tar_xattr label = { "security.selinux", "x", 1 };
        static const struct {
                struct tar_entry entries[3];
                size_t length;
                const char *story;
        } rows[] = {
                { { { .path = "tree/d/f", .mode = S_IFREG } }, 1, "'tree/d/f' is not where" },
                { { { .path = "other", .mode = S_IFREG } }, 1, "'other' is not where" },
                { { { .path = "/etc", .mode = S_IFDIR } }, 1, "'/etc' is not where" },
                { { { .path = "tree/../x", .mode = S_IFREG } }, 1, "'tree/../x' is not where" },
                { { { .path = "tree/..", .mode = S_IFDIR } }, 1, "'tree/..' is not where" },
                { { { .path = "tree", .mode = S_IFLNK, .link = "/" } }, 1, "'tree' is not where" },
                { { { .path = "tree/l", .mode = S_IFLNK, .link = "/etc" },
                    { .path = "tree/l/passwd", .mode = S_IFREG } },
                  2,
                  "'tree/l/passwd' is not where" },
                { { { .path = "tree/d", .mode = S_IFDIR },
                    { .path = "tree/d", .mode = S_IFLNK, .link = "/etc" },
                    { .path = "tree/d/f", .mode = S_IFREG } },
                  3,
                  "'tree/d/f' is not where" },
                { { { .path = "tree/h", .mode = S_IFREG, .hard_link = true, .link = "/etc/x" } },
                  1,
                  "'tree/h' of the guest's archive is a link out of it" },
                { { { .path = "tree/h",
                      .mode = S_IFREG,
                      .hard_link = true,
                      .link = "tree/../../x" } },
                  1,
                  "'tree/h' of the guest's archive is a link out of it" },
                { { { .path = "tree/f", .mode = S_IFREG, .xattrs = &label, .xattrs_length = 1 } },
                  1,
                  "has the attribute 'security.selinux'" },
        };
        (void)state;
        for (size_t i = 0; i < ELEMENTS(rows); i++)
                assert_non_null(
                        strstr(verdict(rows[i].entries, rows[i].length, OK), rows[i].story));
        const struct tar_entry fine = { .path = "tree/f", .mode = S_IFREG };
        assert_string_equal(verdict(&fine, 1, OK), "");
}

static void an_end_that_is_none_is_told(void **state)
{
        static const char *const rows[][2] = {
                { "{\"error\":\"read: I/O\",\"code\":5}\n", "read: I/O" },
                { "nonsense", "" },
                { "", "cut short" },
        };
        (void)state;
        for (size_t i = 0; i < ELEMENTS(rows); i++) {
                const char *story = verdict(NULL, 0, rows[i][0]);
                assert_true(*story && strstr(story, rows[i][1]));
        }
        /* In the midst of the archive the guest's reason is the one. */
        struct framed framed = { 0 };
        auto_buf out = { 0 };
        struct err err = { 0 };
        const struct tar_entry entries[] = { tree, { .path = "tree/f", .mode = S_IFREG } };
        put(&framed, entries, ELEMENTS(entries));
        framed.bytes.size = STDCOPY_HEADER_SIZE + 512 + STDCOPY_HEADER_SIZE;
        struct framed cut = { 0 };
        framed_put(&cut, STDCOPY_STDOUT, framed.bytes.data + STDCOPY_HEADER_SIZE, 300);
        framed_put(&cut, STDCOPY_SYSTEM, rows[0][0], strlen(rows[0][0]));
        assert_int_equal(relay_archive(framed_read, &cut, "tree", framed_keep, &out, &err), -EIO);
        assert_non_null(strstr(err_text(&err), "read: I/O"));
        buf_finish(&framed.bytes);
        buf_finish(&cut.bytes);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_tree_goes_on_as_it_is),
                cmocka_unit_test(what_is_no_tree_is_refused),
                cmocka_unit_test(an_end_that_is_none_is_told),
        };
        return cmocka_run_group_tests_name("guest-relay", tests, NULL, NULL);
}
