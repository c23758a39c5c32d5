/* The root file system of an instance as a detached mount: a descriptor, no path. */
#pragma once

#include <stdbool.h>

#include "base/err.h"
#include "engine/remap.h"
#include "engine/spec.h"
#include "image/snapshot.h"

/* Mounts the overlay, with ids mapped where `remap` (may be NULL) is on, which needs Linux
 * 6.15. `is_volatile`: its writes need not survive a power cut, which spares a sync of the
 * whole host file system when it is unmounted. */
int rootfs_mount(const struct snapshot *snapshot, const struct id_remap *remap, bool is_volatile,
                 int *ret_fd, struct err *err);
/* Makes marks in the writable layer known to this kernel where a machine's may have made them, and
 * to such a machine where this kernel has (sys/overlay.h). To be called before the layer is
 * mounted or looked at. `within` NULL: all of it; else one directory. */
int rootfs_share_marks(const struct snapshot *snapshot, const struct host_config *host,
                       const char *within, struct err *err);
/* A look at what somebody else has mounted, and writes to: read-only, and as it is now. */
int rootfs_look(const struct snapshot *snapshot, int *ret_fd, struct err *err);
