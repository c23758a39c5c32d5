/* New inodes, in three steps: made exclusively and for us alone, given to the caller,
 * given their mode (server.h says why). Whatever fails undoes the first. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/syscall.h>

#include "base/auto.h"
#include "vmm/fs/request.h"

struct owner {
        uint32_t uid, gid;
};

static int caller(const struct request *r, const struct stat *parent, struct owner *ret)
{
        int code = id_to_host(&r->server->uids, r->header.uid, &ret->uid);
        if (code == 0)
                code = id_to_host(&r->server->gids, r->header.gid, &ret->gid);
        if (parent->st_mode & S_ISGID)
                ret->gid = UINT32_MAX; /* the host gave it the directory's */
        return code;
}

/* The parent of what will be made, and who will own that. */
static int begin(const struct request *r, struct node **ret_parent, struct owner *ret)
{
        struct stat st;
        int code = request_node(r, r->header.nodeid, ret_parent);
        if (code < 0)
                return code;
        if (!S_ISDIR((*ret_parent)->type))
                return -ENOTDIR;
        return fstat((*ret_parent)->fd, &st) < 0 ? -errno : caller(r, &st, ret);
}

/* Any descriptor of the new inode does. */
static int give(int fd, const struct owner *owner, mode_t mode, struct stat *st)
{
        char path[PROC_FD_SIZE];
        if (fchownat(fd, "", owner->uid, owner->gid, AT_EMPTY_PATH) < 0 || fstat(fd, st) < 0)
                return -errno;
        if (S_ISLNK(st->st_mode))
                return 0;
        mode &= 07777;
        if (S_ISDIR(st->st_mode))
                mode |= st->st_mode & S_ISGID;
        proc_fd(fd, path);
        return chmod(path, mode) < 0 || fstat(fd, st) < 0 ? -errno : 0;
}

static void undo(const struct node *parent, const char *name, mode_t type)
{
        unlinkat(parent->fd, name, S_ISDIR(type) ? AT_REMOVEDIR : 0);
}

/* What was just made as `name`: given away and answered. */
static int finish(struct request *r, const struct node *parent, const char *name,
                  const struct owner *owner, mode_t mode)
{
        struct stat st;
        struct fuse_entry_out out;
        int fd = -1;
        int code = node_open_child(r->server, parent, name, &fd, &st);
        if (code == 0 && (st.st_mode & S_IFMT) != (mode & S_IFMT)) {
                close(fd);
                return -EIO; /* another thing was put in its place, which is not ours to undo */
        }
        if (code == 0)
                code = give(fd, owner, mode, &st);
        if (code < 0)
                close_fd(&fd);
        else
                code = node_entry(r->server, fd, &st, &out);
        if (code < 0) {
                undo(parent, name, mode);
                return code;
        }
        return request_answer(r, &out, sizeof(out));
}

int op_symlink(struct request *r)
{
        auto_node parent = { r->server, NULL };
        struct owner owner;
        const char *name, *target;
        size_t at = 0;
        int code = request_name(r, &at, &name);
        if (code == 0)
                code = request_text(r, &at, &target);
        if (code == 0)
                code = begin(r, &parent.it, &owner);
        if (code < 0)
                return code;
        if (symlinkat(target, parent.it->fd, name) < 0)
                return -errno;
        return finish(r, parent.it, name, &owner, S_IFLNK);
}

/* Device nodes are refused: made by a guest, they would be the host's devices. */
static bool may_make(const struct fuse_mknod_in *in)
{
        mode_t type = in->mode & S_IFMT;
        return type == S_IFREG || type == S_IFIFO || type == S_IFSOCK ||
               (type == S_IFCHR && in->rdev == 0);
}

int op_mknod(struct request *r)
{
        const struct fuse_mknod_in *in = r->args;
        auto_node parent = { r->server, NULL };
        struct owner owner;
        const char *name;
        size_t at = sizeof(*in);
        int code = request_name(r, &at, &name);
        if (code < 0)
                return code;
        if (!may_make(in))
                return -EPERM;
        code = begin(r, &parent.it, &owner);
        if (code < 0)
                return code;
        if (mknodat(parent.it->fd, name, (in->mode & S_IFMT) | 0600, 0) < 0)
                return -errno;
        return finish(r, parent.it, name, &owner, in->mode);
}

int op_mkdir(struct request *r)
{
        const struct fuse_mkdir_in *in = r->args;
        auto_node parent = { r->server, NULL };
        struct owner owner;
        const char *name;
        size_t at = sizeof(*in);
        int code = request_name(r, &at, &name);
        if (code == 0)
                code = begin(r, &parent.it, &owner);
        if (code < 0)
                return code;
        if (mkdirat(parent.it->fd, name, 0700) < 0)
                return -errno;
        return finish(r, parent.it, name, &owner, (in->mode & 07777) | S_IFDIR);
}

/* ---- files that are opened at once ---- */

static int answer_open(struct request *r, int fd, const struct stat *st, uint32_t flags)
{
        struct {
                struct fuse_entry_out entry;
                struct fuse_open_out open;
        } out = { 0 };
        int path_fd = node_reopen(fd, O_PATH);
        int code = path_fd < 0 ? path_fd : node_entry(r->server, path_fd, st, &out.entry);
        if (code < 0) {
                close(fd);
                return code;
        }
        auto_node node = { r->server, node_get(r->server, out.entry.nodeid) };
        if (!node.it) { /* a guest that forgot what it was not told of yet */
                close(fd);
                return -ESTALE;
        }
        code = handle_add(r->server, node.it, fd, (flags & O_ACCMODE) != O_RDONLY, &out.open.fh);
        if (code == 0)
                code = request_answer(r, &out, sizeof(out));
        if (code < 0)
                node_forget(r->server, out.entry.nodeid, 1);
        return code;
}

/* Another made it since the guest looked. */
static int open_existing(struct request *r, const struct node *parent, const char *name,
                         const struct fuse_create_in *in)
{
        struct stat st;
        int path_fd;
        int code = node_open_child(r->server, parent, name, &path_fd, &st);
        if (code < 0)
                return code;
        auto_fd path = path_fd;
        if (!S_ISREG(st.st_mode))
                return S_ISDIR(st.st_mode) ? -EISDIR : -EEXIST;
        auto_fd fd = open_truncated(path, in->flags, in->open_flags);
        if (fd < 0 || fstat(fd, &st) < 0)
                return fd < 0 ? fd : -errno;
        return answer_open(r, take_fd(fd), &st, in->flags);
}

static int open_new(const struct fs_server *s, const struct node *parent, const char *name,
                    uint32_t flags)
{
        struct open_how how = { .flags = (unsigned)open_flags(flags) | O_CREAT | O_EXCL |
                                         O_NOFOLLOW,
                                .mode = 0600,
                                .resolve = s->resolve };
        int fd = (int)syscall(SYS_openat2, parent->fd, name, &how, sizeof(how));
        if (fd < 0)
                return -errno;
        return fd;
}

int op_create(struct request *r)
{
        const struct fuse_create_in *in = r->args;
        auto_node parent = { r->server, NULL };
        struct owner owner;
        struct stat st;
        const char *name;
        size_t at = sizeof(*in);
        int code = request_name(r, &at, &name);
        if (code == 0)
                code = begin(r, &parent.it, &owner);
        if (code < 0)
                return code;
        auto_fd fd = open_new(r->server, parent.it, name, in->flags);
        if (fd == -EEXIST && !(in->flags & O_EXCL))
                return open_existing(r, parent.it, name, in);
        if (fd < 0)
                return fd;
        code = give(fd, &owner, in->mode, &st);
        if (code == 0)
                code = answer_open(r, take_fd(fd), &st, in->flags);
        if (code < 0)
                undo(parent.it, name, S_IFREG);
        return code;
}

int op_tmpfile(struct request *r)
{
        const struct fuse_create_in *in = r->args;
        auto_node parent = { r->server, NULL };
        struct owner owner;
        struct stat st;
        int code = begin(r, &parent.it, &owner);
        if (code < 0)
                return code;
        if ((in->flags & O_ACCMODE) == O_RDONLY)
                return -EINVAL;
        auto_fd fd = openat(parent.it->fd, ".",
                            open_flags(in->flags) | O_TMPFILE | (int)(in->flags & O_EXCL), 0600);
        if (fd < 0)
                return -errno;
        code = give(fd, &owner, in->mode, &st);
        return code < 0 ? code : answer_open(r, take_fd(fd), &st, in->flags);
}
