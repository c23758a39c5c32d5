/* exit.json: how a run ended, for an isled that was not there to be told.
 *
 *     {"exit_code":137,"oom_killed":true,"pid":123,
 *      "started_at":"…","finished_at":"…","error":""}
 *
 * Written atomically, before the runtime's state is deleted. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

struct exit_record {
        int exit_code;
        bool oom_killed;
        pid_t pid;
        int64_t started_ns, finished_ns;
        const char *error; /* NULL: it ran */
};

int exit_write(const struct exit_record *record, struct err *err);
