/* What checks make of an instance's health, and when the next one is due. */
#include "engine/health.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/str.h"
#include "base/tests/test.h"
#include "engine/merge.h"
#include "engine/spec.h"

static const struct health_times quick = {
        .interval_ns = 10, .start_period_ns = 1000, .start_interval_ns = 2, .retries = 2
};

/* Whether the status has changed. */
static bool record(struct health *health, int64_t age_ns, int exit_code, const char *output)
{
        struct health_result result = { .start_ns = age_ns,
                                        .end_ns = age_ns + 1,
                                        .exit_code = exit_code,
                                        .output = xstrdup(output) };
        return health_record(health, &quick, age_ns, &result);
}

static void failures_in_a_row_are_unhealthy(void **state)
{
        (void)state;
        struct health health = { 0 };
        health_begin(&health);
        assert_int_equal(health.status, HEALTH_STARTING);
        assert_true(record(&health, 2000, 0, ""));
        assert_int_equal(health.status, HEALTH_HEALTHY);
        assert_false(record(&health, 2001, 1, ""));
        assert_int_equal(health.failing_streak, 1);
        assert_false(record(&health, 2002, 0, "")); /* a success forgives */
        assert_int_equal(health.failing_streak, 0);
        assert_false(record(&health, 2003, 1, ""));
        assert_true(record(&health, 2004, HEALTH_NO_EXIT_CODE, ""));
        assert_int_equal(health.status, HEALTH_UNHEALTHY);
        assert_false(record(&health, 2005, 7, ""));
        assert_int_equal(health.failing_streak, 3);
        assert_true(record(&health, 2006, 0, ""));
        assert_int_equal(health.status, HEALTH_HEALTHY);
        health_finish(&health);
        assert_int_equal(health.status, HEALTH_NONE);
}

static void failures_while_it_starts_do_not_count(void **state)
{
        (void)state;
        struct health health = { 0 };
        health_begin(&health);
        assert_int_equal(health_delay(&health, &quick, 0), quick.start_interval_ns);
        assert_int_equal(health_delay(&health, &quick, 1000), quick.interval_ns);
        for (int i = 0; i < 5; i++)
                assert_false(record(&health, 999, 1, ""));
        assert_int_equal(health.failing_streak, 0);
        assert_int_equal(health.status, HEALTH_STARTING);
        assert_true(record(&health, 999, 0, ""));
        /* It has started, early as it is. */
        assert_int_equal(health_delay(&health, &quick, 999), quick.interval_ns);
        assert_false(record(&health, 999, 1, ""));
        assert_true(record(&health, 999, 1, ""));
        assert_int_equal(health.status, HEALTH_UNHEALTHY);

        health_begin(&health);
        assert_int_equal(health.status, HEALTH_STARTING);
        assert_int_equal(health.failing_streak, 0);
        assert_int_equal(health.log_length, 0);
        assert_false(record(&health, 1000, 1, ""));
        assert_true(record(&health, 1001, 1, ""));
        assert_int_equal(health.status, HEALTH_UNHEALTHY);
        health_finish(&health);
}

static void the_last_results_are_kept(void **state)
{
        (void)state;
        struct health health = { 0 };
        health_begin(&health);
        static const char *const outputs[] = { "a", "b", "c", "d", "e", "f", "g" };
        for (size_t i = 0; i < ELEMENTS(outputs); i++)
                record(&health, (int64_t)i, (int)i, outputs[i]);
        assert_int_equal(health.log_length, HEALTH_LOG_MAX);
        for (size_t i = 0; i < HEALTH_LOG_MAX; i++) {
                assert_string_equal(health.log[i].output, outputs[i + 2]);
                assert_int_equal(health.log[i].exit_code, i + 2);
        }
        health_finish(&health);
}

static void times_have_defaults_and_bounds(void **state)
{
        (void)state;
        struct health_times times = health_times(&(struct health_config){ 0 });
        assert_true(times.interval_ns == 30 * NS_PER_S && times.timeout_ns == 30 * NS_PER_S &&
                    times.start_period_ns == 0 && times.start_interval_ns == 5 * NS_PER_S &&
                    times.retries == 3);
        /* An image may say anything. */
        times = health_times(&(struct health_config){
                .interval_ns = 1, .timeout_ns = INT64_MAX, .start_period_ns = -5, .retries = -1 });
        assert_true(times.interval_ns == HEALTH_TIME_MIN_NS);
        assert_true(times.timeout_ns < INT64_MAX / 2 && times.timeout_ns > 0);
        assert_true(times.start_period_ns == 0 && times.retries == 3);
}

static void refuse(struct health_config config, const char *words)
{
        struct err err = { 0 };
        assert_int_equal(health_config_check(&config, &err), -EINVAL);
        if (!strstr(err_text(&err), words))
                fail_msg("'%s' is not in '%s'", words, err_text(&err));
}

#define TEST(...) ((char *[]){ __VA_ARGS__, NULL })
static char cmd[] = "CMD", shell[] = "CMD-SHELL", none[] = "NONE", a[] = "a", b[] = "b",
            other[] = "HTTP", empty[] = "";

static void what_makes_no_sense_is_refused(void **state)
{
        (void)state;
        refuse((struct health_config){ .interval_ns = 1 },
               "Interval in Healthcheck cannot be less than 1ms");
        refuse((struct health_config){ .timeout_ns = 999999 },
               "Timeout in Healthcheck cannot be less than 1ms");
        refuse((struct health_config){ .start_period_ns = -1 },
               "StartPeriod in Healthcheck cannot be less than 1ms");
        refuse((struct health_config){ .start_interval_ns = 5 },
               "StartInterval in Healthcheck cannot be less than 1ms");
        refuse((struct health_config){ .retries = -1 },
               "Retries in Healthcheck cannot be negative");
        refuse((struct health_config){ .test = TEST(other, a) }, "'HTTP'");
        refuse((struct health_config){ .test = TEST(cmd) }, "CMD without a command");
        refuse((struct health_config){ .test = TEST(shell, empty) }, "CMD-SHELL without");
        assert_int_equal(health_config_check(NULL, NULL), 0);
        assert_int_equal(
                health_config_check(&(struct health_config){ .interval_ns = NS_PER_MS }, NULL), 0);
}

static void assert_command(char **test, char **own_shell, const char *wanted)
{
        struct health_config health = { .test = test };
        struct instance_config config = { .healthcheck = &health, .shell = own_shell };
        auto_strv command = health_command(&config);
        auto_free char *text = command ? strv_join(command, "|") : NULL;
        if (wanted)
                assert_string_equal(text, wanted);
        else
                assert_null(command);
}

static void commands_follow_their_kind(void **state)
{
        (void)state;
        assert_command(TEST(cmd, a, b), NULL, "a|b");
        assert_command(TEST(shell, a), NULL, "/bin/sh|-c|a");
        assert_command(TEST(shell, a), TEST(b, cmd), "b|CMD|a");
        assert_command(TEST(none), NULL, NULL);
        assert_command(TEST(other, a), NULL, NULL);
        assert_command(NULL, NULL, NULL);
        assert_null(health_command(&(struct instance_config){ 0 }));
}

static struct health_config *merged(char **test, int64_t interval_ns,
                                    const struct oci_healthcheck *image, char ***warnings)
{
        struct instance_config config = { .healthcheck = new0(struct health_config) };
        config.healthcheck->test = test ? strv_copy(test) : NULL;
        config.healthcheck->interval_ns = interval_ns;
        struct oci_execution execution = { .healthcheck = (struct oci_healthcheck *)image };
        config_merge(&config, &execution, warnings);
        return config.healthcheck;
}

static void health_free(struct health_config *health)
{
        strv_free(health->test);
        free(health);
}

static void what_is_not_said_is_the_images(void **state)
{
        (void)state;
        auto_strv warnings = NULL;
        struct oci_healthcheck image = { .test = TEST(cmd, a), .interval_ns = 7, .retries = 9 };
        struct health_config *health = merged(NULL, 0, &image, &warnings);
        assert_string_equal(health->test[1], "a");
        assert_true(health->interval_ns == 7 && health->retries == 9);
        health_free(health);
        health = merged(TEST(none), 5, &image, &warnings);
        assert_string_equal(health->test[0], "NONE");
        assert_true(health->interval_ns == 5 && health->retries == 9);
        health_free(health);
        assert_null(warnings);
        image.test = TEST(other, a);
        health = merged(NULL, 0, &image, &warnings);
        assert_null(health->test);
        assert_non_null(strstr(warnings[0], "'HTTP'"));
        health_free(health);
}

static void a_time_is_told_as_docker_does(void **state)
{
        (void)state;
        static const struct {
                int64_t ns;
                const char *output, *text;
        } rows[] = {
                { NS_PER_MS, "", "(1ms)" },
                { 1500 * NS_PER_US, "", "(1.5ms)" },
                { 100 * NS_PER_MS, "x\n", "(100ms): x\n" },
                { 1050 * NS_PER_MS, "", "(1.05s)" },
                { 90 * NS_PER_S, "", "(1m30s)" },
                { 3600 * NS_PER_S, "", "(1h0m0s)" },
        };
        for (size_t i = 0; i < ELEMENTS(rows); i++) {
                auto_free char *text = health_timeout_text(rows[i].ns, rows[i].output);
                assert_string_equal(str_after(text, "Health check exceeded timeout "),
                                    rows[i].text);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(failures_in_a_row_are_unhealthy),
                cmocka_unit_test(failures_while_it_starts_do_not_count),
                cmocka_unit_test(the_last_results_are_kept),
                cmocka_unit_test(times_have_defaults_and_bounds),
                cmocka_unit_test(what_makes_no_sense_is_refused),
                cmocka_unit_test(commands_follow_their_kind),
                cmocka_unit_test(what_is_not_said_is_the_images),
                cmocka_unit_test(a_time_is_told_as_docker_does),
        };
        return cmocka_run_group_tests_name("engine-health", tests, NULL, NULL);
}
