/* The root file system of an instance as a detached mount: a descriptor, no path. */
#pragma once

#include <stdbool.h>

#include "base/err.h"
#include "image/snapshot.h"

/* Mounts the overlay. `is_volatile`: its writes need not survive a power cut, which
 * spares a sync of the whole host file system when it is unmounted. */
int rootfs_mount(const struct snapshot *snapshot, bool is_volatile, int *ret_fd, struct err *err);
