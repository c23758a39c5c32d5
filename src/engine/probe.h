/* Runs the health checks of instances (health.h).
 *
 * Theory of operation. One check at a time: an exec session of the engine's own, whose output
 * comes through a socket as a client's would. One timer for each instance stands for the next
 * check or for the time limit of the one under way: PROBE_START_NS until its command runs, then
 * the configuration's. A check that is over its limit, or not wanted any more because the
 * instance was paused, is stopped or has ended, is killed; the next one waits until it is gone, so
 * they do not pile up. A check is over when its end is known and its output is read.
 *
 * isled that dies in the middle of a check leaves its session to the next one, which kills it
 * (exec.c) and begins anew, as after a start.
 */
#pragma once

#include "engine/core.h"

#define PROBE_START_NS (30 * 1000000000LL)

/* The instance runs: a new run, or one that is taken over. */
void probes_begin(struct instance *instance);
/* Its state has changed: checks go on, rest or end. */
void probes_follow(struct instance *instance);
/* It is told to end, and failures from now on say nothing; or it does not end. */
void probes_hold(struct instance *instance, bool hold);
/* At the end of the object, or of the engine. */
void probes_forget(struct instance *instance);
