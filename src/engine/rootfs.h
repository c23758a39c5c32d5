/* The root file system of an instance as a detached mount: a descriptor, no path. */
#pragma once

#include <stdbool.h>

#include "base/err.h"
#include "engine/remap.h"
#include "image/snapshot.h"

/* Mounts the overlay, with ids mapped where `remap` (may be NULL) is on, which needs Linux
 * 6.15. `is_volatile`: its writes need not survive a power cut, which spares a sync of the
 * whole host file system when it is unmounted. */
int rootfs_mount(const struct snapshot *snapshot, const struct id_remap *remap, bool is_volatile,
                 int *ret_fd, struct err *err);
