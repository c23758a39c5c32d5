/* The merged view of layer directories, looked at without mounting: what overlayfs
 * would show at a path.
 *
 * A name is found in the topmost layer that has it. The search ends earlier at a
 * whiteout (character device 0/0), below an opaque directory, and where an
 * ancestor is not a directory. Symbolic links are not followed: paths are of the
 * tree, as `diff` and layer commit have them.
 *
 * The layers are read-only to us; one thread at a time.
 */
#pragma once

#include <stddef.h>
#include <sys/stat.h>

#include "base/auto.h"
#include "base/err.h"

struct overlay_tree;
/* Directories, top first. An empty list is an empty tree. */
int overlay_tree_open(char *const *paths, struct overlay_tree **ret, struct err *err);
void overlay_tree_close(struct overlay_tree *tree);
DEFINE_CLEANUP(auto_overlay_tree_cleanup, struct overlay_tree *, overlay_tree_close)
#define auto_overlay_tree CLEANUP(auto_overlay_tree_cleanup) struct overlay_tree *

/* 1 and an O_PATH descriptor (the caller's), 0 where nothing is, or -errno.
 * `path` is relative and clean; "" is the root. ret_st may be NULL. */
int overlay_tree_find(struct overlay_tree *tree, const char *path, int *ret_fd, struct stat *ret_st,
                      struct err *err);

/* Owner, mode, xattrs (but overlayfs's own) and times of one directory to another.
 * O_PATH descriptors will do. */
int overlay_copy_attributes(int from_fd, int to_fd, struct err *err);
