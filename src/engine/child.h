/* A process the engine watches until it ends. */
#pragma once

#include "engine/core.h"

struct child;

/* Takes `pidfd`. `ours`: it is our child and is reaped. `exited` is called once with
 * its wait status (-1 where it is not ours), and the child is then freed. */
int child_watch(struct engine *engine, int pidfd, bool ours,
                void (*exited)(void *arg, int wait_status), void *arg, struct child **ret,
                struct err *err);
/* No callback any more; it is still reaped. NULL allowed. */
void child_forget(struct child *child);
int child_signal(struct child *child, int signo);
/* At the engine's end. */
void children_destroy(struct engine *engine);
