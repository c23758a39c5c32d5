/* Landlock: rights over files and networks that a thread gives up for good, without
 * privileges. A second line behind seccomp filters and empty roots.
 *
 * What is open already stays usable. Source: landlock(7), Linux'
 * Documentation/userspace-api/landlock.rst.
 */
#pragma once

#include <stdbool.h>

#include "base/err.h"

struct landlock_denial {
        bool files;    /* every path: opening, making, removing, renaming, devices' ioctls */
        bool networks; /* TCP ports; abstract Unix sockets of other processes */
};

/* For the calling thread and what it starts, as far as this kernel knows how: returns its
 * version of Landlock, 0 where it has none. The thread has no_new_privs. */
int landlock_deny(const struct landlock_denial *denial, struct err *err);
