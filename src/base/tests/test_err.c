#include "base/err.h"

#include <errno.h>
#include <string.h>

#include "base/tests/test.h"

static void the_story_reads_outside_in(void **state)
{
        (void)state;
        struct err err = { 0 };
        assert_string_equal(err_text(&err), "no error");
        assert_int_equal(err_set(&err, EPERM, "mount %s", "/proc"), -EPERM);
        assert_int_equal(err_wrap(&err, "start container %s", "web"), -EPERM);
        assert_string_equal(err_text(&err),
                            "start container web: mount /proc: Operation not permitted");
        assert_int_equal(err_advise(&err, "run it as %s", "root"), -EPERM);
        assert_string_equal(err_text(&err), "start container web: mount /proc: Operation not "
                                            "permitted; run it as root");
        err_clear(&err);
        assert_string_equal(err_text(&err), "no error");
        assert_int_equal(err_plain(&err, EINVAL, "no such option"), -EINVAL);
        assert_string_equal(err_text(&err), "no such option");
}

static void long_text_is_cut_not_overrun(void **state)
{
        (void)state;
        struct err err = { 0 };
        char path[ERR_TEXT_SIZE * 2];
        memset(path, 'p', sizeof(path) - 1);
        path[sizeof(path) - 1] = '\0';
        err_set(&err, ENOENT, "open %s", path);
        assert_int_equal(strlen(err.text), ERR_TEXT_SIZE - 1);
        err_wrap(&err, "read %s", path);
        err_advise(&err, "try %s", path);
        assert_int_equal(strlen(err.text), ERR_TEXT_SIZE - 1);
        assert_int_equal(err.code, ENOENT);
}

static void nobody_needs_to_listen(void **state)
{
        (void)state;
        assert_int_equal(err_set(NULL, ENOMEM, "x"), -ENOMEM);
        assert_int_equal(err_wrap(NULL, "x"), -EIO);
        assert_int_equal(err_advise(NULL, "x"), -EIO);
        struct err unexplained = { 0 };
        assert_int_equal(err_wrap(&unexplained, "x"), -EIO);
        assert_non_null(strstr(err_text(&unexplained), "unexplained"));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(the_story_reads_outside_in),
                cmocka_unit_test(long_text_is_cut_not_overrun),
                cmocka_unit_test(nobody_needs_to_listen),
        };
        return cmocka_run_group_tests_name("base-err", tests, NULL, NULL);
}
