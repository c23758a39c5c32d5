/* A tree of files as a tar stream. Blocks. */
#pragma once

#include "base/err.h"
#include "codec/tar.h"
#include "engine/remap.h"

/* Writes `name` of directory `dir_fd` and, where it is a directory, all beneath it; it is
 * called `as` in the archive, and what is below `as`/…; with "" that is a bare name. Hard links
 * within are kept; ids are written as they are within `remap`; sockets and what lies on other
 * mounts are left out. */
int tree_tar(struct tar_writer *writer, int dir_fd, const char *name, const char *as,
             const struct id_remap *remap, struct err *err);
