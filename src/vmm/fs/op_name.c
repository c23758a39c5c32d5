/* Names of inodes that exist: more of them, other ones, none. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>

#include "base/auto.h"
#include "vmm/fs/request.h"

/* By the magic link, for AT_EMPTY_PATH asks for a capability that this does not. */
int op_link(struct request *r)
{
        const struct fuse_link_in *in = r->args;
        auto_node parent = { r->server, NULL }, node = { r->server, NULL };
        struct fuse_entry_out out;
        char path[PROC_FD_SIZE];
        const char *name;
        size_t at = sizeof(*in);
        int code = request_name(r, &at, &name);
        if (code == 0)
                code = request_node(r, r->header.nodeid, &parent.it);
        if (code == 0)
                code = request_node(r, in->oldnodeid, &node.it);
        if (code < 0)
                return code;
        proc_fd(node.it->fd, path);
        if (linkat(AT_FDCWD, path, parent.it->fd, name, AT_SYMLINK_FOLLOW) < 0)
                return -errno;
        code = node_lookup(r->server, parent.it, name, &out);
        return code < 0 ? code : request_answer(r, &out, sizeof(out));
}

static int take_away(struct request *r, int flags)
{
        auto_node parent = { r->server, NULL };
        const char *name;
        size_t at = 0;
        int code = request_name(r, &at, &name);
        if (code == 0)
                code = request_node(r, r->header.nodeid, &parent.it);
        if (code < 0)
                return code;
        return unlinkat(parent.it->fd, name, flags) < 0 ? -errno : 0;
}

int op_unlink(struct request *r)
{
        return take_away(r, 0);
}

int op_rmdir(struct request *r)
{
        return take_away(r, AT_REMOVEDIR);
}

static int move(struct request *r, size_t at, uint64_t to_number, unsigned flags)
{
        auto_node from = { r->server, NULL }, to = { r->server, NULL };
        const char *old, *new;
        int code = request_name(r, &at, &old);
        if (code == 0)
                code = request_name(r, &at, &new);
        if (code == 0)
                code = request_changes(r, to_number);
        if (code == 0)
                code = request_node(r, r->header.nodeid, &from.it);
        if (code == 0)
                code = request_node(r, to_number, &to.it);
        if (code < 0)
                return code;
        return renameat2(from.it->fd, old, to.it->fd, new, flags) < 0 ? -errno : 0;
}

int op_rename(struct request *r)
{
        const struct fuse_rename_in *in = r->args;
        return move(r, sizeof(*in), in->newdir, 0);
}

int op_rename2(struct request *r)
{
        const struct fuse_rename2_in *in = r->args;
        if (in->flags & ~(uint32_t)(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT))
                return -EINVAL;
        return move(r, sizeof(*in), in->newdir, in->flags);
}
