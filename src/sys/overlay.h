/* What an overlay is made of, and whose marks its writable layer bears.
 *
 * Overlayfs marks a directory that hides those of its name below as "opaque", by an extended
 * attribute: trusted.overlay.opaque, or user.overlay.opaque for who may not write trusted ones
 * (mount option userxattr), such as a guest whose layer is served to it by a process without
 * rights. A layer that is written by both kinds needs both marks: what has one is given the other.
 * Whiteouts are the same for both.
 *
 * Source: Linux' Documentation/filesystems/overlayfs.rst; fs/overlayfs/params.c,
 * ovl_show_options(). Threads: any; nothing is shared.
 */
#pragma once

#include <stdbool.h>

#include "base/auto.h"
#include "base/err.h"

/* Deeper directories keep the marks that they have. */
#define OVERLAY_DEPTH_MAX 256

struct overlay {
        char **lower; /* directories, top first; at least one */
        char *upper;  /* NULL: read-only */
        bool is_volatile;
};
void overlay_finish(struct overlay *overlay);
#define auto_overlay CLEANUP(overlay_finish) struct overlay

/* Of the overlay whose root `fd` is. -EINVAL where that is something else, or an overlay with
 * features that make its layers more than directories (metacopy, redirect_dir, data-only ones). */
int overlay_of(int fd, struct overlay *ret, struct err *err);
/* The same of a mount's options as /proc/self/mountinfo has them. Pure. */
int overlay_parse(const char *options, struct overlay *ret, struct err *err);

/* Gives every opaque directory of a layer both marks. Somebody may write to the tree meanwhile:
 * no link is followed, and what goes away is no error. */
int overlay_share_marks(const char *upper, struct err *err);
