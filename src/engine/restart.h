/* When an instance that ended is started again: docker's restart policies. Pure. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "engine/spec.h"

#define RESTART_DELAY_MIN_NS (100 * 1000000LL)
#define RESTART_DELAY_MAX_NS (60 * 1000000000LL)
#define RESTART_RESET_NS     (10 * 1000000000LL) /* a run this long clears the delay */

/* After an exit while isled minds it. `stopped_by_user`: a stop or a final kill was
 * asked for; `restarts`: restarts so far in a row. */
bool restart_wanted(const struct restart_policy *policy, int exit_code, bool stopped_by_user,
                    unsigned restarts);

/* When isled starts and finds it not running. `was_running`: isled did not see it end. */
bool restart_at_boot(const struct restart_policy *policy, int exit_code, bool stopped_by_user,
                     bool was_running);

/* The next delay, of the previous one (0: none) and how long the run lasted. */
int64_t restart_delay(int64_t previous_ns, int64_t run_ns);
