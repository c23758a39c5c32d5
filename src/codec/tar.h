/* Tar streams: ustar, pax and GNU. The reader is libarchive's, held to limits;
 * the writer is ours (libarchive's writes fractions of a second only along with
 * device and inode numbers, which would make equal trees give different bytes).
 *
 * The reader pulls blocks from a callback and yields entries, their data and
 * nothing else: it touches no file system, and the writer none either. Only
 * uncompressed tar is accepted; decompression comes before (compress.h).
 *
 *         while ((r = tar_reader_next(reader, &entry, err)) > 0)
 *                 while ((r = tar_reader_data(reader, &data, &size, &offset, err)) > 0)
 *                         ...
 *
 * Names are bytes as they stand in the archive, whatever the locale. They are
 * NOT made safe: "..", leading slashes and links that point anywhere come
 * through, and the caller resolves them beneath a root (openat2 with
 * RESOLVE_IN_ROOT). What is refused here: empty names and names beyond the
 * limit; sizes, owners, device numbers and times out of range; data outside of
 * its file; more entries, attributes or bytes than the limits; headers with a
 * wrong checksum; a stream cut before its end (one without the closing zero
 * blocks is accepted, as tar(1) does, because old images have such layers; an
 * empty stream is an empty archive).
 *
 * A reader or writer belongs to one thread at a time. After an error only
 * _destroy may be called. The story of an error says which entry.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/auto.h"
#include "base/err.h"

struct tar_xattr {
        const char *name; /* "user.x", "security.capability", … */
        const void *value;
        size_t size_bytes;
};

struct tar_entry {
        const char *path; /* without trailing slashes */
        const char *link; /* target of a symbolic link; for a hard link, the path of the entry that
                           * it is another name of (mode is then S_IFREG); else NULL */
        bool hard_link;
        mode_t mode; /* type (S_IFMT) and permissions */
        uid_t uid;
        gid_t gid;
        uint64_t size_bytes; /* of regular files, holes included; else 0 */
        int64_t mtime_ns;
        unsigned dev_major, dev_minor; /* of device nodes */
        const struct tar_xattr *xattrs;
        size_t xattrs_length;
};

/* 0 means the default. */
struct tar_limits {
        uint64_t entries;    /* default 4,000,000 */
        uint64_t data_bytes; /* sum of the sizes of all files; default 1 TiB */
        size_t path_bytes;   /* default 4096, NUL included */
        size_t xattrs;       /* in one entry; default 64 */
        size_t xattr_bytes;  /* one value; default 65536 */
        size_t header_bytes; /* of one entry, with its long names, attributes and map of holes;
                              * default 2 MiB */
};

struct tar_reader;

/* Yields the next piece of the stream, valid until the next call; 0 at the end. */
typedef ssize_t tar_read(void *arg, const void **ret_block, struct err *err);

int tar_reader_create(tar_read *read, void *arg, const struct tar_limits *limits /* or NULL */,
                      struct tar_reader **ret, struct err *err);
/* 1 and an entry that is valid until the next call, 0 at the end of the archive, or -errno:
 * -EBADMSG for a damaged or hostile stream, -E2BIG or -ENAMETOOLONG beyond a limit, or what the
 * callback returned. Data of the former entry that was not read is skipped. */
int tar_reader_next(struct tar_reader *reader, struct tar_entry *ret, struct err *err);
/* The next piece of data of the entry, at its offset in the file (offsets grow; what is left out
 * is a hole). 1, 0 at the end of the entry's data, or -errno. */
int tar_reader_data(struct tar_reader *reader, const void **ret, size_t *ret_size,
                    uint64_t *ret_offset, struct err *err);
/* Reads what follows the end of the archive, so that the whole stream passes through `read` (and
 * so through a hasher): padding. */
int tar_reader_drain(struct tar_reader *reader, struct err *err);
void tar_reader_destroy(struct tar_reader *reader);

DEFINE_CLEANUP(auto_tar_reader_cleanup, struct tar_reader *, tar_reader_destroy)
#define auto_tar_reader CLEANUP(auto_tar_reader_cleanup) struct tar_reader *

struct tar_writer;

/* Takes all of `data`, or returns -errno. */
typedef int tar_write(void *arg, const void *data, size_t size, struct err *err);

/* Writes pax records where a header needs them (long or non-ASCII names, large numbers, fractions
 * of a second, attributes) and plain ustar where not. The same entries give the same bytes. */
int tar_writer_create(tar_write *write, void *arg, struct tar_writer **ret, struct err *err);
/* Begins an entry; exactly size_bytes of data must follow where it is a regular file (none for a
 * hard link). */
int tar_writer_entry(struct tar_writer *writer, const struct tar_entry *entry, struct err *err);
int tar_writer_data(struct tar_writer *writer, const void *data, size_t size, struct err *err);
/* Ends the archive. */
int tar_writer_finish(struct tar_writer *writer, struct err *err);
void tar_writer_destroy(struct tar_writer *writer);

DEFINE_CLEANUP(auto_tar_writer_cleanup, struct tar_writer *, tar_writer_destroy)
#define auto_tar_writer CLEANUP(auto_tar_writer_cleanup) struct tar_writer *
