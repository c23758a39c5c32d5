/* Open directories. Offsets are the host's own (telldir), so that they stay good
 * however long the guest waits and whatever is made or removed meanwhile. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>

#include "base/auto.h"
#include "base/str.h"
#include "vmm/fs/request.h"

/* What the kernel writes in getdents64(2). */
struct record {
        uint64_t ino;
        int64_t off;
        uint16_t size;
        uint8_t type;
        char name[];
};

#define CHUNK     8192
#define CHUNK_MIN 1024 /* holds the longest name */

/* About as much as the answer takes, for the rest would be read again. Attributes make
 * an entry of usual length five times as large. */
static size_t chunk_size(size_t room, bool plus)
{
        size_t size = plus ? room / 5 : room;
        return size < CHUNK_MIN ? CHUNK_MIN : size < CHUNK ? size : CHUNK;
}

int op_opendir(struct request *r)
{
        struct fuse_open_out out = { 0 };
        auto_node node = { r->server, NULL };
        int code = request_node(r, r->header.nodeid, &node.it);
        if (code < 0)
                return code;
        if (!S_ISDIR(node.it->type))
                return -ENOTDIR;
        int fd = openat(node.it->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        code = handle_add(r->server, node.it, fd, false, &out.fh);
        return code < 0 ? code : request_answer(r, &out, sizeof(out));
}

int op_releasedir(struct request *r)
{
        return op_release(r);
}

int op_fsyncdir(struct request *r)
{
        const struct fuse_fsync_in *in = r->args;
        auto_handle dir = { r->server, NULL };
        int code = request_handle(r, in->fh, true, &dir.it);
        if (code < 0)
                return code;
        code = in->fsync_flags & FUSE_FSYNC_FDATASYNC ? fdatasync(dir.it->fd) : fsync(dir.it->fd);
        return code < 0 ? -errno : 0;
}

/* Looks an entry up for READDIRPLUS. One that cannot be (gone, a mount, too many)
 * is listed without: the guest will ask by name if it wants to know. */
static void describe(struct request *r, const struct node *dir, const struct record *record,
                     struct fuse_entry_out *ret)
{
        *ret = (struct fuse_entry_out){ 0 };
        if (streq(record->name, ".") || streq(record->name, ".."))
                return;
        if (node_lookup(r->server, dir, record->name, ret) < 0)
                *ret = (struct fuse_entry_out){ 0 };
}

/* 1 where it found no room. */
static int put(struct request *r, const struct node *dir, const struct record *record, size_t room,
               bool plus)
{
        static const uint8_t padding[8];
        size_t length = strlen(record->name);
        /* What lies above the export is nobody's business. */
        bool above = dir == r->server->root && streq(record->name, "..");
        const struct fuse_dirent entry = { .ino = above ? dir->ino : record->ino,
                                           .off = (uint64_t)record->off,
                                           .namelen = (uint32_t)length,
                                           .type = record->type };
        size_t size = FUSE_DIRENT_SIZE(&entry) + (plus ? sizeof(struct fuse_entry_out) : 0);
        if (size > room - r->answered)
                return 1;
        if (plus) {
                struct fuse_entry_out known;
                describe(r, dir, record, &known);
                request_answer(r, &known, sizeof(known));
        }
        request_answer(r, &entry, FUSE_NAME_OFFSET);
        request_answer(r, record->name, length);
        return request_answer(r, padding, FUSE_DIRENT_SIZE(&entry) - FUSE_NAME_OFFSET - length);
}

/* Entries from the descriptor's position on until the answer is full: of those
 * that were read in vain the next request reads again. */
static int fill(struct request *r, const struct handle *dir, size_t room, bool plus)
{
        alignas(8) uint8_t chunk[CHUNK];
        for (;;) {
                long n = syscall(SYS_getdents64, dir->fd, chunk,
                                 chunk_size(room - r->answered, plus));
                if (n <= 0)
                        return n < 0 && !r->answered ? -errno : 0;
                for (long at = 0; at < n;) {
                        const struct record *record = (const void *)(chunk + at);
                        int full = request_shows(r, dir->node->number, record->name)
                                           ? put(r, dir->node, record, room, plus)
                                           : 0;
                        if (full) /* not even one: the guest's buffer is too small */
                                return r->answered ? 0 : -EINVAL;
                        at += record->size;
                }
        }
}

static int list(struct request *r, bool plus)
{
        const struct fuse_read_in *in = r->args;
        auto_handle dir = { r->server, NULL };
        int code = request_handle(r, in->fh, true, &dir.it);
        if (code < 0)
                return code;
        if (in->size > r->in_bytes - sizeof(struct fuse_out_header))
                return -EINVAL;
        pthread_mutex_lock(&dir.it->position);
        if (lseek(dir.it->fd, (off_t)in->offset, SEEK_SET) < 0)
                code = -errno;
        else
                code = fill(r, dir.it, in->size, plus);
        pthread_mutex_unlock(&dir.it->position);
        return code;
}

int op_readdir(struct request *r)
{
        return list(r, false);
}

int op_readdirplus(struct request *r)
{
        return list(r, true);
}
