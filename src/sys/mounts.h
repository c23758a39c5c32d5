/* Mounts as descriptors: built detached, attached last.
 *
 * A mount is made by fsopen()/open_tree() as a descriptor that nobody else can
 * reach, gets its attributes there, and is then attached to an O_PATH target
 * that the caller resolved (sys/resolve.h). No path is parsed twice and no mount
 * is ever visible with the wrong attributes. Needs Linux 5.12.
 * Source: fsopen(2), fsconfig(2), open_tree(2), move_mount(2), mount_setattr(2).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/mount.h>
#include <sys/types.h>

#include "base/err.h"

/* What mount_set_attributes changes. */
struct mount_change {
        uint64_t set, clear;  /* MOUNT_ATTR_… */
        uint64_t propagation; /* MS_SHARED …, 0 keeps it */
        int userns_fd;        /* with MOUNT_ATTR_IDMAP in `set` */
        bool recursive;
};

/* A new file system: `options` is a NULL-terminated vector of "key" and
 * "key=value" for the file system itself, `attributes` MOUNT_ATTR_… of the mount.
 * `source` may be NULL. */
int mount_create(const char *type, const char *source, char *const *options, uint64_t attributes,
                 int *ret_fd, struct err *err);

/* A descriptor as the value of an option ("upperdir" of overlay, since Linux 6.13;
 * descriptors of detached mounts since 6.15). */
struct mount_fd {
        const char *key;
        int fd;
};
int mount_create_with(const char *type, const char *source, char *const *options,
                      const struct mount_fd *fds, size_t fds_length, uint64_t attributes,
                      int *ret_fd, struct err *err);

/* A detached copy of what is at `path` under `dirfd` (an empty path is dirfd itself). */
int mount_clone(int dirfd, const char *path, bool recursive, int *ret_fd, struct err *err);

int mount_set_attributes(int mount_fd, const struct mount_change *change, struct err *err);

/* Attaches a detached mount on the O_PATH descriptor `target_fd`. */
int mount_attach(int mount_fd, int target_fd, struct err *err);
