/* The container's file tree, built by its first process before it enters it.
 *
 * Theory of operation. The process is in its new mount namespace, a copy of the
 * host's, and still sees the host's tree.
 *
 *  1. rootfs_open    cuts the propagation to the host, and binds the root file
 *                    system onto itself: `root_fd` is that mount from now on.
 *  2. rootfs_mount   makes every mount of the spec, then device nodes and links
 *                    under /dev. Targets are found by sys/resolve.h inside
 *                    root_fd, mounts are built detached and attached last.
 *  3. (hooks, console: others)
 *  4. rootfs_restrict masks paths, makes paths and finally the root read-only.
 *  5. rootfs_enter   pivot_root, and the host's tree is gone.
 *
 * Nothing inside the tree is trusted: images may hold any symbolic link, and
 * with shared volumes another container may move things while we work.
 */
#pragma once

#include <stdbool.h>

#include "runtime/plan.h"

struct rootfs {
        const struct plan *plan;
        int root_fd;           /* the container's root */
        int proc_fd;           /* the host's /proc */
        int root_source_fd;    /* detached copy made by the parent, or -1 */
        const int *source_fds; /* per mount of the plan: made by the parent, or -1 */
        int *device_fds;       /* likewise per device; taken */
        char *const *cgroups;  /* of cgroup_paths() */
        bool no_pivot;
};

int rootfs_open(struct rootfs *rootfs, struct err *err);
int rootfs_mount(struct rootfs *rootfs, struct err *err);
int rootfs_restrict(struct rootfs *rootfs, struct err *err);
int rootfs_enter(struct rootfs *rootfs, struct err *err);
/* Makes read-only what was left writable to be put into; a part of rootfs_restrict(). */
int rootfs_late_read_only(struct rootfs *rootfs, struct err *err);

/* Copies what a bind mount needs from where the caller may see it: the parent
 * does this for containers in a user namespace and for idmapped mounts. -1 where
 * the child can do it by itself. */
int rootfs_prepare_source(const struct plan *plan, const struct plan_mount *mount, int *ret_fd,
                          struct err *err);

/* A detached copy of what a bind mount shows. */
int rootfs_bind_source(const struct plan_mount *mount, int *ret_fd, struct err *err);

/* Device nodes for a container in a user namespace, where they cannot be made: as detached
 * mounts in fds[], one per device of the plan and -1 at first. -1 stays where the host's own
 * node will do. Needs Linux 6.15. */
int rootfs_prepare_devices(const struct plan *plan, int *fds, struct err *err);

/* Parts, for rootfs_mount. */
/* A version 1 hierarchy's mount, in the tmpfs where they all are: `writable` is the same directory
 * as `tmpfs`, through a mount that may be written to. With the links of controllers that go
 * together. */
int rootfs_attach_hierarchy(int tmpfs, int writable, const char *name, int mount_fd,
                            struct err *err);
/* "cpu,cpuacct" of a group's directory; heap. */
char *rootfs_hierarchy_name(const char *directory);
int rootfs_mount_cgroup(struct rootfs *rootfs, const struct plan_mount *mount, struct err *err);
int rootfs_make_devices(struct rootfs *rootfs, struct err *err);
/* linux.mountLabel, of SELinux. Where that is not on there is nothing to label, which is only
 * said, as other runtimes go on, too. It is an option of a new file system, where its type can
 * have one, and an attribute afterwards, where it can have that. */
void rootfs_find_label(struct plan *plan);
void rootfs_add_context(const struct plan *plan, const char *type, char ***data);
int rootfs_label_late(const struct plan *plan, const char *type, int mount_fd, struct err *err);
/* Sets what the options say on a mount that is not attached yet. */
int rootfs_set_options(int mount_fd, const struct mount_options *options, struct err *err);
/* Copies the content of a directory (tmpcopyup). */
int rootfs_copy_up(int from_fd, int to_fd, struct err *err);
