/* Commands: short-lived programs, above all verbs of the OCI runtime, run without
 * waiting for them. One that outlives COMMAND_TIMEOUT_NS is killed and reported, so a
 * stuck runtime stays its instance's own problem. */
#pragma once

#include "engine/core.h"

#define COMMAND_TIMEOUT_NS (30 * 1000000000LL)
#define COMMAND_OUTPUT_MAX 65536u

/* err tells what the program said: the last "msg" of a JSON log, else its text. */
void command_run(struct engine *engine, char *const *argv, engine_done *done, void *arg);

/* RUNTIME --root … --log-format json VERB ARGS…; the list ends with NULL. */
void runtime_run(struct engine *engine, engine_done *done, void *arg, const char *verb, ...)
        __attribute__((sentinel));

/* What a runtime's output says, on the heap; NULL for nothing. Pure. */
char *runtime_message(const char *output);
