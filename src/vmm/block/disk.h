/* A disk image: bytes of a guest's disk, whatever they are kept in.
 *
 * Formats, in a regular file or on a block device: raw, and qcow2 (versions 2 and 3, with
 * backing files, compressed clusters and internal snapshots; not: encryption, external
 * data files, subclusters). qcow2 is known by its magic, unless a format is named; what was
 * taken for raw that way refuses (-EPERM) to be given a first sector with that magic. A
 * backing file is opened for reading, by the format that the image names for it; a name that
 * is not absolute is looked up in the directory of the image.
 *
 * One process writes to an image: disk_open() takes a lock (an open file description
 * lock on the whole file; shared where read-only, as backing files are) and refuses an image
 * that another holds. The lock goes with the process, however it ends.
 *
 * A process that is killed leaves a sound image. What was written since the last flush may be
 * there or not: a qcow2 image's tables are written by disk_flush() and disk_close().
 *
 * Units: bytes. Offsets and lengths of requests are multiples of DISK_SECTOR and lie
 * inside; the caller sees to that. Requests return 0 or -errno and are done as a whole
 * or not known to be done.
 *
 * Threads: requests may be made by any number of threads at a time. What overlaps in
 * time and place has no order.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/err.h"

#define DISK_SECTOR 512u

/* How deep chains of backing files go. */
#define DISK_DEPTH_MAX 32

struct disk;

/* Descriptors of an image, its backing file, the backing file of that, and so on. A disk that is
 * opened with what is `given` takes over what it uses, also where it fails, and wants as many
 * as its chain has. A copy holds the lock of its file, too. */
struct disk_chain {
        int fds[DISK_DEPTH_MAX]; /* -1: taken over */
        unsigned length, used;
};

/* What was not taken over. */
void disk_chain_close(struct disk_chain *chain);

enum disk_format { DISK_AUTO, DISK_RAW, DISK_QCOW2 };

struct disk_options {
        const char *path;
        int format; /* enum disk_format; auto: by its magic, else raw */
        bool read_only;
        struct disk_chain *given;  /* used instead of opening; paths are for stories then */
        struct disk_chain *copies; /* gets a copy of each descriptor that is opened; may be NULL */
};

/* `options` need not outlive the call. */
int disk_open(const struct disk_options *options, struct disk **ret, struct err *err);

struct disk_create_options {
        const char *path;
        uint64_t size_bytes; /* 0: as large as the backing file; a multiple of DISK_SECTOR */
        const char *backing; /* relative to the directory of `path`; NULL for none */
        int backing_format;  /* enum disk_format, not auto */
};

/* Makes an empty qcow2 image, version 3, for its owner only. It is there as a whole or, also
 * after a crash, not. -EEXIST where the path is taken. */
int disk_create(const struct disk_create_options *options, struct err *err);

/* NULL is fine. */
void disk_close(struct disk *disk);

/* A multiple of DISK_SECTOR: what is left over at the end of a file is not shown. */
uint64_t disk_size(const struct disk *disk);
bool disk_read_only(const struct disk *disk);
bool disk_can_discard(const struct disk *disk);

int disk_read(struct disk *disk, const struct iovec *iov, unsigned length, uint64_t offset);
int disk_write(struct disk *disk, const struct iovec *iov, unsigned length, uint64_t offset);
/* What was written before is on stable storage when it returns. */
int disk_flush(struct disk *disk);
/* The content is no longer needed, and reads as zeroes. */
int disk_discard(struct disk *disk, uint64_t offset, uint64_t size);
/* `unmap`: the space may be given back. */
int disk_write_zeroes(struct disk *disk, uint64_t offset, uint64_t size, bool unmap);
