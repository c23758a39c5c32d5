/* Inodes: finding and forgetting them, their attributes. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/statfs.h>

#include "base/auto.h"
#include "vmm/fs/request.h"

int op_lookup(struct request *r)
{
        auto_node parent = { r->server, NULL };
        struct fuse_entry_out out;
        const char *name;
        size_t at = 0;
        int code = request_name(r, &at, &name);
        if (code == 0 && !request_shows(r, r->header.nodeid, name))
                code = -ENOENT;
        if (code == 0)
                code = request_node(r, r->header.nodeid, &parent.it);
        if (code == 0)
                code = node_lookup(r->server, parent.it, name, &out);
        return code < 0 ? code : request_answer(r, &out, sizeof(out));
}

int op_forget(struct request *r)
{
        const struct fuse_forget_in *in = r->args;
        node_forget(r->server, r->header.nodeid, in->nlookup);
        return 0;
}

int op_batch_forget(struct request *r)
{
        const struct fuse_batch_forget_in *in = r->args;
        const struct fuse_forget_one *one = (const void *)(in + 1);
        if (in->count > (r->args_size - sizeof(*in)) / sizeof(*one))
                return -EINVAL;
        for (uint32_t i = 0; i < in->count; i++)
                node_forget(r->server, one[i].nodeid, one[i].nlookup);
        return 0;
}

static int answer_attr(struct request *r, int fd)
{
        struct stat st;
        struct fuse_attr_out out = { .attr_valid = r->server->valid_ns / NS_PER_S,
                                     .attr_valid_nsec = r->server->valid_ns % NS_PER_S };
        if (fstat(fd, &st) < 0)
                return -errno;
        attr_fill(r->server, &st, &out.attr);
        return request_answer(r, &out, sizeof(out));
}

int op_getattr(struct request *r)
{
        auto_node node = { r->server, NULL };
        int code = request_node(r, r->header.nodeid, &node.it);
        return code < 0 ? code : answer_attr(r, node.it->fd);
}

static int set_owner(const struct request *r, const struct node *node,
                     const struct fuse_setattr_in *in)
{
        uint32_t uid = UINT32_MAX, gid = UINT32_MAX; /* leaves it */
        int code = 0;
        if (in->valid & FATTR_UID)
                code = id_to_host(&r->server->uids, in->uid, &uid);
        if (code == 0 && in->valid & FATTR_GID)
                code = id_to_host(&r->server->gids, in->gid, &gid);
        if (code < 0)
                return code;
        return fchownat(node->fd, "", uid, gid, AT_EMPTY_PATH) < 0 ? -errno : 0;
}

static int resize(int fd, const struct fuse_setattr_in *in)
{
        int code = in->valid & FATTR_KILL_SUIDGID ? kill_suidgid(fd) : 0;
        if (code < 0)
                return code;
        return ftruncate(fd, (off_t)in->size) < 0 ? -errno : 0;
}

static int set_size(const struct request *r, const struct node *node,
                    const struct fuse_setattr_in *in)
{
        auto_handle handle = { r->server, NULL };
        if (!S_ISREG(node->type) || in->size > INT64_MAX)
                return -EINVAL;
        if (in->valid & FATTR_FH)
                handle.it = handle_get(r->server, in->fh);
        if (handle.it && handle.it->node == node && handle.it->writable)
                return resize(handle.it->fd, in);
        auto_fd fd = node_reopen(node->fd, open_flags(O_WRONLY));
        return fd < 0 ? fd : resize(fd, in);
}

static struct timespec time_of(uint32_t valid, uint32_t set, uint32_t now, uint64_t seconds,
                               uint32_t ns)
{
        if (valid & now)
                return (struct timespec){ .tv_nsec = UTIME_NOW };
        if (valid & set) /* UTIME_NOW and UTIME_OMIT are not the guest's to say */
                return (struct timespec){ (time_t)seconds, ns < 1000000000 ? ns : 0 };
        return (struct timespec){ .tv_nsec = UTIME_OMIT };
}

static int set_times(const struct node *node, const struct fuse_setattr_in *in)
{
        const struct timespec times[] = {
                time_of(in->valid, FATTR_ATIME, FATTR_ATIME_NOW, in->atime, in->atimensec),
                time_of(in->valid, FATTR_MTIME, FATTR_MTIME_NOW, in->mtime, in->mtimensec),
        };
        char path[PROC_FD_SIZE];
        proc_fd(node->fd, path);
        return utimensat(AT_FDCWD, path, times, 0) < 0 ? -errno : 0;
}

static int set_mode(const struct node *node, uint32_t mode)
{
        char path[PROC_FD_SIZE];
        if (S_ISLNK(node->type))
                return -EOPNOTSUPP;
        proc_fd(node->fd, path);
        return chmod(path, mode & 07777) < 0 ? -errno : 0;
}

/* The owner comes before the mode, for a new owner takes setuid away. */
int op_setattr(struct request *r)
{
        const struct fuse_setattr_in *in = r->args;
        auto_node node = { r->server, NULL };
        int code = request_node(r, r->header.nodeid, &node.it);
        if (code == 0 && in->valid & (FATTR_UID | FATTR_GID))
                code = set_owner(r, node.it, in);
        if (code == 0 && in->valid & FATTR_SIZE)
                code = set_size(r, node.it, in);
        if (code == 0 && in->valid & FATTR_MODE)
                code = set_mode(node.it, in->mode);
        if (code == 0 &&
            in->valid & (FATTR_ATIME | FATTR_MTIME | FATTR_ATIME_NOW | FATTR_MTIME_NOW))
                code = set_times(node.it, in);
        return code < 0 ? code : answer_attr(r, node.it->fd);
}

int op_readlink(struct request *r)
{
        auto_node node = { r->server, NULL };
        char target[PATH_MAX];
        int code = request_node(r, r->header.nodeid, &node.it);
        if (code < 0)
                return code;
        if (!S_ISLNK(node.it->type))
                return -EINVAL;
        ssize_t n = readlinkat(node.it->fd, "", target, sizeof(target));
        return n < 0 ? -errno : request_answer(r, target, (size_t)n);
}

int op_statfs(struct request *r)
{
        auto_node node = { r->server, NULL };
        struct statfs fs;
        int code = request_node(r, r->header.nodeid, &node.it);
        if (code < 0)
                return code;
        if (fstatfs(node.it->fd, &fs) < 0)
                return -errno;
        const struct fuse_statfs_out out = { .st = {
                                                     .blocks = fs.f_blocks,
                                                     .bfree = fs.f_bfree,
                                                     .bavail = fs.f_bavail,
                                                     .files = fs.f_files,
                                                     .ffree = fs.f_ffree,
                                                     .bsize = (uint32_t)fs.f_bsize,
                                                     .namelen = (uint32_t)fs.f_namelen,
                                                     .frsize = (uint32_t)fs.f_frsize,
                                             } };
        return request_answer(r, &out, sizeof(out));
}

/* By mode bits and the caller's own ids. A guest that mounts with
 * default_permissions, as virtio-fs does, never asks. */
int op_access(struct request *r)
{
        const struct fuse_access_in *in = r->args;
        auto_node node = { r->server, NULL };
        struct stat st;
        struct fuse_attr attr;
        int code = request_node(r, r->header.nodeid, &node.it);
        if (code < 0)
                return code;
        if (in->mask & ~(uint32_t)(R_OK | W_OK | X_OK))
                return -EINVAL;
        if (in->mask & W_OK && r->server->read_only)
                return -EROFS;
        if (fstat(node.it->fd, &st) < 0)
                return -errno;
        attr_fill(r->server, &st, &attr);
        uint32_t allowed = attr.mode & 7;
        if (r->header.uid == 0)
                allowed = R_OK | W_OK | (attr.mode & 0111 || S_ISDIR(attr.mode) ? X_OK : 0);
        else if (r->header.uid == attr.uid)
                allowed = attr.mode >> 6 & 7;
        else if (r->header.gid == attr.gid)
                allowed = attr.mode >> 3 & 7;
        return in->mask & ~allowed ? -EACCES : 0;
}

int op_syncfs(struct request *r)
{
        auto_fd fd = openat(r->server->root->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        return fd < 0 || syncfs(fd) < 0 ? -errno : 0;
}
