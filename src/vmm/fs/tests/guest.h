/* A guest's side of FUSE, for tests: builds requests and takes answers apart. */
#pragma once

#include <linux/fuse.h>
#include <string.h>

#include "vmm/fs/server.h"

struct guest {
        struct fs_server *server;
        uint32_t uid, gid;
        uint64_t unique;
        size_t size; /* of the last answer, behind its header */
        uint8_t answer[1 << 17];
};

/* Sends two pieces of arguments as they are (either may be empty), in two vectors of
 * odd sizes; returns 0 or -errno as the server said, 1 where it gave no answer. */
static inline int guest_send(struct guest *g, uint32_t opcode, uint64_t node, const void *args,
                             size_t args_size, const void *more, size_t more_size)
{
        static _Thread_local uint8_t bytes[(1 << 17) + 256];
        static _Thread_local struct {
                struct fuse_out_header header;
                uint8_t bytes[1 << 17];
        } in;
        struct fuse_in_header header = { .len = (uint32_t)(sizeof(header) + args_size + more_size),
                                         .opcode = opcode,
                                         .unique = ++g->unique,
                                         .nodeid = node,
                                         .uid = g->uid,
                                         .gid = g->gid };
        memcpy(bytes, &header, sizeof(header));
        if (args_size)
                memcpy(bytes + sizeof(header), args, args_size);
        if (more_size)
                memcpy(bytes + sizeof(header) + args_size, more, more_size);
        size_t split = header.len < 43 ? header.len : 43;
        const struct iovec out[] = { { bytes, split }, { bytes + split, header.len - split } };
        const struct iovec room[] = { { &in, 16 },
                                      { in.bytes, 1000 },
                                      { in.bytes + 1000, sizeof(in.bytes) - 1000 } };
        size_t n = fs_server_handle(g->server, out, 2, room, 3);
        if (!n)
                return 1;
        if (in.header.unique != header.unique || in.header.len != n || n < 16)
                return -1000;
        g->size = n - 16;
        memcpy(g->answer, in.bytes, g->size);
        return in.header.error;
}

static inline int guest_name(struct guest *g, uint32_t opcode, uint64_t parent, const void *args,
                             size_t args_size, const char *name)
{
        return guest_send(g, opcode, parent, args, args_size, name, strlen(name) + 1);
}

static inline int guest_init(struct guest *g)
{
        const struct fuse_init_in in = { .major = 7, .minor = 36, .flags = UINT32_MAX };
        return guest_send(g, FUSE_INIT, 0, &in, sizeof(in), NULL, 0);
}

static inline const struct fuse_entry_out *guest_entry(const struct guest *g)
{
        return (const void *)g->answer;
}

static inline int guest_lookup(struct guest *g, uint64_t parent, const char *name)
{
        return guest_name(g, FUSE_LOOKUP, parent, NULL, 0, name);
}

static inline int guest_open(struct guest *g, uint32_t opcode, uint64_t node, uint32_t flags,
                             uint64_t *ret)
{
        const struct fuse_open_in in = { .flags = flags };
        int r = guest_send(g, opcode, node, &in, sizeof(in), NULL, 0);
        if (r == 0)
                *ret = ((const struct fuse_open_out *)g->answer)->fh;
        return r;
}

static inline int guest_read(struct guest *g, uint32_t opcode, uint64_t node, uint64_t handle,
                             uint64_t offset, uint32_t size)
{
        const struct fuse_read_in in = { .fh = handle, .offset = offset, .size = size };
        return guest_send(g, opcode, node, &in, sizeof(in), NULL, 0);
}

static inline int guest_write(struct guest *g, uint64_t node, uint64_t handle, uint64_t offset,
                              const char *text, uint32_t flags)
{
        const struct fuse_write_in in = {
                .fh = handle, .offset = offset, .size = (uint32_t)strlen(text), .flags = flags
        };
        return guest_send(g, FUSE_WRITE, node, &in, sizeof(in), text, strlen(text));
}

static inline int guest_release(struct guest *g, uint32_t opcode, uint64_t node, uint64_t handle)
{
        const struct fuse_release_in in = { .fh = handle };
        return guest_send(g, opcode, node, &in, sizeof(in), NULL, 0);
}
