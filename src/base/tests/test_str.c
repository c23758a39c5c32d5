#include "base/str.h"

#include <errno.h>
#include <stdlib.h>

#include "base/auto.h"
#include "base/tests/test.h"

static void numbers_are_strict(void **state)
{
        (void)state;
        uint64_t u = 7;
        int64_t i = 7;
        uint32_t w = 7;
        assert_int_equal(str_to_u64("18446744073709551615", &u), 0);
        assert_true(u == UINT64_MAX);
        assert_int_equal(str_to_u64("18446744073709551616", &u), -ERANGE);
        assert_true(u == UINT64_MAX); /* untouched on failure */
        static const char *const malformed[] = { "", " 1", "1 ", "+1", "-1", "0x1", "1e3" };
        for (size_t n = 0; n < ELEMENTS(malformed); n++)
                assert_int_equal(str_to_u64(malformed[n], &u), -EINVAL);
        assert_int_equal(str_to_u64(NULL, &u), -EINVAL);
        assert_int_equal(str_to_i64("-9223372036854775808", &i), 0);
        assert_true(i == INT64_MIN);
        assert_int_equal(str_to_i64("9223372036854775808", &i), -ERANGE);
        assert_int_equal(str_to_i64("--1", &i), -EINVAL);
        assert_int_equal(str_to_u32("4294967295", &w), 0);
        assert_int_equal(str_to_u32("4294967296", &w), -ERANGE);
}

static void sizes_read_as_docker_reads_them(void **state)
{
        (void)state;
        static const struct {
                const char *text;
                int r;
                uint64_t bytes;
        } rows[] = {
                { "0", 0, 0 },
                { "512", 0, 512 },
                { "512b", 0, 512 },
                { "4k", 0, 4096 },
                { "64MiB", 0, 64 << 20 },
                { "1.5g", 0, 3ULL << 29 },
                { "2GB", 0, 2ULL << 30 },
                { "1tb", 0, 1ULL << 40 },
                { "", -EINVAL, 0 },
                { "m", -EINVAL, 0 },
                { "-1m", -EINVAL, 0 },
                { "1mm", -EINVAL, 0 },
                { "1x", -EINVAL, 0 },
                { "99999999999999999999", -ERANGE, 0 },
                { "20000000p", -ERANGE, 0 },
                { "0000000000000000000000000000000001", -ERANGE, 0 },
        };
        for (size_t n = 0; n < ELEMENTS(rows); n++) {
                uint64_t bytes = 0;
                assert_int_equal(str_to_size(rows[n].text, &bytes), rows[n].r);
                assert_true(bytes == rows[n].bytes);
        }
}

static void vectors_grow_and_join(void **state)
{
        (void)state;
        auto_strv v = NULL;
        assert_int_equal(strv_length(v), 0);
        strv_push(&v, "a");
        strv_push_take(&v, xstrdup("bc"));
        strv_push(&v, "");
        auto_free char *joined = strv_join(v, ", ");
        assert_string_equal(joined, "a, bc, ");
        auto_strv copy = strv_copy(v);
        assert_int_equal(strv_length(copy), 3);
        assert_true(strv_contains(copy, "bc"));
        assert_false(strv_contains(copy, "b"));
        auto_strv pieces = str_split(":x::y", ':');
        assert_int_equal(strv_length(pieces), 4);
        assert_string_equal(pieces[0], "");
        assert_string_equal(pieces[3], "y");
        auto_free char *nothing = strv_join(NULL, ",");
        assert_string_equal(nothing, "");
}

static void variables_keep_their_place(void **state)
{
        (void)state;
        auto_strv env = NULL;
        strv_set_variable(&env, "PATH=/bin");
        strv_set_variable(&env, "PATH_INFO=x");
        strv_set_variable(&env, "PATH=");
        strv_set_variable(&env, "bare");
        strv_set_variable(&env, "bare");
        auto_free char *all = strv_join(env, " ");
        assert_string_equal(all, "PATH= PATH_INFO=x bare");
}

static void prefixes_and_suffixes(void **state)
{
        (void)state;
        assert_string_equal(str_after("sha256:ab", "sha256:"), "ab");
        assert_null(str_after("sha25", "sha256:"));
        assert_true(str_ends("layer.tar.gz", ".gz"));
        assert_false(str_ends("gz", ".gz"));
        assert_true(streq(NULL, NULL));
        assert_false(streq(NULL, ""));
}

static void lists_are_bits(void **state)
{
        (void)state;
        unsigned long bits[2] = { 0 };
        size_t max = 8 * sizeof(bits);
        assert_int_equal(str_to_bits("0-2,9,64", bits, max), 0);
        assert_true(bits[0] == 0x207 && bits[1] == 1);
        static const char *const bad[] = {
                "", "x", "1-", "-1", "3-1", "1,,2", "128", "0-128", "1 "
        };
        for (size_t n = 0; n < ELEMENTS(bad); n++)
                assert_int_equal(str_to_bits(bad[n], bits, max), -EINVAL);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(numbers_are_strict),
                cmocka_unit_test(sizes_read_as_docker_reads_them),
                cmocka_unit_test(vectors_grow_and_join),
                cmocka_unit_test(variables_keep_their_place),
                cmocka_unit_test(prefixes_and_suffixes),
                cmocka_unit_test(lists_are_bits),
        };
        return cmocka_run_group_tests_name("base-str", tests, NULL, NULL);
}
