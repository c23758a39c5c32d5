/* A thread of a device's own, for what may block the machine: disks, networks, files.
 *
 * The thread sleeps until it is kicked, its descriptor has input, or the time has
 * come that the last call asked for; then it calls work(), once for any number of
 * reasons. Between worker_start() and worker_stop() only: what the device's queues
 * hold belongs to this thread meanwhile.
 *
 *     start    of the device's operations calls worker_start(), which kicks
 *     notify   calls worker_kick()
 *     stop     calls worker_stop(), which returns when work() is not running
 *
 * work() takes no lock that a caller of worker_stop() holds: not the device's.
 *
 * Threads: create and destroy belong to one thread; all else to any, but
 * worker_watch() only to work() itself.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "vmm/jail/jail.h"

struct worker;

#define WORKER_IDLE (-1) /* nothing to do until somebody asks */

/* Returns the time (clock_monotonic_ns()) at which it wants to be called at the
 * latest, or WORKER_IDLE. */
typedef int64_t worker_fn(void *arg);

/* `fd` may be -1; it stays the caller's. `name` is the thread's, 15 bytes count;
 * `kind` says what it may ask of the kernel. */
int worker_create(const char *name, enum jail_thread kind, worker_fn *work, void *arg, int fd,
                  struct worker **ret, struct err *err);
/* A spare one goes back to who made it. */
void worker_destroy(struct worker *worker);

/* A thread made ahead, while threads may still be made, that has no work yet. */
int worker_create_spare(const char *name, enum jail_thread kind, struct worker **ret,
                        struct err *err);
/* A spare one's work; where `spare` is NULL, a worker is made for it. */
int worker_use(struct worker *spare, const char *name, enum jail_thread kind, worker_fn *work,
               void *arg, int fd, struct worker **ret, struct err *err);
/* Keeps every worker of the process from working until workers_release(). False, and nothing
 * held, where one works just now. */
bool workers_hold(void);
/* The same, and waits for those that work: what they had begun is done when it returns. Not for
 * work() itself, nor with a lock that work() takes. Workers can be stopped and destroyed meanwhile.
 */
void workers_quiesce(void);
void workers_release(void);

void worker_start(struct worker *worker);
void worker_stop(struct worker *worker);
void worker_kick(struct worker *worker);
/* Calls `errand` on the worker's thread, for its rights (jail.h), and returns when that is done:
 * between two calls of work(), and also while workers are held or this one is stopped. One caller
 * at a time. */
void worker_call(struct worker *worker, void (*errand)(void *arg), void *arg);
/* Whether input of the descriptor wakes it; at first it does not. */
void worker_watch(struct worker *worker, bool watch);
