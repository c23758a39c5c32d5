/* What a format of images implements. See disk.h for the meaning of requests. */
#pragma once

#include <sys/types.h>

#include "vmm/block/disk.h"

struct disk_ops {
        int (*read)(struct disk *disk, const struct iovec *iov, unsigned length, uint64_t offset);
        int (*write)(struct disk *disk, const struct iovec *iov, unsigned length, uint64_t offset);
        int (*flush)(struct disk *disk);
        int (*discard)(struct disk *disk, uint64_t offset, uint64_t size);
        int (*write_zeroes)(struct disk *disk, uint64_t offset, uint64_t size, bool unmap);
        void (*close)(struct disk *disk);
};

/* Embedded in each format's own. */
struct disk {
        const struct disk_ops *ops;
        uint64_t size_bytes;
        bool read_only, can_discard;
};

/* The image that an image is opened for as its backing file. */
struct disk_above {
        const struct disk_above *above; /* NULL: the guest's */
        const char *path;
        dev_t dev;
        ino_t ino;
        unsigned depth; /* 1: the guest's */
};

/* As disk_open(), for one that may lie beneath others: loops and too deep chains are
 * refused. `above` is NULL for the guest's. */
int disk_open_beneath(const struct disk_options *options, const struct disk_above *above,
                      struct disk **ret, struct err *err);

/* Whether a file with these first bytes is taken for something else than raw. */
bool disk_known_by_magic(const void *bytes, size_t size);

/* Both take the descriptor over where they succeed. `self` is the image that is opened,
 * with what is above. */
int raw_open(int fd, const struct disk_options *options, const struct disk_above *above,
             struct disk **ret, struct err *err);
int qcow2_open(int fd, const struct disk_options *options, const struct disk_above *self,
               struct disk **ret, struct err *err);
