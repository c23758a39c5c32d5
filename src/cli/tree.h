/* Trees of this machine to and from tar, for cp. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "codec/tar.h"

/* Writes `path` and what is below it as entries that start with `name`. Symbolic
 * links are written as such (with `follow` the path itself is followed). Sockets are
 * left out. Owners are written as they are here. */
int tree_pack(const char *path, const char *name, bool follow, tar_write *write, void *arg,
              struct err *err);

/* Unpacks a stream beneath an open directory. The stream comes out of a container
 * and is not trusted: nothing is made outside of `root_fd`, whatever names and
 * links it has (openat2 with RESOLVE_BENEATH). The first component of
 * names, `old_base` ("" or "." for streams without one), becomes `new_base`; NULL
 * leaves names as they are. Files belong to us; modes and times are kept; a directory
 * does not replace a file, nor a file a directory; security attributes are dropped,
 * since they mean nothing outside of the container. */
int tree_unpack(int root_fd, const char *old_base, const char *new_base, tar_read *read, void *arg,
                struct err *err);
