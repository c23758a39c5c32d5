/* Whole files and atomic replacement.
 *
 * The atomic writers leave either the old or the new content behind, whatever
 * the moment of a crash: temporary file in the same directory, optional fsync,
 * rename. All names are relative to `dirfd` (AT_FDCWD allowed).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

/* Reads all of a file of at most `limit_bytes`; *ret_data (heap, the caller's)
 * is followed by a NUL that *ret_size does not count. ret_size may be NULL.
 * -EFBIG where the file is larger. */
int file_read(int dirfd, const char *name, size_t limit_bytes, char **ret_data, size_t *ret_size,
              struct err *err);

/* As file_read, from an open descriptor's current position to its end. */
int file_read_fd(int fd, size_t limit_bytes, char **ret_data, size_t *ret_size, struct err *err);

/* Writes `text` into an existing file (procfs, sysfs, cgroupfs) in one write. */
int file_put(int dirfd, const char *name, const char *text, struct err *err);

/* Creates or replaces `name` atomically. With `durable` the content and the
 * directory entry are on disk when this returns. */
int file_replace(int dirfd, const char *name, const void *data, size_t size, mode_t mode,
                 bool durable, struct err *err);

/* Reads or writes all bytes, going on after EINTR and short transfers.
 * io_read_full returns the number read, less than `size` only at end of file. */
ssize_t io_read_full(int fd, void *data, size_t size);
int io_write_full(int fd, const void *data, size_t size);
/* The same at an offset. */
int io_pwrite_full(int fd, const void *data, size_t size, uint64_t offset);

/* A stream whose reader can tell a whole one from one cut off: where the writer's end, which may
 * have been handed on meanwhile, is closed without io_stream_end(), the reader gets an error after
 * the last byte (-ECONNRESET), and no end of file. Two sockets; the caller's. */
int io_stream(int *ret_reader, int *ret_writer, struct err *err);
void io_stream_end(int writer);

/* mkdir -p: every missing component is made with `mode`. 0 where it exists. */
int file_make_dirs(int dirfd, const char *path, mode_t mode, struct err *err);

/* Removes a tree, however deep, without following links or crossing into another
 * mount. A missing tree is success. */
int file_remove_tree(int dirfd, const char *name, struct err *err);
