/* Extended attributes, by the magic link, for an O_PATH descriptor has none.
 *
 * Only what means nothing to the host passes: `user.`, and with identity mapping
 * (where the guest's root is the host's anyway) file capabilities. POSIX ACLs
 * are not offered: they hold ids, and the guest checks permissions without them. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

#include "base/auto.h"
#include "base/str.h"
#include "vmm/fs/request.h"

static bool passes(const struct fs_server *s, const char *name)
{
        return str_after(name, "user.") ||
               (!s->uids.count && !s->gids.count && streq(name, "security.capability"));
}

static int begin(const struct request *r, size_t *at, struct node **ret, char path[PROC_FD_SIZE],
                 const char **ret_name)
{
        int code = request_text(r, at, ret_name);
        if (code < 0)
                return code;
        if (!passes(r->server, *ret_name))
                return -EOPNOTSUPP;
        code = request_node(r, r->header.nodeid, ret);
        if (code == 0)
                proc_fd((*ret)->fd, path);
        return code;
}

int op_setxattr(struct request *r)
{
        const struct fuse_setxattr_in *in = r->args; /* the short form: see INIT */
        auto_node node = { r->server, NULL };
        char path[PROC_FD_SIZE];
        const char *name;
        size_t at = FUSE_COMPAT_SETXATTR_IN_SIZE;
        int code = begin(r, &at, &node.it, path, &name);
        if (code < 0)
                return code;
        if (in->size > r->args_size - at || in->flags & ~(uint32_t)(XATTR_CREATE | XATTR_REPLACE))
                return -EINVAL;
        code = setxattr(path, name, (const uint8_t *)r->args + at, in->size, (int)in->flags);
        return code < 0 ? -errno : 0;
}

/* `size` 0 asks how much there is. */
static int answer(struct request *r, const void *value, size_t length, uint32_t size)
{
        const struct fuse_getxattr_out out = { .size = (uint32_t)length };
        if (!size)
                return request_answer(r, &out, sizeof(out));
        return length > size ? -ERANGE : request_answer(r, value, length);
}

int op_getxattr(struct request *r)
{
        const struct fuse_getxattr_in *in = r->args;
        auto_node node = { r->server, NULL };
        auto_free void *value = NULL;
        char path[PROC_FD_SIZE];
        const char *name;
        size_t at = sizeof(*in);
        int code = begin(r, &at, &node.it, path, &name);
        if (code < 0)
                return code;
        value = xmalloc(XATTR_SIZE_MAX);
        ssize_t n = getxattr(path, name, value, XATTR_SIZE_MAX);
        return n < 0 ? -errno : answer(r, value, (size_t)n, in->size);
}

int op_listxattr(struct request *r)
{
        const struct fuse_getxattr_in *in = r->args;
        auto_node node = { r->server, NULL };
        auto_free char *names = NULL;
        char path[PROC_FD_SIZE];
        size_t kept = 0;
        int code = request_node(r, r->header.nodeid, &node.it);
        if (code < 0)
                return code;
        names = xmalloc(XATTR_LIST_MAX);
        proc_fd(node.it->fd, path);
        ssize_t n = listxattr(path, names, XATTR_LIST_MAX);
        if (n < 0)
                return -errno;
        for (size_t at = 0, size; at < (size_t)n; at += size) {
                size = strlen(names + at) + 1;
                if (!passes(r->server, names + at))
                        continue;
                memmove(names + kept, names + at, size);
                kept += size;
        }
        return answer(r, names, kept, in->size);
}

int op_removexattr(struct request *r)
{
        auto_node node = { r->server, NULL };
        char path[PROC_FD_SIZE];
        const char *name;
        size_t at = 0;
        int code = begin(r, &at, &node.it, path, &name);
        if (code < 0)
                return code;
        return removexattr(path, name) < 0 ? -errno : 0;
}
