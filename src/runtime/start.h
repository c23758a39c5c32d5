/* The rendezvous of `start` with the first process of a created container: a
 * Unix socket in the state directory. The process listens and waits; `start`
 * connects and sends one byte; the process executes its program, which closes
 * the connection, or sends a sync.h error. A connection that closes without a
 * byte was a `start` that died: the process goes on waiting.
 */
#pragma once

#include "runtime/state.h"

/* Binds and listens in the state directory. */
int start_listen(struct state *state, int *ret_fd, struct err *err);
/* 0 when the program was executed. */
int start_tell(struct state *state, struct err *err);
