#include "base/clock.h"

#include <errno.h>
#include <time.h>

#include "base/str.h"
#include "base/tests/test.h"

static void text_round_trips(void **state)
{
        (void)state;
        static const int64_t moments[] = { 0, 1, 1767323045000000006, -1, -1500000000 };
        for (size_t i = 0; i < ELEMENTS(moments); i++) {
                char text[CLOCK_TEXT_SIZE];
                int64_t back = 0;
                clock_format(moments[i], text);
                assert_int_equal(clock_parse(text, &back), 0);
                assert_true(back == moments[i]);
        }
        char text[CLOCK_TEXT_SIZE];
        clock_format(1767323045000000006, text);
        assert_string_equal(text, "2026-01-02T03:04:05.000000006Z");
}

static void every_day_is_the_calendars(void **state)
{
        (void)state;
        for (int64_t day = -100000; day <= 100000; day++) {
                char text[CLOCK_TEXT_SIZE], expected[CLOCK_TEXT_SIZE];
                time_t seconds = day * 86400 + 86399;
                struct tm tm;
                gmtime_r(&seconds, &tm);
                strftime(expected, sizeof(expected), "%Y-%m-%dT%H:%M:%S.000000000Z", &tm);
                clock_format(seconds * NS_PER_S, text);
                assert_string_equal(text, expected);
        }
}

static void offsets_and_fractions_are_read(void **state)
{
        (void)state;
        int64_t a = 0, b = 0;
        assert_int_equal(clock_parse("2026-01-02T03:04:05Z", &a), 0);
        assert_int_equal(clock_parse("2026-01-02T05:04:05.25+02:00", &b), 0);
        assert_true(b - a == NS_PER_S / 4);
        static const char *const malformed[] = { "",
                                                 "2026-01-02",
                                                 "2026-01-02T03:04:05",
                                                 "2026-01-02T03:04:05.Z",
                                                 "2026-01-02T03:04:05+2",
                                                 "2026-01-02T03:04:05Zx" };
        for (size_t i = 0; i < ELEMENTS(malformed); i++)
                assert_int_equal(clock_parse(malformed[i], &a), -EINVAL);
        assert_int_equal(clock_parse("0019-01-02T03:04:05Z", &a), -ERANGE);
        assert_int_equal(clock_parse("2900-01-02T03:04:05Z", &a), -ERANGE);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(text_round_trips),
                cmocka_unit_test(every_day_is_the_calendars),
                cmocka_unit_test(offsets_and_fractions_are_read),
        };
        return cmocka_run_group_tests_name("base-clock", tests, NULL, NULL);
}
