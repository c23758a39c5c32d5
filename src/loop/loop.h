/* The event loop of a process, on sd-event (level-triggered epoll).
 *
 * One loop per process, driven by the thread that calls loop_run(); every
 * callback runs on that thread, never inside the call that registered it. All
 * functions belong to that thread, except loop_post(), which any thread may
 * call while the loop exists.
 *
 * A `struct loop_source` is owned by whoever registered it and lives until
 * loop_source_destroy(), which is legal anywhere on the loop's thread, inside
 * the source's own callback included; no callback comes after it. Sources must
 * be destroyed before the loop. The loop borrows descriptors: close them after
 * destroying their source.
 *
 * Callbacks return nothing: whoever fails reports through its own channels.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "base/err.h"

struct loop;
struct loop_source;

int loop_create(struct loop **ret, struct err *err);
/* Functions still queued by loop_post() and loop_defer() are dropped unrun. */
void loop_destroy(struct loop *loop);

/* Dispatches until loop_exit(), which may have come before; returns its code. May be
 * called again. */
int loop_run(struct loop *loop);
void loop_exit(struct loop *loop, int code);

/* Waits at most `timeout_ns` (negative: for ever) for something to happen and
 * dispatches one round. Returns whether anything was dispatched. For tests and
 * for programs with a wait of their own. */
bool loop_step(struct loop *loop, int64_t timeout_ns);

void loop_source_destroy(struct loop_source *source);

/* Calls `ready` while one of `events` (EPOLLIN, EPOLLOUT, EPOLLRDHUP…) holds;
 * EPOLLHUP and EPOLLERR are always reported. `events` 0 silences the source
 * altogether. One source per descriptor: dup() where two are needed. */
int loop_io(struct loop *loop, int fd, uint32_t events, void (*ready)(void *arg, uint32_t events),
            void *arg, struct loop_source **ret, struct err *err);
void loop_io_set(struct loop_source *source, uint32_t events);

/* A timer, disarmed at first; it fires once per loop_timer_arm(), on the
 * monotonic clock. Arming again replaces the previous deadline. */
int loop_timer(struct loop *loop, void (*expired)(void *arg), void *arg, struct loop_source **ret,
               struct err *err);
void loop_timer_arm(struct loop_source *source, int64_t delay_ns);
void loop_timer_disarm(struct loop_source *source);

/* Blocks `signo` in the calling thread and takes it from there. Threads made by
 * workers.h block every signal. SIGCHLD is better served by loop_pidfd(). */
int loop_signal(struct loop *loop, int signo, void (*arrived)(void *arg, int signo), void *arg,
                struct loop_source **ret, struct err *err);

/* Calls `exited` once when the process of `pidfd` (borrowed), child or not, has
 * ended. Reaping a child stays with the caller. */
int loop_pidfd(struct loop *loop, int pidfd, void (*exited)(void *arg), void *arg,
               struct loop_source **ret, struct err *err);

/* Calls `fn` once, in a later iteration, after what was queued before it. */
int loop_defer(struct loop *loop, void (*fn)(void *arg), void *arg);

/* As loop_defer(), from any thread. First in, first out. */
void loop_post(struct loop *loop, void (*fn)(void *arg), void *arg);
