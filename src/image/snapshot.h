/* Snapshots: the writable layer of an instance on top of an image.
 *
 *     ROOT/snapshots/<instance id>/upper   what the instance wrote
 *     ROOT/snapshots/<instance id>/work    overlayfs's own
 *
 * Nothing is mounted here: whoever starts the instance mounts an overlay of
 * `lower` (top first), `upper` and `work` in its own mount namespace. The record
 * image/snapshot/<instance id> keeps the layers below alive, whatever happens
 * to the image's names.
 *
 * `upper` begins with the owner, mode and xattrs of the image's root directory,
 * since overlayfs shows those of `upper` as "/". Ids are stored as the image has
 * them; a user namespace maps them by idmapped mounts.
 *
 * Threads: as image/image.h.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/auto.h"
#include "base/err.h"

struct image;
struct image_store;

struct snapshot {
        char *lower;        /* for lowerdir=: short absolute paths joined by ':', top first */
        char **lower_paths; /* the same, one by one, for fsconfig("lowerdir+") */
        char *upper, *work; /* absolute */
        char *image_id;     /* digest text */
        /* Where a file system image of the layers may be kept, which goes when the topmost
         * does; NULL: there are no layers. Nothing here makes it. */
        char *layers_image;
};
void snapshot_finish(struct snapshot *snapshot);
#define auto_snapshot CLEANUP(snapshot_finish) struct snapshot

/* Creates. -EEXIST where the instance has one. Unpacks layers that a power loss
 * took, if their blobs are here. */
int snapshot_prepare(struct image_store *st, const char *instance_id, const struct image *image,
                     struct snapshot *ret, struct err *err);
/* Of an existing one; -ENOENT. */
int snapshot_open(struct image_store *st, const char *instance_id, struct snapshot *ret,
                  struct err *err);
/* A missing one is success. The directories go at once from sight, then from
 * disk, and with them the layers that nothing else needs; must not be mounted any more. */
int snapshot_remove(struct image_store *st, const char *instance_id, struct err *err);

/* Bytes allocated in `upper`, hard links once. */
int snapshot_usage(struct image_store *st, const char *instance_id, uint64_t *ret_bytes,
                   struct err *err);

enum snapshot_change { SNAPSHOT_MODIFIED = 0, SNAPSHOT_ADDED = 1, SNAPSHOT_DELETED = 2 };

/* What changed against the image, sorted by path ("/etc/passwd"). A non-zero
 * return of the callback ends it and is returned. */
int snapshot_diff(struct image_store *st, const char *instance_id,
                  int (*changed)(void *arg, enum snapshot_change kind, const char *path), void *arg,
                  struct err *err);

/* Calls back with every instance id that has a snapshot (to find leftovers). */
int snapshot_list(struct image_store *st, char ***ret_instance_ids, struct err *err);
