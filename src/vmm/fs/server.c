#include "vmm/fs/server.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/vfs.h>

#include "base/auto.h"
#include "base/str.h"
#include "vmm/fs/request.h"

#define INODES_MAX (1u << 20)
#define MINOR_MIN  31
#define MAX_PAGES  (FS_WRITE_MAX / 4096)
#define BACKGROUND 64
#define OFFERED_FLAGS                                                                              \
        (FUSE_ASYNC_READ | FUSE_ATOMIC_O_TRUNC | FUSE_BIG_WRITES | FUSE_AUTO_INVAL_DATA |          \
         FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO | FUSE_ASYNC_DIO | FUSE_PARALLEL_DIROPS |     \
         FUSE_MAX_PAGES | FUSE_HANDLE_KILLPRIV_V2 | FUSE_INIT_EXT)

/* Up to 7.35 the request ends before flags2. */
#define INIT_IN_SIZE 16

static int op_init(struct request *r)
{
        const struct fuse_init_in *in = r->args;
        struct fuse_init_out out = { .major = FUSE_KERNEL_VERSION,
                                     .minor = FUSE_KERNEL_MINOR_VERSION };
        if (in->major > FUSE_KERNEL_VERSION) /* it asks again, with ours */
                return request_answer(r, &out, FUSE_COMPAT_INIT_OUT_SIZE);
        if (in->major < FUSE_KERNEL_VERSION || in->minor < MINOR_MIN)
                return -EPROTO;
        fs_server_reset(r->server);
        out.max_readahead = in->max_readahead;
        out.flags = in->flags & OFFERED_FLAGS;
        out.max_background = BACKGROUND;
        out.congestion_threshold = BACKGROUND * 3 / 4;
        out.max_write = FS_WRITE_MAX;
        out.time_gran = 1;
        out.max_pages = MAX_PAGES;
        return request_answer(r, &out, sizeof(out));
}

static int op_destroy(struct request *r)
{
        fs_server_reset(r->server);
        return 0;
}

/* Requests are answered one after the other by whoever brought them: there is
 * nothing that could be interrupted. */
static int op_interrupt(struct request *r)
{
        (void)r;
        return 0;
}

static int op_ioctl(struct request *r)
{
        (void)r;
        return -ENOTTY;
}

/* NAMES: the directory that the request is about changes. */
enum { CHANGES = 1, SILENT = 2, NAMES = 4 };

static const struct operation {
        int (*run)(struct request *r);
        uint16_t args_size; /* at least */
        uint8_t flags;
} operations[] = {
        [FUSE_LOOKUP] = { op_lookup, 2, 0 },
        [FUSE_FORGET] = { op_forget, sizeof(struct fuse_forget_in), SILENT },
        [FUSE_GETATTR] = { op_getattr, sizeof(struct fuse_getattr_in), 0 },
        [FUSE_SETATTR] = { op_setattr, sizeof(struct fuse_setattr_in), CHANGES | NAMES },
        [FUSE_READLINK] = { op_readlink, 0, 0 },
        [FUSE_SYMLINK] = { op_symlink, 4, CHANGES | NAMES },
        [FUSE_MKNOD] = { op_mknod, sizeof(struct fuse_mknod_in) + 2, CHANGES | NAMES },
        [FUSE_MKDIR] = { op_mkdir, sizeof(struct fuse_mkdir_in) + 2, CHANGES | NAMES },
        [FUSE_UNLINK] = { op_unlink, 2, CHANGES | NAMES },
        [FUSE_RMDIR] = { op_rmdir, 2, CHANGES | NAMES },
        [FUSE_RENAME] = { op_rename, sizeof(struct fuse_rename_in) + 4, CHANGES | NAMES },
        [FUSE_LINK] = { op_link, sizeof(struct fuse_link_in) + 2, CHANGES | NAMES },
        [FUSE_OPEN] = { op_open, sizeof(struct fuse_open_in), 0 },
        [FUSE_READ] = { op_read, sizeof(struct fuse_read_in), 0 },
        [FUSE_WRITE] = { op_write, sizeof(struct fuse_write_in), CHANGES },
        [FUSE_STATFS] = { op_statfs, 0, 0 },
        [FUSE_RELEASE] = { op_release, sizeof(struct fuse_release_in), 0 },
        [FUSE_FSYNC] = { op_fsync, sizeof(struct fuse_fsync_in), 0 },
        [FUSE_SETXATTR] = { op_setxattr, FUSE_COMPAT_SETXATTR_IN_SIZE + 2, CHANGES | NAMES },
        [FUSE_GETXATTR] = { op_getxattr, sizeof(struct fuse_getxattr_in) + 2, 0 },
        [FUSE_LISTXATTR] = { op_listxattr, sizeof(struct fuse_getxattr_in), 0 },
        [FUSE_REMOVEXATTR] = { op_removexattr, 2, CHANGES | NAMES },
        [FUSE_FLUSH] = { op_flush, sizeof(struct fuse_flush_in), 0 },
        [FUSE_INIT] = { op_init, INIT_IN_SIZE, 0 },
        [FUSE_OPENDIR] = { op_opendir, sizeof(struct fuse_open_in), 0 },
        [FUSE_READDIR] = { op_readdir, sizeof(struct fuse_read_in), 0 },
        [FUSE_RELEASEDIR] = { op_releasedir, sizeof(struct fuse_release_in), 0 },
        [FUSE_FSYNCDIR] = { op_fsyncdir, sizeof(struct fuse_fsync_in), 0 },
        [FUSE_ACCESS] = { op_access, sizeof(struct fuse_access_in), 0 },
        [FUSE_CREATE] = { op_create, sizeof(struct fuse_create_in) + 2, CHANGES | NAMES },
        [FUSE_INTERRUPT] = { op_interrupt, sizeof(struct fuse_interrupt_in), SILENT },
        [FUSE_DESTROY] = { op_destroy, 0, 0 },
        [FUSE_IOCTL] = { op_ioctl, 0, 0 },
        [FUSE_BATCH_FORGET] = { op_batch_forget, sizeof(struct fuse_batch_forget_in), SILENT },
        [FUSE_FALLOCATE] = { op_fallocate, sizeof(struct fuse_fallocate_in), CHANGES },
        [FUSE_READDIRPLUS] = { op_readdirplus, sizeof(struct fuse_read_in), 0 },
        [FUSE_RENAME2] = { op_rename2, sizeof(struct fuse_rename2_in) + 4, CHANGES | NAMES },
        [FUSE_LSEEK] = { op_lseek, sizeof(struct fuse_lseek_in), 0 },
        [FUSE_COPY_FILE_RANGE] = { op_copy_file_range, sizeof(struct fuse_copy_file_range_in),
                                   CHANGES },
        [FUSE_SYNCFS] = { op_syncfs, sizeof(struct fuse_syncfs_in), 0 },
        [FUSE_TMPFILE] = { op_tmpfile, sizeof(struct fuse_create_in), CHANGES | NAMES },
};

/* ---- one request ---- */

static size_t total(const struct iovec *v, unsigned length)
{
        size_t bytes = 0;
        for (unsigned i = 0; i < length; i++)
                bytes += v[i].iov_len;
        return bytes;
}

/* Copies the arguments in, so that the guest cannot change them any more; of a
 * WRITE only those in front of the data. */
static int take_args(struct request *r, const struct operation *op)
{
        size_t given = total(r->out, r->out_length), head = sizeof(r->header);
        size_t extensions = (size_t)r->header.total_extlen * 8;
        if (r->header.len < head + extensions || r->header.len > given)
                return -EINVAL;
        size_t size = r->header.len - head - extensions;
        if (size < op->args_size)
                return -EINVAL;
        if (r->header.opcode == FUSE_WRITE)
                size = op->args_size;
        if (size > FS_ARGS_MAX)
                return -E2BIG;
        r->args = r->small;
        if (size > sizeof(r->small))
                r->args = xmalloc(size);
        r->args_size = vectors_read(r->out, r->out_length, head, r->args, size);
        return 0;
}

static int run(struct request *r, bool *ret_silent)
{
        const struct operation *op = r->header.opcode < ELEMENTS(operations)
                                             ? &operations[r->header.opcode]
                                             : NULL;
        if (!op || !op->run)
                return -ENOSYS;
        *ret_silent = op->flags & SILENT;
        if (r->out_length > FS_SEGMENTS || r->in_length > FS_SEGMENTS)
                return -EINVAL;
        int code = take_args(r, op);
        if (code == 0 && op->flags & CHANGES && r->server->read_only)
                code = -EROFS;
        if (code == 0 && op->flags & NAMES)
                code = request_changes(r, r->header.nodeid);
        if (code == 0)
                code = op->run(r);
        if (code == -EMFILE) /* the guest's own table is not full */
                code = -ENFILE;
        if (r->args != r->small)
                free(r->args);
        return code;
}

size_t fs_server_handle(struct fs_server *server, const struct iovec *out, unsigned out_length,
                        const struct iovec *in, unsigned in_length)
{
        struct request r = { .server = server,
                             .out = out,
                             .out_length = out_length,
                             .in = in,
                             .in_length = in_length,
                             .in_bytes = total(in, in_length) };
        struct fuse_out_header answer = { 0 };
        bool silent = false;
        int code = -EINVAL;
        if (vectors_read(out, out_length, 0, &r.header, sizeof(r.header)) == sizeof(r.header)) {
                if (r.in_bytes < sizeof(answer)) {
                        /* Only what needs no answer may leave no room for one. */
                        if (r.header.opcode == FUSE_FORGET || r.header.opcode == FUSE_BATCH_FORGET)
                                run(&r, &silent);
                        return 0;
                }
                code = run(&r, &silent);
        }
        if (silent || r.in_bytes < sizeof(answer))
                return 0;
        answer.unique = r.header.unique;
        answer.error = code < 0 ? code : 0;
        answer.len = (uint32_t)(sizeof(answer) + (code < 0 ? 0 : r.answered));
        vectors_write(in, in_length, 0, &answer, sizeof(answer));
        return answer.len;
}

/* ---- life ---- */

void fs_server_reset(struct fs_server *server)
{
        handle_release_all(server);
        node_forget_all(server);
}

/* What a guest may hold: inodes take half of the descriptors, open files a quarter. */
static uint32_t descriptors(unsigned servers)
{
        struct rlimit limit;
        if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
                limit.rlim_max = 1024;
        limit.rlim_cur = limit.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
                getrlimit(RLIMIT_NOFILE, &limit);
        rlim_t share = limit.rlim_cur / (servers ? servers : 1);
        return share / 2 < INODES_MAX ? (uint32_t)share : 2 * INODES_MAX;
}

static int check_proc(struct err *err)
{
        struct statfs fs;
        if (statfs("/proc/self/fd", &fs) < 0)
                return err_set(err, errno, "shared directories need /proc");
        if (fs.f_type != PROC_SUPER_MAGIC)
                return err_plain(err, EINVAL, "/proc is not a procfs; shared directories need one");
        return 0;
}

static int check_map(const char *what, const struct fs_id_map *map, struct err *err)
{
        if (map->count && (map->guest + (uint64_t)map->count > UINT32_MAX ||
                           map->host + (uint64_t)map->count > UINT32_MAX))
                return err_plain(err, EINVAL, "%s map %u:%u:%u: ids end at %u", what, map->guest,
                                 map->host, map->count, UINT32_MAX - 1);
        return 0;
}

int fs_server_create(const struct fs_options *o, struct fs_server **ret, struct err *err)
{
        auto_fd root = o->root ? open(o->root, O_PATH | O_DIRECTORY | O_CLOEXEC) : o->root_fd;
        if (root < 0)
                return err_set(err, errno, "shared directory '%s'", o->root);
        int r = check_map("user id", &o->uids, err);
        if (r == 0)
                r = check_map("group id", &o->gids, err);
        if (r == 0)
                r = check_proc(err);
        if (r < 0)
                return r;
        uint32_t limit = descriptors(o->servers);
        struct fs_server *s = new0(struct fs_server);
        s->read_only = o->read_only;
        s->exclusive = o->exclusive;
        s->resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS;
        if (!o->submounts)
                s->resolve |= RESOLVE_NO_XDEV;
        s->valid_ns = o->exclusive ? FS_VALID_EXCLUSIVE_NS : FS_VALID_NS;
        s->only = o->only ? strv_copy(o->only) : NULL;
        s->uids = o->uids;
        s->gids = o->gids;
        pthread_mutex_init(&s->lock, NULL);
        slots_init(&s->handles, limit / 4);
        r = node_init(s, take_fd(root), o->inodes_max ? o->inodes_max : limit / 2);
        if (r < 0) {
                fs_server_destroy(s);
                return err_set(err, -r, "shared directory '%s'", o->root ? o->root : "");
        }
        *ret = s;
        return 0;
}

void fs_server_destroy(struct fs_server *s)
{
        if (!s)
                return;
        handle_release_all(s);
        node_finish(s);
        slots_finish(&s->handles);
        strv_free(s->only);
        pthread_mutex_destroy(&s->lock);
        free(s);
}
