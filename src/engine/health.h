/* Health checks: what they found of an instance, and when the next one is due. Pure; probe.h
 * runs them.
 *
 * A check that ends with 0 makes an instance healthy; `retries` failures in a row make it
 * unhealthy. As long as it never was either it is starting, and failures of checks that began
 * within its start period do not count.
 *
 * Source: Docker Engine API v1.47, definitions HealthConfig and Health; the reference of
 * HEALTHCHECK in a Dockerfile.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct health_config;
struct instance_config;

#define HEALTH_LOG_MAX      5
#define HEALTH_OUTPUT_MAX   4096 /* bytes of a check's output that are kept */
#define HEALTH_TIME_MIN_NS  1000000LL
#define HEALTH_NO_EXIT_CODE (-1) /* it could not run, or took too long */

enum health_status { HEALTH_NONE, HEALTH_STARTING, HEALTH_HEALTHY, HEALTH_UNHEALTHY };

/* "none", "starting", "healthy", "unhealthy" */
const char *health_status_name(enum health_status status);

struct health_result {
        int64_t start_ns, end_ns; /* real time */
        int exit_code;            /* HEALTH_NO_EXIT_CODE */
        char *output;             /* UTF-8 */
};

/* All zero is the beginning: none is checked. */
struct health {
        enum health_status status;
        uint32_t failing_streak;
        struct health_result log[HEALTH_LOG_MAX]; /* the oldest first */
        size_t log_length;
};

/* The configuration with docker's defaults, within sensible bounds. */
struct health_times {
        int64_t interval_ns, timeout_ns, start_period_ns, start_interval_ns;
        int64_t retries;
};
struct health_times health_times(const struct health_config *config);

/* -EINVAL: a test that is none. NULL, an empty one and NONE are fine. */
int health_test_check(char *const *test, struct err *err);
/* -EINVAL, in docker's words: a configuration that makes no sense. NULL allowed. */
int health_config_check(const struct health_config *config, struct err *err);
/* The command (strv, the caller's); NULL where nothing is to be checked. */
char **health_command(const struct instance_config *config);

/* A new run of the instance: it is starting, without a past. */
void health_begin(struct health *health);
/* Takes the result; its output is the health's from now on. `age_ns`: how old the run was when
 * the check began. Whether the status has changed. */
bool health_record(struct health *health, const struct health_times *times, int64_t age_ns,
                   const struct health_result *result);
/* From the end of one check, or from the start of the run, to the next check. */
int64_t health_delay(const struct health *health, const struct health_times *times, int64_t age_ns);
void health_finish(struct health *health);

/* What the log says of a check that took too long; `output` "" or text. Heap. */
char *health_timeout_text(int64_t timeout_ns, const char *output);
