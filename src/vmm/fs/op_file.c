/* Open regular files. */
#include <errno.h>
#include <fcntl.h>

#include "base/auto.h"
#include "vmm/fs/request.h"

/* fallocate() modes that a guest's kernel passes on. */
#define FALLOCATE_MODES (FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)

int kill_suidgid(int fd)
{
        struct stat st;
        if (fstat(fd, &st) < 0)
                return -errno;
        mode_t kill = st.st_mode & S_ISUID;
        if (st.st_mode & S_IXGRP)
                kill |= st.st_mode & S_ISGID;
        return kill && fchmod(fd, st.st_mode & 07777 & ~kill) < 0 ? -errno : 0;
}

int open_truncated(int path_fd, uint32_t flags, uint32_t open_in_flags)
{
        auto_fd fd = node_reopen(path_fd, open_flags(flags) | (int)(flags & O_TRUNC));
        if (fd < 0)
                return fd;
        int code = flags & O_TRUNC && open_in_flags & FUSE_OPEN_KILL_SUIDGID ? kill_suidgid(fd) : 0;
        return code < 0 ? code : take_fd(fd);
}

int op_open(struct request *r)
{
        const struct fuse_open_in *in = r->args;
        struct fuse_open_out out = { 0 };
        auto_node node = { r->server, NULL };
        bool writable = (in->flags & O_ACCMODE) != O_RDONLY;
        int code = request_node(r, r->header.nodeid, &node.it);
        if (code < 0)
                return code;
        if (r->server->read_only && (writable || in->flags & O_TRUNC))
                return -EROFS;
        if (!S_ISREG(node.it->type)) /* others are the guest's own to open */
                return S_ISDIR(node.it->type) ? -EISDIR : -ENXIO;
        int fd = open_truncated(node.it->fd, in->flags, in->open_flags);
        if (fd < 0)
                return fd;
        code = handle_add(r->server, node.it, fd, writable, &out.fh);
        return code < 0 ? code : request_answer(r, &out, sizeof(out));
}

int op_release(struct request *r)
{
        const struct fuse_release_in *in = r->args;
        return handle_release(r->server, in->fh);
}

int op_read(struct request *r)
{
        const struct fuse_read_in *in = r->args;
        auto_handle file = { r->server, NULL };
        struct iovec part[FS_SEGMENTS];
        const size_t head = sizeof(struct fuse_out_header);
        int code = request_handle(r, in->fh, false, &file.it);
        if (code < 0)
                return code;
        if (in->size > r->in_bytes - head || in->offset > INT64_MAX)
                return -EINVAL;
        unsigned n = vectors_part(r->in, r->in_length, head, in->size, part, FS_SEGMENTS);
        ssize_t got = preadv(file.it->fd, part, (int)n, (off_t)in->offset);
        if (got < 0)
                return -errno;
        r->answered = (size_t)got;
        return 0;
}

/* A file that was opened to append is written at its true end, which the guest does
 * not know while the host appends too. Pages that the guest writes back have
 * their place already. */
static int write_flags(const struct fuse_write_in *in)
{
        return in->flags & O_APPEND && !(in->write_flags & FUSE_WRITE_CACHE) ? RWF_APPEND : 0;
}

int op_write(struct request *r)
{
        const struct fuse_write_in *in = r->args;
        auto_handle file = { r->server, NULL };
        struct iovec part[FS_SEGMENTS];
        const size_t head = sizeof(r->header) + sizeof(*in);
        int code = request_handle(r, in->fh, false, &file.it);
        if (code < 0)
                return code;
        if (in->size > r->header.len - head || in->offset > INT64_MAX)
                return -EINVAL;
        if (in->write_flags & FUSE_WRITE_KILL_SUIDGID)
                code = kill_suidgid(file.it->fd);
        if (code < 0)
                return code;
        unsigned n = vectors_part(r->out, r->out_length, head, in->size, part, FS_SEGMENTS);
        ssize_t put = pwritev2(file.it->fd, part, (int)n, (off_t)in->offset, write_flags(in));
        if (put < 0)
                return -errno;
        const struct fuse_write_out out = { .size = (uint32_t)put };
        return request_answer(r, &out, sizeof(out));
}

/* Some file systems tell of a failed write only when a descriptor closes. */
int op_flush(struct request *r)
{
        const struct fuse_flush_in *in = r->args;
        auto_handle file = { r->server, NULL };
        int code = request_handle(r, in->fh, false, &file.it);
        if (code < 0)
                return code;
        int copy = fcntl(file.it->fd, F_DUPFD_CLOEXEC, 0);
        return copy < 0 || close(copy) < 0 ? -errno : 0;
}

int op_fsync(struct request *r)
{
        const struct fuse_fsync_in *in = r->args;
        auto_handle file = { r->server, NULL };
        int code = request_handle(r, in->fh, false, &file.it);
        if (code < 0)
                return code;
        code = in->fsync_flags & FUSE_FSYNC_FDATASYNC ? fdatasync(file.it->fd) : fsync(file.it->fd);
        return code < 0 ? -errno : 0;
}

int op_fallocate(struct request *r)
{
        const struct fuse_fallocate_in *in = r->args;
        auto_handle file = { r->server, NULL };
        int code = request_handle(r, in->fh, false, &file.it);
        if (code < 0)
                return code;
        if (in->mode & ~(uint32_t)FALLOCATE_MODES)
                return -EOPNOTSUPP;
        if (in->offset > INT64_MAX || in->length > INT64_MAX)
                return -EINVAL;
        code = fallocate(file.it->fd, (int)in->mode, (off_t)in->offset, (off_t)in->length);
        return code < 0 ? -errno : 0;
}

int op_lseek(struct request *r)
{
        const struct fuse_lseek_in *in = r->args;
        auto_handle file = { r->server, NULL };
        int code = request_handle(r, in->fh, false, &file.it);
        if (code < 0)
                return code;
        if ((in->whence != SEEK_DATA && in->whence != SEEK_HOLE) || in->offset > INT64_MAX)
                return -EINVAL;
        off_t at = lseek(file.it->fd, (off_t)in->offset, (int)in->whence);
        if (at < 0)
                return -errno;
        const struct fuse_lseek_out out = { .offset = (uint64_t)at };
        return request_answer(r, &out, sizeof(out));
}

int op_copy_file_range(struct request *r)
{
        const struct fuse_copy_file_range_in *in = r->args;
        auto_handle from = { r->server, NULL }, to = { r->server, NULL };
        int code = request_handle(r, in->fh_in, false, &from.it);
        if (code == 0)
                code = request_handle(r, in->fh_out, false, &to.it);
        if (code < 0)
                return code;
        if (in->flags || in->off_in > INT64_MAX || in->off_out > INT64_MAX)
                return -EINVAL;
        off_t off_in = (off_t)in->off_in, off_out = (off_t)in->off_out;
        size_t size = in->len < INT32_MAX ? in->len : INT32_MAX; /* fuse_write_out has 32 bits */
        ssize_t n = copy_file_range(from.it->fd, &off_in, to.it->fd, &off_out, size, 0);
        if (n < 0)
                return -errno;
        const struct fuse_write_out out = { .size = (uint32_t)n };
        return request_answer(r, &out, sizeof(out));
}
