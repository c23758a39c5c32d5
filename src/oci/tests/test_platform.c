#include "oci/platform.h"

#include <errno.h>

#include "base/str.h"
#include "base/tests/test.h"

static int score(const char *offer, const char *wanted)
{
        struct oci_platform o, w;
        assert_int_equal(oci_platform_parse(offer, &o, NULL), 0);
        assert_int_equal(oci_platform_parse(wanted, &w, NULL), 0);
        int s = oci_platform_score(&o, &w);
        oci_platform_finish(&o);
        oci_platform_finish(&w);
        return s;
}

static void spellings_are_normalised(void **state)
{
        (void)state;
        static const char *const rows[][2] = {
                { "amd64", "linux/amd64" },
                { "linux/x86_64", "linux/amd64" },
                { "linux/amd64/v1", "linux/amd64" },
                { "linux/amd64/v3", "linux/amd64/v3" },
                { "linux/aarch64", "linux/arm64" },
                { "linux/arm64/v8", "linux/arm64" },
                { "linux/arm64/8", "linux/arm64" },
                { "linux/arm", "linux/arm/v7" },
                { "linux/armhf", "linux/arm/v7" },
                { "linux/armel", "linux/arm/v6" },
                { "linux/arm/6", "linux/arm/v6" },
                { "linux/i386", "linux/386" },
                { "freebsd/riscv64", "freebsd/riscv64" },
                { "linux/mips/odd", "linux/mips/odd" },
        };
        for (size_t i = 0; i < ELEMENTS(rows); i++) {
                struct oci_platform platform;
                char text[OCI_PLATFORM_TEXT_SIZE];
                assert_int_equal(oci_platform_parse(rows[i][0], &platform, NULL), 0);
                oci_platform_format(&platform, text);
                assert_string_equal(text, rows[i][1]);
                oci_platform_finish(&platform);
        }
        static const char *const bad[] = { "",
                                           "/",
                                           "linux/",
                                           "a/b/c/d",
                                           "linux/a b",
                                           "//",
                                           "linux/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" };
        struct oci_platform platform;
        for (size_t i = 0; i < ELEMENTS(bad); i++)
                assert_int_equal(oci_platform_parse(bad[i], &platform, NULL), -EINVAL);
}

static void the_nearest_platform_scores_highest(void **state)
{
        (void)state;
        assert_true(score("linux/amd64", "linux/amd64") > score("linux/386", "linux/amd64"));
        assert_true(score("linux/386", "linux/amd64") > 0);
        assert_int_equal(score("linux/amd64", "linux/386"), 0);
        assert_int_equal(score("linux/arm64", "linux/amd64"), 0);
        assert_int_equal(score("windows/amd64", "linux/amd64"), 0);
        assert_int_equal(score("linux/amd64/v3", "linux/amd64"), 0);
        assert_true(score("linux/amd64/v2", "linux/amd64/v3") > score("amd64", "linux/amd64/v3"));
        assert_true(score("linux/arm/v7", "linux/arm/v7") > score("linux/arm/v6", "linux/arm/v7"));
        assert_true(score("linux/arm/v6", "linux/arm/v7") > score("linux/arm/v5", "linux/arm/v7"));
        assert_int_equal(score("linux/arm/v7", "linux/arm/v6"), 0);
        assert_true(score("linux/arm64", "linux/arm64/v8") > score("linux/arm/v8", "linux/arm64"));
        assert_true(score("linux/arm/v8", "linux/arm64") > score("linux/arm/v7", "linux/arm64"));
        assert_true(score("linux/mips/odd", "linux/mips/odd") > 0);
        assert_int_equal(score("linux/mips", "linux/mips/odd"), 0);

        struct oci_platform nothing = { 0 }, host;
        oci_platform_host(&host);
        assert_string_equal(host.os, "linux");
        assert_int_equal(oci_platform_score(&nothing, &host), 0);
        assert_int_equal(oci_platform_score(&host, &host), 1000);
        oci_platform_finish(&host);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(spellings_are_normalised),
                cmocka_unit_test(the_nearest_platform_scores_highest),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
