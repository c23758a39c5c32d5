#include "vmm/block/file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "vmm/vectors.h"

#define PIECES      1024 /* of one preadv(); IOV_MAX */
#define ZEROES_SIZE 65536

typedef ssize_t vector_fn(int fd, const struct iovec *iov, int length, off_t offset);

/* The whole of it, however many calls that takes. Returns what is left at the end of the
 * file, or -errno. */
static int64_t transfer(vector_fn *call, int fd, const struct iovec *iov, unsigned length,
                        size_t skip, size_t size, uint64_t offset)
{
        struct iovec part[PIECES];
        while (size) {
                unsigned n = vectors_part(iov, length, skip, size, part, PIECES);
                ssize_t moved = call(fd, part, (int)n, (off_t)offset);
                if (moved < 0 && errno == EINTR)
                        continue;
                if (moved < 0)
                        return -errno;
                if (moved == 0)
                        break;
                offset += (uint64_t)moved;
                skip += (size_t)moved;
                size -= (size_t)moved;
        }
        return (int64_t)size;
}

int disk_file_readv(struct disk_file *file, const struct iovec *iov, unsigned length, size_t skip,
                    size_t size, uint64_t offset, bool fill)
{
        int64_t left = transfer(preadv, file->fd, iov, length, skip, size, offset);
        if (left > 0 && !fill)
                return -EIO; /* the file has become shorter than it was */
        if (left > 0)
                vectors_zero(iov, length, skip + size - (size_t)left, (size_t)left);
        return left < 0 ? (int)left : 0;
}

int disk_file_writev(struct disk_file *file, const struct iovec *iov, unsigned length, size_t skip,
                     size_t size, uint64_t offset)
{
        int64_t left = transfer(pwritev, file->fd, iov, length, skip, size, offset);
        return left > 0 ? -EIO : (int)left;
}

int disk_file_read(struct disk_file *file, void *bytes, size_t size, uint64_t offset)
{
        struct iovec v = { bytes, size };
        return disk_file_readv(file, &v, 1, 0, size, offset, true);
}

int disk_file_write(struct disk_file *file, const void *bytes, size_t size, uint64_t offset)
{
        struct iovec v = { (void *)(uintptr_t)bytes, size };
        return disk_file_writev(file, &v, 1, 0, size, offset);
}

int disk_file_write_zeroes(struct disk_file *file, uint64_t offset, uint64_t size)
{
        static const uint8_t zeroes[ZEROES_SIZE];
        int r = 0;
        for (size_t n; r == 0 && size; offset += n, size -= n) {
                n = size < ZEROES_SIZE ? size : ZEROES_SIZE;
                r = disk_file_write(file, zeroes, n, offset);
        }
        return r;
}

/* One of fallocate()'s ways, unless it is known not to work here. */
static int allocate(struct disk_file *file, atomic_bool *cannot, int mode, uint64_t offset,
                    uint64_t size)
{
        if (file->device || atomic_load(cannot))
                return -EOPNOTSUPP;
        int r;
        do
                r = fallocate(file->fd, mode | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)size);
        while (r < 0 && errno == EINTR);
        if (r == 0)
                return 0;
        if (errno == ENOSYS || errno == EOPNOTSUPP)
                atomic_store(cannot, true);
        return -errno;
}

int disk_file_zero(struct disk_file *file, uint64_t offset, uint64_t size, bool unmap)
{
        uint64_t range[2] = { offset, size };
        int r = -EOPNOTSUPP;
        if (file->device)
                r = ioctl(file->fd, BLKZEROOUT, range) < 0 ? -errno : 0;
        if (r < 0 && unmap)
                r = allocate(file, &file->cannot_punch, FALLOC_FL_PUNCH_HOLE, offset, size);
        if (r < 0)
                r = allocate(file, &file->cannot_zero, FALLOC_FL_ZERO_RANGE, offset, size);
        return r < 0 ? disk_file_write_zeroes(file, offset, size) : 0;
}

void disk_file_punch(struct disk_file *file, uint64_t offset, uint64_t size)
{
        uint64_t range[2] = { offset, size };
        if (file->device)
                (void)ioctl(file->fd, BLKDISCARD, range);
        else
                (void)allocate(file, &file->cannot_punch, FALLOC_FL_PUNCH_HOLE, offset, size);
}

int disk_file_sync(struct disk_file *file)
{
        return fdatasync(file->fd) < 0 ? -errno : 0;
}

int disk_file_init(struct disk_file *file, int fd, const char *path, uint64_t *ret_size_bytes,
                   struct err *err)
{
        struct stat st;
        uint64_t size;
        if (fstat(fd, &st) < 0)
                return err_set(err, errno, "disk '%s'", path);
        if (S_ISREG(st.st_mode))
                size = (uint64_t)st.st_size;
        else if (!S_ISBLK(st.st_mode))
                return err_plain(err, EINVAL, "disk '%s' is neither a file nor a block device",
                                 path);
        else if (ioctl(fd, BLKGETSIZE64, &size) < 0)
                return err_set(err, errno, "size of disk '%s'", path);
        file->fd = fd;
        file->device = S_ISBLK(st.st_mode);
        atomic_init(&file->cannot_zero, false);
        atomic_init(&file->cannot_punch, false);
        *ret_size_bytes = size;
        return 0;
}

void disk_file_finish(struct disk_file *file)
{
        close(file->fd);
}
