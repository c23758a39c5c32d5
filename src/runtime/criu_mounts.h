/* Which mounts of a container come from outside it, by what name its images know them, and where
 * they are to be had when it is restored.
 *
 * CRIU makes file systems of the container's own (proc, tmpfs with their content, …) anew. Of a
 * bind it knows only what is shown, not where that came from; it must be told, or it gives up.
 * The names are those that runc and crun give:
 *
 *   bind                         its destination in config.json
 *   what is mounted below it     the same with what follows: /data and /data/sub
 *   hierarchy of cgroup v1       where it is mounted: /sys/fs/cgroup/memory
 *   masked file                  /dev/null
 *   device node that was bound   its path
 *
 * At a dump the kernel is asked which mount is which (statx's mount id inside the container's
 * tree), so links on the way to a destination and what was mounted over it do not mislead. */
#pragma once

#include "runtime/criu_wire.h"
#include "runtime/plan.h"

struct criu_mounts {
        struct criu_pair *pairs; /* both texts on the heap */
        size_t length;
};

/* For a dump: mount point in the tree of process `pid` -> name. */
int criu_mounts_find(const struct plan *plan, pid_t pid, struct criu_mounts *ret, struct err *err);
/* For a restore: name -> source. `cgroups` are those of cgroup_paths(). */
int criu_mounts_prepare(const struct plan *plan, char *const *cgroups, struct criu_mounts *ret,
                        struct err *err);
void criu_mounts_finish(struct criu_mounts *mounts);

/* Mount points that the rootfs, or what is bound around them, has not, as at a first start. */
int criu_mounts_make_targets(const struct plan *plan, struct err *err);

#define auto_criu_mounts __attribute__((cleanup(criu_mounts_finish))) struct criu_mounts
