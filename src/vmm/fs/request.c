#include "vmm/fs/request.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "base/str.h"

int request_answer(struct request *r, const void *bytes, size_t size)
{
        size_t at = sizeof(struct fuse_out_header) + r->answered;
        if (size > r->in_bytes - at)
                return -ERANGE;
        r->answered += vectors_write(r->in, r->in_length, at, bytes, size);
        return 0;
}

int request_text(const struct request *r, size_t *offset, const char **ret)
{
        const char *text = (const char *)r->args + *offset;
        const char *end = *offset < r->args_size ? memchr(text, 0, r->args_size - *offset) : NULL;
        if (!end)
                return -EINVAL;
        *offset += (size_t)(end - text) + 1;
        *ret = text;
        return 0;
}

int request_name(const struct request *r, size_t *offset, const char **ret)
{
        const char *name;
        if (request_text(r, offset, &name) < 0)
                return -EINVAL;
        if (strlen(name) > NAME_MAX)
                return -ENAMETOOLONG;
        if (!*name || strchr(name, '/') || streq(name, ".") || streq(name, ".."))
                return -EINVAL;
        *ret = name;
        return 0;
}

bool request_shows(const struct request *r, uint64_t directory, const char *name)
{
        return !r->server->only || directory != FUSE_ROOT_ID || streq(name, ".") ||
               streq(name, "..") || strv_contains(r->server->only, name);
}

int request_changes(const struct request *r, uint64_t directory)
{
        return r->server->only && directory == FUSE_ROOT_ID ? -EPERM : 0;
}

int request_node(const struct request *r, uint64_t number, struct node **ret)
{
        struct node *node = node_get(r->server, number);
        if (!node)
                return -ESTALE;
        *ret = node;
        return 0;
}

int request_handle(const struct request *r, uint64_t number, bool directory, struct handle **ret)
{
        struct handle *handle = handle_get(r->server, number);
        if (!handle)
                return -EBADF;
        if (S_ISDIR(handle->node->type) != directory) {
                handle_put(r->server, handle);
                return -EBADF;
        }
        *ret = handle;
        return 0;
}
