#include "base/duration.h"

#include "base/clock.h"
#include "base/str.h"
#include "base/tests/test.h"

static void durations(void **state)
{
        (void)state;
        static const struct {
                const char *text;
                int64_t ns;
        } good[] = {
                { "0", 0 },
                { "300ms", 300 * NS_PER_MS },
                { "1h2m3.5s", 3723500 * NS_PER_MS },
                { "-5s", -5 * NS_PER_S },
                { ".5s", 500 * NS_PER_MS },
                { "1\xc2\xb5s", 1000 },
        };
        static const char *const bad[] = { "", "5", "s", "1x", "1s2", "-", "1h 2m", "9999999h" };
        int64_t ns;
        for (size_t i = 0; i < ELEMENTS(good); i++) {
                assert_int_equal(duration_parse(good[i].text, &ns, NULL), 0);
                assert_true(ns == good[i].ns);
        }
        for (size_t i = 0; i < ELEMENTS(bad); i++)
                assert_true(duration_parse(bad[i], &ns, NULL) < 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(durations),
        };
        return cmocka_run_group_tests_name("base-duration", tests, NULL, NULL);
}
