#include "engine/health.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/auto.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/str.h"
#include "engine/spec.h"

#define TIME_MAX_NS (36500LL * 24 * 3600 * NS_PER_S) /* sums of two do not overflow */

const char *health_status_name(enum health_status status)
{
        static const char *const names[] = {
                [HEALTH_NONE] = "none",
                [HEALTH_STARTING] = "starting",
                [HEALTH_HEALTHY] = "healthy",
                [HEALTH_UNHEALTHY] = "unhealthy",
        };
        return names[status];
}

/* -- configuration ------------------------------------------------------------- */

static int64_t time_or(int64_t configured_ns, int64_t default_ns)
{
        if (configured_ns <= 0)
                return default_ns;
        if (configured_ns < HEALTH_TIME_MIN_NS)
                return HEALTH_TIME_MIN_NS;
        return configured_ns < TIME_MAX_NS ? configured_ns : TIME_MAX_NS;
}

struct health_times health_times(const struct health_config *config)
{
        return (struct health_times){
                .interval_ns = time_or(config->interval_ns, 30 * NS_PER_S),
                .timeout_ns = time_or(config->timeout_ns, 30 * NS_PER_S),
                .start_period_ns = time_or(config->start_period_ns, 0),
                .start_interval_ns = time_or(config->start_interval_ns, 5 * NS_PER_S),
                .retries = config->retries > 0 ? config->retries : 3,
        };
}

int health_test_check(char *const *test, struct err *err)
{
        if (!test || !test[0] || streq(test[0], "") || streq(test[0], "NONE"))
                return 0;
        if (!streq(test[0], "CMD") && !streq(test[0], "CMD-SHELL"))
                return err_plain(err, EINVAL,
                                 "Healthcheck of unknown kind '%s'; there are NONE, CMD and "
                                 "CMD-SHELL",
                                 test[0]);
        if (str_empty(test[1]))
                return err_plain(err, EINVAL, "Healthcheck of kind %s without a command", test[0]);
        return 0;
}

int health_config_check(const struct health_config *config, struct err *err)
{
        if (!config)
                return 0;
        const struct {
                const char *name;
                int64_t time_ns;
        } times[] = {
                { "Interval", config->interval_ns },
                { "Timeout", config->timeout_ns },
                { "StartPeriod", config->start_period_ns },
                { "StartInterval", config->start_interval_ns },
        };
        for (size_t i = 0; i < ELEMENTS(times); i++)
                if (times[i].time_ns != 0 && times[i].time_ns < HEALTH_TIME_MIN_NS)
                        return err_plain(err, EINVAL, "%s in Healthcheck cannot be less than 1ms",
                                         times[i].name);
        if (config->retries < 0)
                return err_plain(err, EINVAL, "Retries in Healthcheck cannot be negative");
        return health_test_check(config->test, err);
}

char **health_command(const struct instance_config *config)
{
        char *const *test = config->healthcheck ? config->healthcheck->test : NULL;
        if (!test || !test[0] || health_test_check(test, NULL) < 0)
                return NULL;
        char **command = NULL;
        if (streq(test[0], "CMD-SHELL")) {
                static char *const posix[] = { (char *)"/bin/sh", (char *)"-c", NULL };
                bool own = config->shell && config->shell[0];
                command = strv_copy(own ? config->shell : posix);
        } else if (!streq(test[0], "CMD")) {
                return NULL;
        }
        for (test++; *test; test++)
                strv_push(&command, *test);
        return command;
}

/* -- state --------------------------------------------------------------------- */

void health_finish(struct health *health)
{
        for (size_t i = 0; i < health->log_length; i++)
                free(health->log[i].output);
        *health = (struct health){ 0 };
}

void health_begin(struct health *health)
{
        health_finish(health);
        health->status = HEALTH_STARTING;
}

static void keep(struct health *health, const struct health_result *result)
{
        if (health->log_length == HEALTH_LOG_MAX) {
                free(health->log[0].output);
                health->log_length--;
                memmove(health->log, health->log + 1, health->log_length * sizeof(*health->log));
        }
        health->log[health->log_length++] = *result;
}

bool health_record(struct health *health, const struct health_times *times, int64_t age_ns,
                   const struct health_result *result)
{
        enum health_status before = health->status;
        keep(health, result);
        if (result->exit_code == 0) {
                health->failing_streak = 0;
                health->status = HEALTH_HEALTHY;
        } else if (health->status != HEALTH_STARTING || age_ns >= times->start_period_ns) {
                health->failing_streak++;
                if (health->failing_streak >= times->retries)
                        health->status = HEALTH_UNHEALTHY;
        }
        return health->status != before;
}

int64_t health_delay(const struct health *health, const struct health_times *times, int64_t age_ns)
{
        bool starts = health->status == HEALTH_STARTING && age_ns < times->start_period_ns;
        return starts ? times->start_interval_ns : times->interval_ns;
}

/* -- text ---------------------------------------------------------------------- */

/* `ns` in units of ten to the `digits` ns, as "1.5"; zeros at the end are left out. */
static void put_decimal(struct buf *text, int64_t ns, int64_t unit_ns, int digits)
{
        char number[48];
        int length = snprintf(number, sizeof(number), "%lld.%0*lld", (long long)(ns / unit_ns),
                              digits, (long long)(ns % unit_ns));
        while (number[length - 1] == '0')
                length--;
        if (number[length - 1] == '.')
                length--;
        buf_append(text, number, (size_t)length);
}

/* Go's notation: "100ms", "1.5s", "1m30s", "1h0m0s". */
static void put_duration(struct buf *text, int64_t ns)
{
        if (ns < NS_PER_S) {
                put_decimal(text, ns, NS_PER_MS, 6);
                buf_puts(text, "ms");
                return;
        }
        int64_t minutes = ns / NS_PER_S / 60;
        if (minutes >= 60)
                buf_printf(text, "%lldh", (long long)(minutes / 60));
        if (minutes)
                buf_printf(text, "%lldm", (long long)(minutes % 60));
        put_decimal(text, ns % (60 * NS_PER_S), NS_PER_S, 9);
        buf_putc(text, 's');
}

char *health_timeout_text(int64_t timeout_ns, const char *output)
{
        struct buf text = { 0 };
        buf_puts(&text, "Health check exceeded timeout (");
        put_duration(&text, timeout_ns);
        buf_printf(&text, ")%s%s", *output ? ": " : "", output);
        return buf_take(&text);
}
