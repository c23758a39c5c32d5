#include <errno.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/auto.h"
#include "base/list.h"
#include "base/str.h"
#include "vmm/block/file.h"
#include "vmm/block/format.h"
#include "vmm/vectors.h"

struct raw {
        struct disk disk;
        struct disk_file file;
        bool guarded; /* known by its bytes, see write_first_sector() */
        bool fill;    /* beneath another image: the last sector may be cut */
};

static int raw_read(struct disk *d, const struct iovec *iov, unsigned length, uint64_t offset)
{
        struct raw *raw = container_of(d, struct raw, disk);
        return disk_file_readv(&raw->file, iov, length, 0, vectors_size(iov, length), offset,
                               raw->fill);
}

/* What was taken to be raw by its bytes must not come to look like another format: a guest
 * could name any file of the host as its backing file and find it there at its next start.
 * The bytes are the guest's, who may change them while we look: what is written is a copy. */
static int write_first_sector(struct raw *raw, const struct iovec *iov, unsigned length,
                              size_t *ret_size)
{
        uint8_t sector[DISK_SECTOR];
        size_t size = vectors_read(iov, length, 0, sector, sizeof(sector));
        if (disk_known_by_magic(sector, size))
                return -EPERM;
        *ret_size = size;
        return disk_file_write(&raw->file, sector, size, 0);
}

static int raw_write(struct disk *d, const struct iovec *iov, unsigned length, uint64_t offset)
{
        struct raw *raw = container_of(d, struct raw, disk);
        size_t size = vectors_size(iov, length), first = 0;
        int r = raw->guarded && offset == 0 ? write_first_sector(raw, iov, length, &first) : 0;
        return r < 0 ? r
                     : disk_file_writev(&raw->file, iov, length, first, size - first,
                                        offset + first);
}

static int raw_flush(struct disk *d)
{
        return disk_file_sync(&container_of(d, struct raw, disk)->file);
}

static int raw_write_zeroes(struct disk *d, uint64_t offset, uint64_t size, bool unmap)
{
        return disk_file_zero(&container_of(d, struct raw, disk)->file, offset, size, unmap);
}

static int raw_discard(struct disk *d, uint64_t offset, uint64_t size)
{
        struct raw *raw = container_of(d, struct raw, disk);
        uint64_t range[2] = { offset, size };
        /* A device's discard leaves who knows what; disk.h promises zeroes. */
        if (raw->file.device && ioctl(raw->file.fd, BLKDISCARD, range) == 0)
                return ioctl(raw->file.fd, BLKZEROOUT, range) < 0 ? -errno : 0;
        return raw_write_zeroes(d, offset, size, true);
}

/* ---- life ---- */

static void raw_close(struct disk *d)
{
        struct raw *raw = container_of(d, struct raw, disk);
        disk_file_finish(&raw->file);
        free(raw);
}

static const struct disk_ops raw_ops = {
        .read = raw_read,
        .write = raw_write,
        .flush = raw_flush,
        .discard = raw_discard,
        .write_zeroes = raw_write_zeroes,
        .close = raw_close,
};

int raw_open(int fd, const struct disk_options *o, const struct disk_above *above,
             struct disk **ret, struct err *err)
{
        auto_free struct raw *raw = new0(struct raw);
        uint64_t size;
        int r = disk_file_init(&raw->file, fd, o->path, &size, err);
        if (r < 0)
                return r;
        raw->guarded = o->format == DISK_AUTO;
        raw->fill = above != NULL;
        if (above)
                size += DISK_SECTOR - 1;
        raw->disk = (struct disk){ .ops = &raw_ops,
                                   .size_bytes = size / DISK_SECTOR * DISK_SECTOR,
                                   .read_only = o->read_only,
                                   .can_discard = !o->read_only };
        *ret = &take_ptr(raw)->disk;
        return 0;
}
