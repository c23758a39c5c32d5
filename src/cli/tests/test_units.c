#include "cli/units.h"

#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "base/str.h"
#include "base/tests/test.h"

static void sizes(void **state)
{
        (void)state;
        static const struct {
                double bytes;
                const char *three, *four, *binary;
        } rows[] = {
                { 0, "0B", "0B", "0B" },
                { 999, "999B", "999B", "999B" },
                { 1000, "1kB", "1kB", "1000B" },
                { 1024, "1.02kB", "1.024kB", "1KiB" },
                { 1536000, "1.54MB", "1.536MB", "1.465MiB" },
                { 4261550, "4.26MB", "4.262MB", "4.064MiB" },
                { 7.5e9, "7.5GB", "7.5GB", "6.985GiB" },
        };
        char text[UNITS_TEXT_SIZE];
        for (size_t i = 0; i < ELEMENTS(rows); i++) {
                assert_string_equal(size_decimal(text, rows[i].bytes, 3), rows[i].three);
                assert_string_equal(size_decimal(text, rows[i].bytes, 4), rows[i].four);
                assert_string_equal(size_binary(text, rows[i].bytes), rows[i].binary);
        }
}

static void ages(void **state)
{
        (void)state;
        static const struct {
                int64_t seconds;
                const char *text;
        } rows[] = {
                { -5, "Less than a second" },
                { 0, "Less than a second" },
                { 1, "1 second" },
                { 59, "59 seconds" },
                { 60, "About a minute" },
                { 119, "About a minute" },
                { 120, "2 minutes" },
                { 3599, "59 minutes" },
                { 3600, "About an hour" },
                { 5399, "About an hour" },
                { 5400, "2 hours" },
                { 47 * 3600, "47 hours" },
                { 48 * 3600, "2 days" },
                { 13 * 86400, "13 days" },
                { 14 * 86400, "2 weeks" },
                { 60 * 86400, "2 months" },
                { 729 * 86400, "24 months" },
                { 730 * 86400, "2 years" },
        };
        char text[UNITS_TEXT_SIZE];
        for (size_t i = 0; i < ELEMENTS(rows); i++)
                assert_string_equal(age_text(text, rows[i].seconds * NS_PER_S), rows[i].text);
}

static void byte_counts(void **state)
{
        (void)state;
        int64_t bytes;
        assert_int_equal(bytes_parse("1.5g", &bytes, NULL), 0);
        assert_true(bytes == 1610612736);
        assert_int_equal(bytes_parse("-1", &bytes, NULL), 0);
        assert_true(bytes == -1);
        assert_true(bytes_parse("-2", &bytes, NULL) < 0);
        assert_true(bytes_parse("", &bytes, NULL) < 0);
        assert_true(bytes_parse("9e9", &bytes, NULL) < 0);
}

static void moments(void **state)
{
        (void)state;
        static const struct {
                const char *text, *wanted;
        } good[] = {
                { "1136073845", "1136073845.000000000" },
                { "1136073845.000000001", "1136073845.000000001" },
                { "1136073845.5", "1136073845.500000000" },
                { "2006-01-02T15:04:05Z", "1136214245.000000000" },
                { "2006-01-02T15:04:05.25+01:00", "1136210645.250000000" },
                { "2006-01-02T15:04:05", "1136214245.000000000" },
                { "2006-01-02T15:04", "1136214240.000000000" },
                { "2006-01-02", "1136160000.000000000" },
                { "10s", "990.000000000" },
        };
        static const char *const bad[] = { "", "yesterday", "2006-13-02", "12345678901234" };
        char text[UNITS_TEXT_SIZE];
        for (size_t i = 0; i < ELEMENTS(good); i++) {
                assert_int_equal(moment_parse(good[i].text, 1000 * NS_PER_S, text, NULL), 0);
                assert_string_equal(text, good[i].wanted);
        }
        for (size_t i = 0; i < ELEMENTS(bad); i++)
                assert_true(moment_parse(bad[i], 0, text, NULL) < 0);
}

static void local_times(void **state)
{
        (void)state;
        char text[UNITS_TEXT_SIZE];
        assert_string_equal(time_local(text, 1136214245 * NS_PER_S),
                            "2006-01-02 15:04:05 +0000 UTC");
        assert_string_equal(time_rfc3339_local(text, 1136214245 * NS_PER_S + 7),
                            "2006-01-02T15:04:05.000000007Z");
}

int main(void)
{
        setenv("TZ", "UTC", 1);
        tzset();
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(sizes),       cmocka_unit_test(ages),
                cmocka_unit_test(byte_counts), cmocka_unit_test(moments),
                cmocka_unit_test(local_times),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
