/* A pool of threads for work that blocks: downloads, unpacking, fsync.
 *
 * Threads start on demand, up to `threads`, take jobs in the order of
 * submission, and end after some seconds without work, so that an idle daemon
 * has one thread. When the last one ends, freed memory is given back to the
 * kernel.
 *
 * A job's `run` is called on a worker (all signals blocked); afterwards its
 * `done`, where not NULL, on the loop's thread. `arg` is the submitter's and
 * must live until then. Jobs share nothing with the loop's thread but what they
 * synchronise themselves; loop_post() is the way to report progress.
 *
 * workers_submit() belongs to any thread; create and destroy to the loop's.
 */
#pragma once

#include "loop/loop.h"

struct workers;

int workers_create(struct loop *loop, unsigned threads, struct workers **ret, struct err *err);

/* Waits until every submitted job has run, then calls the `done` functions
 * still owed. Long jobs need a cancel flag of their own, raised before this. */
void workers_destroy(struct workers *workers);

void workers_submit(struct workers *workers, void (*run)(void *arg), void (*done)(void *arg),
                    void *arg);

/* Jobs queued or running. */
unsigned workers_pending(struct workers *workers);
