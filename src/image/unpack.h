/* Unpacking one layer's tar into one directory, as overlayfs wants it.
 *
 * The directory is the layer alone, not the file system it is part of: a deletion
 * (".wh.name") becomes a character device 0/0, an opaque directory
 * (".wh..wh..opq") gets trusted.overlay.opaque. Both hide only what lies in the
 * layers below, wherever in the tar they stand.
 *
 * Theory of operation
 * -------------------
 * The tar is hostile. Its names are taken apart here; ".." is refused, a leading
 * "/" means the layer's root. The parent directory of every entry is found by
 * openat2(RESOLVE_IN_ROOT | NO_MAGICLINKS | NO_XDEV), so a symbolic link that the
 * tar planted leads at most elsewhere in the same layer; the entry itself is made
 * by an *at() call that does not follow links. Targets of hard links are resolved
 * the same way. The directory is private to this process until it is committed,
 * so there is nobody to race with. A few resolved parents are kept open, because
 * tars are sorted: most entries cost their own system calls only.
 *
 * Order matters twice. For a file: owner, then mode (chown clears set-id bits),
 * then xattrs (chown clears security.capability), then time. For directories:
 * time last of all, when nothing is added any more.
 *
 * Directories that the tar uses but does not describe are made 0755 root and
 * reported: in the merged tree they would hide the mode and owner that the layer
 * below has for them, so whoever commits the layer copies those (image/layer.h).
 *
 * xattrs: security.capability, user.*, POSIX ACLs and other security.* are kept;
 * trusted.* is dropped, because trusted.overlay.redirect and its kind would steer
 * overlayfs.
 *
 * Limits: struct layer_limits; -EFBIG. One thread at a time.
 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

#include "base/auto.h"
#include "base/err.h"
#include "codec/tar.h"

struct layer_limits;

struct unpack;
/* `dirfd` is borrowed: an empty directory. */
int unpack_create(int dirfd, const struct layer_limits *limits, const atomic_bool *cancel,
                  struct unpack **ret, struct err *err);
void unpack_destroy(struct unpack *unpack);
DEFINE_CLEANUP(auto_unpack_cleanup, struct unpack *, unpack_destroy)
#define auto_unpack CLEANUP(auto_unpack_cleanup) struct unpack *

/* Unpacks the whole stream. On failure the directory holds rubbish. */
int unpack_tar(struct unpack *unpack, struct tar_reader *reader, struct err *err);

struct unpack_totals {
        uint64_t size_bytes; /* of file data written */
        uint64_t entries;
};
void unpack_totals(const struct unpack *unpack, struct unpack_totals *ret);
/* Paths relative to the root ("" is the root) of directories made without being
 * told their attributes; parents first. Borrowed. */
char *const *unpack_implicit(const struct unpack *unpack, size_t *ret_length);
