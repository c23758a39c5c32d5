/* The bytes of the file (or block device) that an image is in: transfers as a whole,
 * zeroes, space given back.
 *
 * `iov`, `length`, `skip`, `size`: the `size` bytes that begin `skip` bytes into those
 * vectors. Functions return 0 or -errno. Any number of threads.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/err.h"

struct disk_file {
        int fd;                   /* owned */
        bool device;              /* a block device, not a file */
        atomic_bool cannot_zero;  /* the file system has no ZERO_RANGE */
        atomic_bool cannot_punch; /* nor PUNCH_HOLE */
};

/* Takes the descriptor over where it succeeds. -EINVAL for what is neither file nor block
 * device. `path` is for the story. */
int disk_file_init(struct disk_file *file, int fd, const char *path, uint64_t *ret_size_bytes,
                   struct err *err);
void disk_file_finish(struct disk_file *file);

/* What lies past the end of the file is -EIO, or reads as zeroes with `fill`. */
int disk_file_readv(struct disk_file *file, const struct iovec *iov, unsigned length, size_t skip,
                    size_t size, uint64_t offset, bool fill);
int disk_file_writev(struct disk_file *file, const struct iovec *iov, unsigned length, size_t skip,
                     size_t size, uint64_t offset);
/* Of one buffer. Reading fills with zeroes past the end. */
int disk_file_read(struct disk_file *file, void *bytes, size_t size, uint64_t offset);
int disk_file_write(struct disk_file *file, const void *bytes, size_t size, uint64_t offset);
/* By writing them. */
int disk_file_write_zeroes(struct disk_file *file, uint64_t offset, uint64_t size);
/* In the quickest way there is; `unmap`: the space may be given back. A file does not
 * become longer by the quick ways. */
int disk_file_zero(struct disk_file *file, uint64_t offset, uint64_t size, bool unmap);
/* Gives space back where that can be done; what is read there afterwards is not said. */
void disk_file_punch(struct disk_file *file, uint64_t offset, uint64_t size);
/* To stable storage. */
int disk_file_sync(struct disk_file *file);
