/* Walking paths in trees that belong to somebody else.
 *
 * Every lookup is one openat2(RESOLVE_IN_ROOT): absolute names and ".." stay
 * inside `rootfd`, symbolic links are followed inside it, magic links are
 * refused, and there is no moment between check and use. A writer inside the
 * tree can at worst choose another place inside the tree.
 * Source: openat2(2). Needs Linux 5.6.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"

/* open() inside the tree. `flags` as open(2) plus O_CLOEXEC; O_CREAT needs `mode`. */
int resolve_open(int rootfd, const char *path, int flags, mode_t mode, int *ret_fd,
                 struct err *err);

/* The directory, made with its parents (`mode` each) where missing. The
 * descriptor is O_PATH. */
int resolve_make_dir(int rootfd, const char *path, mode_t mode, int *ret_fd, struct err *err);

/* An O_PATH descriptor of the file; an empty regular one is made, with parents
 * (0755), where nothing exists. */
int resolve_make_file(int rootfd, const char *path, mode_t mode, int *ret_fd, struct err *err);

/* The directory that holds the last component (made with its parents where
 * missing) and that component, which points into `path`'s copy *ret_name (heap).
 * "/" has no last component: -EINVAL. */
int resolve_parent(int rootfd, const char *path, int *ret_dirfd, char **ret_name, struct err *err);

/* Opens beneath `dirfd` with no symbolic link and no mount crossed: for files of
 * a procfs or cgroupfs of which `dirfd` is known to be the root. */
int resolve_beneath(int dirfd, const char *path, int flags, int *ret_fd, struct err *err);

/* True where the descriptor is on a file system of this statfs(2) magic. */
bool resolve_is_on(int fd, long magic);
