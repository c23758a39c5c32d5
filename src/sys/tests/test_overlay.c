#include "sys/overlay.h"

#include <errno.h>

#include "base/str.h"
#include "base/tests/test.h"

static void layers_are_found_top_first(void **state)
{
        (void)state;
        auto_overlay o = { 0 };
        assert_int_equal(
                overlay_parse("rw,lowerdir=/a:/b,upperdir=/u,workdir=/w,volatile", &o, NULL), 0);
        assert_int_equal(strv_length(o.lower), 2);
        assert_string_equal(o.lower[0], "/a");
        assert_string_equal(o.lower[1], "/b");
        assert_string_equal(o.upper, "/u");
        assert_true(o.is_volatile);
}

static void newer_kernels_name_them_one_by_one(void **state)
{
        (void)state;
        auto_overlay o = { 0 };
        assert_int_equal(overlay_parse("rw,lowerdir+=/a,lowerdir+=/b", &o, NULL), 0);
        assert_int_equal(strv_length(o.lower), 2);
        assert_string_equal(o.lower[1], "/b");
        assert_null(o.upper);
        assert_false(o.is_volatile);
}

static void names_are_unescaped(void **state)
{
        (void)state;
        auto_overlay o = { 0 };
        assert_int_equal(overlay_parse("lowerdir=/a\\040b\\054c,upperdir=/u\\040v", &o, NULL), 0);
        assert_string_equal(o.lower[0], "/a b,c");
        assert_string_equal(o.upper, "/u v");
        overlay_finish(&o);
        assert_int_equal(overlay_parse("lowerdir=/a,upperdir=/u\\8\\1", &o, NULL), 0);
        assert_string_equal(o.upper, "/u\\8\\1"); /* none of the kernel's */
}

static void what_is_more_than_directories_is_refused(void **state)
{
        (void)state;
        static const struct {
                const char *options, *story;
        } cases[] = {
                { "rw", "without layers" },
                { "lowerdir=/a,metacopy=on", "'metacopy=on'" },
                { "lowerdir=/a,redirect_dir=on", "'redirect_dir=on'" },
                { "lowerdir+=/a,datadir+=/b", "'datadir+=/b'" },
                { "lowerdir=/a::/b", "layer ''" },
                { "lowerdir=a:b", "layer 'a'" },
                { "lowerdir=/a\\134:b", "layer '/a\\'" },
                { "lowerdir=/a,upperdir=u", "'u' is relative" },
        };
        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                struct err err = { 0 };
                struct overlay o = { 0 };
                assert_int_equal(overlay_parse(cases[i].options, &o, &err), -EINVAL);
                assert_non_null(strstr(err_text(&err), cases[i].story));
                assert_null(o.lower);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(layers_are_found_top_first),
                cmocka_unit_test(newer_kernels_name_them_one_by_one),
                cmocka_unit_test(names_are_unescaped),
                cmocka_unit_test(what_is_more_than_directories_is_refused),
        };
        return cmocka_run_group_tests_name("sys-overlay", tests, NULL, NULL);
}
