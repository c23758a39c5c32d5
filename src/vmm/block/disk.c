#include "vmm/block/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/str.h"
#include "vmm/block/format.h"

static const uint8_t qcow2_magic[4] = { 'Q', 'F', 'I', 0xfb };

bool disk_known_by_magic(const void *bytes, size_t size)
{
        return size >= sizeof(qcow2_magic) && memcmp(bytes, qcow2_magic, sizeof(qcow2_magic)) == 0;
}

static int lock(int fd, const struct disk_options *o, struct err *err)
{
        struct flock whole = { .l_type = o->read_only ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET };
        if (fcntl(fd, F_OFD_SETLK, &whole) == 0)
                return 0;
        if (errno == EAGAIN || errno == EACCES)
                return err_plain(err, EBUSY, "disk '%s' is in use by another process%s", o->path,
                                 o->read_only ? ", which writes to it" : "");
        return err_set(err, errno, "lock disk '%s'", o->path);
}

/* A chain of backing files ends, and is a chain. */
static int check_chain(const struct disk_options *o, const struct disk_above *self, struct err *err)
{
        if (self->depth > DISK_DEPTH_MAX)
                return err_plain(
                        err, ELOOP,
                        "disk '%s' is the %u. of a chain of backing files; %u are allowed: "
                        "'qemu-img rebase' makes a chain shorter",
                        o->path, self->depth, DISK_DEPTH_MAX);
        for (const struct disk_above *a = self->above; a; a = a->above)
                if (a->dev == self->dev && a->ino == self->ino)
                        return err_plain(err, ELOOP,
                                         "disk '%s' is beneath itself, by the backing files from "
                                         "'%s' on",
                                         o->path, a->path);
        return 0;
}

/* The format that was named; else by the first bytes, which nobody is trusted with in a
 * backing file: whoever wrote to it as a raw disk has written them. */
static int choose_format(int fd, const struct disk_options *o, const struct disk_above *above,
                         struct err *err)
{
        uint8_t magic[sizeof(qcow2_magic)];
        if (o->format != DISK_AUTO)
                return o->format;
        ssize_t size = pread(fd, magic, sizeof(magic), 0);
        if (size < 0 || !disk_known_by_magic(magic, (size_t)size))
                return DISK_RAW;
        if (above)
                return err_plain(err, EINVAL,
                                 "disk '%s' does not name the format of its backing file, and that "
                                 "looks like qcow2; where it is, 'qemu-img rebase -u -F qcow2 -b "
                                 "FILE IMAGE' says so",
                                 above->path);
        return DISK_QCOW2;
}

/* Of an open file, which is the caller's where it fails. */
static int adopt(int fd, const struct disk_options *o, const struct disk_above *above,
                 struct disk **ret, struct err *err)
{
        struct stat st;
        if (fstat(fd, &st) < 0)
                return err_set(err, errno, "disk '%s'", o->path);
        const struct disk_above self = { .above = above,
                                         .path = o->path,
                                         .dev = st.st_dev,
                                         .ino = st.st_ino,
                                         .depth = above ? above->depth + 1 : 1 };
        int r = check_chain(o, &self, err);
        if (r == 0)
                r = lock(fd, o, err);
        if (r == 0)
                r = choose_format(fd, o, above, err);
        if (r < 0)
                return r;
        return r == DISK_QCOW2 ? qcow2_open(fd, o, &self, ret, err)
                               : raw_open(fd, o, above, ret, err);
}

/* ---- descriptors ---- */

void disk_chain_close(struct disk_chain *chain)
{
        for (unsigned i = 0; i < chain->length; i++)
                if (chain->fds[i] >= 0)
                        close_fd(&chain->fds[i]);
        chain->length = 0;
}

static int take_given(const struct disk_options *o, const struct disk_above *above, int *ret_fd,
                      struct err *err)
{
        struct disk_chain *chain = o->given;
        if (chain->used == chain->length)
                return err_plain(err, EBADF,
                                 "disk '%s'%s%s%s: no descriptor of it came; 'isle-vmm --attach' "
                                 "passes those of all backing files",
                                 above ? above->path : o->path,
                                 above ? " has a backing file, '" : "", above ? o->path : "",
                                 above ? "'" : "");
        int fd = chain->fds[chain->used];
        int flags = fcntl(fd, F_GETFL);
        int access = flags & O_ACCMODE;
        if (flags < 0 || flags & O_PATH || access == O_WRONLY ||
            (access == O_RDONLY && !o->read_only))
                return err_plain(err, EBADF, "disk '%s': its descriptor is not open for reading%s",
                                 o->path, o->read_only ? "" : " and writing");
        chain->fds[chain->used++] = -1;
        *ret_fd = fd;
        return 0;
}

static int open_file(const struct disk_options *o, const struct disk_above *above, int *ret_fd,
                     struct err *err)
{
        /* Nothing that a chain names may keep us waiting: a pipe, say. */
        int wait = above ? O_NONBLOCK : 0;
        auto_fd fd = open(o->path,
                          (o->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY | wait);
        if (fd < 0)
                return err_set(err, errno, "disk '%s'%s", o->path,
                               !o->read_only && (errno == EACCES || errno == EROFS)
                                       ? " cannot be written; 'ro' opens it for reading"
                                       : "");
        struct disk_chain *copies = o->copies;
        if (copies && copies->length < DISK_DEPTH_MAX) { /* a longer one is refused soon */
                int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
                if (copy < 0)
                        return err_set(err, errno, "disk '%s'", o->path);
                copies->fds[copies->length++] = copy;
        }
        *ret_fd = take_fd(fd);
        return 0;
}

/* ---- opening ---- */

int disk_open_beneath(const struct disk_options *o, const struct disk_above *above,
                      struct disk **ret, struct err *err)
{
        auto_fd fd = -1;
        int r = o->given ? take_given(o, above, &fd, err) : open_file(o, above, &fd, err);
        if (r == 0)
                r = adopt(fd, o, above, ret, err);
        if (r == 0)
                (void)take_fd(fd);
        return r;
}

int disk_open(const struct disk_options *o, struct disk **ret, struct err *err)
{
        struct disk *disk;
        int r = disk_open_beneath(o, NULL, &disk, err);
        if (r < 0)
                return r;
        if (o->given && o->given->used < o->given->length) {
                disk_close(disk);
                return err_plain(err, EINVAL,
                                 "disk '%s': %u descriptors came, and its chain of backing files "
                                 "has %u",
                                 o->path, o->given->length, o->given->used);
        }
        *ret = disk;
        return 0;
}

void disk_close(struct disk *d)
{
        if (d)
                d->ops->close(d);
}

uint64_t disk_size(const struct disk *d)
{
        return d->size_bytes;
}

bool disk_read_only(const struct disk *d)
{
        return d->read_only;
}

bool disk_can_discard(const struct disk *d)
{
        return d->can_discard;
}

int disk_read(struct disk *d, const struct iovec *iov, unsigned length, uint64_t offset)
{
        return d->ops->read(d, iov, length, offset);
}

int disk_write(struct disk *d, const struct iovec *iov, unsigned length, uint64_t offset)
{
        return d->ops->write(d, iov, length, offset);
}

int disk_flush(struct disk *d)
{
        return d->ops->flush(d);
}

int disk_discard(struct disk *d, uint64_t offset, uint64_t size)
{
        return d->ops->discard(d, offset, size);
}

int disk_write_zeroes(struct disk *d, uint64_t offset, uint64_t size, bool unmap)
{
        return d->ops->write_zeroes(d, offset, size, unmap);
}
