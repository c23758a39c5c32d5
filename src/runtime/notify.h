/* NOTIFY_SOCKET: a caller that waits to be told that the program is ready (sd_notify(3)).
 *
 * The caller's own socket is not reachable from inside, so the container gets one of ours: the
 * directory STATE_NOTIFY of its state is mounted at the name that the caller's socket has, with a
 * socket `notify` in it, and the program's NOTIFY_SOCKET says so, as crun does it. Who starts the
 * program (`run`, or `start` after `create`) listens there until it hears READY=1, which it passes
 * on; nothing else of what a container may say is. So a detached `run`, and `start`, return when
 * the program is ready, or has ended. A checkpoint knows where it was mounted, and a restored
 * container has it there again, but nobody waits: it may have been ready long ago.
 */
#pragma once

#include "oci/runtime_spec.h"
#include "runtime/state.h"

/* The mount and the variable, into a spec that was read. Where it is mounted (heap), or NULL:
 * nobody is to be told. */
char *notify_prepare(const char *root, const char *id, struct oci_spec *spec);
/* The mount alone, at a place that an earlier one had. */
void notify_mount(const char *root, const char *id, const char *place, struct oci_spec *spec);
/* What is mounted, in a new state directory. */
int notify_make(struct state *state, struct err *err);
/* Listens, before the program is started: -1 in *ret_fd where nobody is to be told, or the
 * container was made without. */
int notify_listen(struct state *state, int *ret_fd, struct err *err);
/* Takes the messages that are there, up to READY=1: 1, and the caller now knows it; else 0. */
int notify_pass(int fd);
/* Until it is ready or the process of the pidfd has ended. */
int notify_wait(int fd, int pidfd, struct err *err);
