/* What a guest holds of a server, in a snapshot: see server.h.
 *
 * A node is saved by its path below the shared directory, as /proc tells it and as a lookup of that
 * path finds it; a handle by its node and how it was opened. Both keep their numbers. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/str.h"
#include "vmm/fs/request.h"
#include "vmm/snapshot/state.h"

/* Opens what `path` says below the shared directory, "" being itself, as the guest could. */
static int open_below(const struct fs_server *s, const char *path, struct stat *st)
{
        struct open_how how = { .flags = O_PATH | O_NOFOLLOW | O_CLOEXEC, .resolve = s->resolve };
        auto_fd fd = (int)syscall(SYS_openat2, s->root->fd, *path ? path : ".", &how, sizeof(how));
        if (fd < 0 || fstat(fd, st) < 0)
                return -errno;
        return take_fd(fd);
}

static uint64_t changed_ns(const struct stat *st)
{
        return (uint64_t)st->st_mtim.tv_sec * NS_PER_S + (uint64_t)st->st_mtim.tv_nsec;
}

/* ---- saving ---- */

static int full_path(int fd, char ret[PATH_MAX])
{
        char link[PROC_FD_SIZE];
        proc_fd(fd, link);
        ssize_t n = readlink(link, ret, PATH_MAX - 1);
        if (n < 0)
                return -errno;
        ret[n] = '\0';
        return 0;
}

/* The node's path below the shared directory. -ENOENT: it is not found by one. */
static int path_below(const struct fs_server *s, const struct node *node, char ret[PATH_MAX],
                      struct stat *st)
{
        char root[PATH_MAX], full[PATH_MAX];
        int r = full_path(s->root->fd, root);
        if (r == 0)
                r = full_path(node->fd, full);
        if (r < 0)
                return r;
        const char *below = str_after(full, streq(root, "/") ? "" : root);
        if (!below || (*below && *below != '/'))
                return -ENOENT;
        while (*below == '/')
                below++;
        auto_fd fd = open_below(s, below, st);
        if (fd < 0 || st->st_dev != node->dev || st->st_ino != node->ino)
                return -ENOENT;
        memmove(ret, below, strlen(below) + 1);
        return 0;
}

static void save_node(const struct node *node, const char *path, const struct stat *st,
                      struct state_writer *w)
{
        state_put(w, node->number, 8);
        state_put(w, node->lookups, 8);
        state_put(w, node->type, 4);
        state_put(w, (uint64_t)st->st_size, 8);
        state_put(w, changed_ns(st), 8);
        state_put(w, (uint16_t)strlen(path), 2);
        state_put_bytes(w, path, strlen(path));
}

static bool is_open(const struct fs_server *s, const struct node *node)
{
        for (uint32_t i = 0; i < s->handles.length; i++) {
                const struct handle *h = s->handles.slots[i].object;
                if (h && h->node == node)
                        return true;
        }
        return false;
}

static int save_nodes(struct fs_server *s, struct state_writer *w, struct err *err)
{
        char path[PATH_MAX];
        struct stat st;
        for (uint32_t i = 0; i < s->nodes.length; i++) {
                const struct node *node = s->nodes.slots[i].object;
                if (!node)
                        continue;
                if (path_below(s, node, path, &st) == 0) {
                        save_node(node, path, &st, w);
                } else if (is_open(s, node)) {
                        if (full_path(node->fd, path) < 0)
                                path[0] = '\0';
                        return err_plain(err, EBUSY,
                                         "'%s' is open in the guest and has no name in the "
                                         "directory any more; it must be closed before a snapshot",
                                         path);
                }
        }
        state_put(w, 0, 8); /* no more of them */
        return 0;
}

static int save_handles(struct fs_server *s, struct state_writer *w, struct err *err)
{
        for (uint32_t i = 0; i < s->handles.length; i++) {
                const struct handle *h = s->handles.slots[i].object;
                int flags = h ? fcntl(h->fd, F_GETFL) : 0;
                if (!h)
                        continue;
                if (flags < 0)
                        return err_set(err, errno, "an open file");
                state_put(w, h->number, 8);
                state_put(w, h->node->number, 8);
                state_put(w, (uint32_t)flags & FS_OPEN_FLAGS, 4);
        }
        state_put(w, 0, 8);
        return 0;
}

int fs_server_save(struct fs_server *s, struct state_writer *w, struct err *err)
{
        int r = save_nodes(s, w, err);
        return r < 0 ? r : save_handles(s, w, err);
}

/* ---- loading ---- */

struct saved_node {
        uint64_t number, lookups, size_bytes, changed_ns;
        uint32_t type;
        char path[PATH_MAX];
};

static int read_node(struct state_section *in, uint64_t number, struct saved_node *ret,
                     struct err *err)
{
        ret->number = number;
        ret->lookups = state_get(in, 8);
        ret->type = state_get(in, 4);
        ret->size_bytes = state_get(in, 8);
        ret->changed_ns = state_get(in, 8);
        uint16_t length = state_get(in, 2);
        if (length >= PATH_MAX)
                return state_refuse(in, err, "has a path of %u bytes", length);
        state_get_bytes(in, ret->path, length);
        ret->path[length] = '\0';
        if (strlen(ret->path) != length || ret->path[0] == '/')
                return state_refuse(in, err, "has a path that is none");
        return in->is_short ? state_end(in, err) : 0;
}

/* With `only`, what the first name of a path has to be. */
static bool shows(const struct fs_server *s, const char *path)
{
        char name[NAME_MAX + 1];
        size_t length = strcspn(path, "/");
        if (!s->only || !length)
                return true;
        if (length > NAME_MAX)
                return false;
        memcpy(name, path, length);
        name[length] = '\0';
        return strv_contains(s->only, name);
}

/* That what lies there now is what the guest knows. */
static int check_same(const struct fs_server *s, const struct saved_node *n, const struct stat *st,
                      struct err *err)
{
        if ((st->st_mode & S_IFMT) != n->type)
                return err_plain(err, ESTALE, "'%s' is of another type than in the snapshot",
                                 n->path);
        if (s->exclusive &&
            ((uint64_t)st->st_size != n->size_bytes || changed_ns(st) != n->changed_ns))
                return err_plain(err, ESTALE,
                                 "'%s' was changed after the snapshot, whose guest expects that "
                                 "nobody else does (exclusive): restore it with the directory as "
                                 "it was",
                                 n->path);
        return 0;
}

static int load_node(struct fs_server *s, const struct saved_node *n, struct err *err)
{
        struct stat st;
        auto_fd fd = shows(s, n->path) ? open_below(s, n->path, &st) : -ENOENT;
        if (fd < 0)
                return err_set(err, -fd, "'%s', which the snapshot's guest knows", n->path);
        int r = check_same(s, n, &st, err);
        if (r < 0)
                return r;
        if (n->number == s->root->number && !*n->path) {
                s->root->lookups = n->lookups;
                return 0;
        }
        r = node_put_back(s, take_fd(fd), &st, n->number, n->lookups);
        if (r == -ENFILE)
                return err_set(err, ENFILE,
                               "'%s': more files than RLIMIT_NOFILE allows here; raise it",
                               n->path);
        return r < 0 ? err_plain(err, -r, "'%s' is there twice, or is another file's name too",
                                 n->path)
                     : 0;
}

static int load_nodes(struct fs_server *s, struct state_section *in, struct err *err)
{
        struct saved_node n;
        uint64_t number;
        int result = 0;
        while (result == 0 && (number = state_get(in, 8))) {
                result = read_node(in, number, &n, err);
                if (result == 0)
                        result = load_node(s, &n, err);
        }
        slots_settle(&s->nodes);
        return result;
}

static int open_again(const struct node *node, uint32_t flags)
{
        int fd = -EINVAL;
        if (S_ISDIR(node->type))
                fd = openat(node->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        else if (S_ISREG(node->type)) /* no other is ever opened */
                return node_reopen(node->fd, open_flags(flags));
        return fd == -1 ? -errno : fd;
}

static int load_handle(struct fs_server *s, struct state_section *in, uint64_t number,
                       struct err *err)
{
        uint64_t of = state_get(in, 8);
        uint32_t flags = state_get(in, 4);
        struct node *node = slots_get(&s->nodes, of);
        bool writable = (flags & O_ACCMODE) != O_RDONLY;
        if (!node)
                return state_refuse(in, err, "has an open file of an inode that it has not");
        char path[PATH_MAX];
        if (full_path(node->fd, path) < 0)
                path[0] = '\0';
        if (writable && (s->read_only || S_ISDIR(node->type)))
                return err_plain(err, EROFS, "'%s' was open for writing in the snapshot", path);
        int fd = open_again(node, flags);
        if (fd < 0)
                return err_set(err, -fd, "'%s', which was open in the snapshot", path);
        int result = handle_put_back(s, node, fd, writable, number);
        return result < 0 ? err_set(err, -result, "'%s', which was open in the snapshot", path) : 0;
}

static int load_handles(struct fs_server *s, struct state_section *in, struct err *err)
{
        uint64_t number;
        int result = 0;
        while (result == 0 && (number = state_get(in, 8)))
                result = load_handle(s, in, number, err);
        slots_settle(&s->handles);
        return result;
}

int fs_server_load(struct fs_server *s, struct state_section *section, struct err *err)
{
        int result = load_nodes(s, section, err);
        return result < 0 ? result : load_handles(s, section, err);
}
