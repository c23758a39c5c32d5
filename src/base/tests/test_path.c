#include "base/path.h"

#include <errno.h>

#include "base/auto.h"
#include "base/str.h"
#include "base/tests/test.h"

static void a_path_is_made_plain(void **state)
{
        (void)state;
        static const char *const rows[][2] = {
                { "/a//b/./c/..", "/a/b" }, { "/../..", "/" }, { "/", "/" }, { "/a/", "/a" }
        };
        char *path = NULL;
        for (size_t i = 0; i < ELEMENTS(rows); i++) {
                auto_free char *clean = NULL;
                assert_int_equal(path_clean(rows[i][0], &clean, NULL), 0);
                assert_string_equal(clean, rows[i][1]);
        }
        assert_int_equal(path_clean("a", &path, NULL), -EINVAL);
        assert_int_equal(path_clean(NULL, &path, NULL), -EINVAL);
        assert_null(path);
}

static void an_archive_is_called_as_what_it_holds(void **state)
{
        (void)state;
        static const char *const rows[][2] = { { "/a/b", "b" },   { "/a/b/", "b" },
                                               { "/a/b/.", "." }, { "/", "." },
                                               { "a", "a" },      { "/a/..", "." },
                                               { ".", "." },      { "/a/b/..", "a" },
                                               { "/a.", "a." },   { "/a/...", "..." } };
        for (size_t i = 0; i < ELEMENTS(rows); i++) {
                auto_free char *name = path_archive_name(rows[i][0]);
                assert_string_equal(name, rows[i][1]);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_path_is_made_plain),
                cmocka_unit_test(an_archive_is_called_as_what_it_holds),
        };
        return cmocka_run_group_tests_name("base-path", tests, NULL, NULL);
}
