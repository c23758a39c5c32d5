/* Finding and making parent directories inside the layer; see image/unpack.h. */
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include "base/str.h"
#include "image/unpack_internal.h"

int unpack_count_memory(struct unpack *unpack, size_t size, struct err *err)
{
        if (size > unpack->memory_limit - unpack->memory_bytes)
                return err_plain(err, EFBIG,
                                 "layer has too many directories: their names exceed %llu bytes",
                                 (unsigned long long)unpack->memory_limit);
        unpack->memory_bytes += size;
        return 0;
}

bool unpack_is_whiteout(const struct stat *st)
{
        return S_ISCHR(st->st_mode) && st->st_rdev == makedev(0, 0);
}

int unpack_set_opaque(int dirfd, struct err *err)
{
        char path[64];
        snprintf(path, sizeof(path), "/proc/self/fd/%d", dirfd);
        if (setxattr(path, OVERLAY_OPAQUE, "y", 1, 0) < 0)
                return err_set(err, errno, "set " OVERLAY_OPAQUE);
        return 0;
}

int unpack_clean_path(const char *path, char clean[UNPACK_PATH_MAX], struct err *err)
{
        size_t length = 0;
        for (const char *p = path; *p;) {
                size_t n = strcspn(p, "/");
                if (n == 2 && p[0] == '.' && p[1] == '.')
                        return err_plain(err, EBADMSG, "the name leads out of the layer ('..')");
                if (n > 0 && !(n == 1 && p[0] == '.')) {
                        if (length + n + 2 > UNPACK_PATH_MAX)
                                return err_plain(err, ENAMETOOLONG, "the name is too long");
                        if (length > 0)
                                clean[length++] = '/';
                        memcpy(clean + length, p, n);
                        length += n;
                }
                p += n;
                p += strspn(p, "/");
        }
        clean[length] = '\0';
        return 0;
}

int unpack_open_dir(struct unpack *unpack, const char *path)
{
        struct open_how how = {
                .flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
                .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV,
        };
        for (int attempt = 0;; attempt++) {
                long fd = syscall(SYS_openat2, unpack->root_fd, *path ? path : ".", &how,
                                  sizeof(how));
                if (fd >= 0)
                        return (int)fd;
                /* A rename anywhere on the system can disturb a walk over "..". */
                if (errno != EAGAIN || attempt >= 128)
                        return -errno;
        }
}

void unpack_forget_parents(struct unpack *unpack)
{
        for (size_t i = 0; i < UNPACK_PARENTS; i++) {
                free(take_ptr(unpack->parents[i].path));
                close_fd(&unpack->parents[i].fd);
        }
}

static int kept_parent(struct unpack *unpack, const char *path, size_t length)
{
        for (size_t i = 0; i < UNPACK_PARENTS; i++) {
                struct unpack_parent *parent = &unpack->parents[i];
                if (parent->path && strncmp(parent->path, path, length) == 0 &&
                    parent->path[length] == '\0') {
                        parent->used = ++unpack->clock;
                        return parent->fd;
                }
        }
        return -1;
}

/* Takes the descriptor. */
static int keep_parent(struct unpack *unpack, const char *path, int fd)
{
        struct unpack_parent *oldest = &unpack->parents[0];
        for (size_t i = 1; i < UNPACK_PARENTS; i++)
                if (unpack->parents[i].used < oldest->used)
                        oldest = &unpack->parents[i];
        free(oldest->path);
        close_fd(&oldest->fd);
        *oldest = (struct unpack_parent){ .path = xstrdup(path),
                                          .fd = fd,
                                          .used = ++unpack->clock };
        return fd;
}

/* Where the directory really is, whatever links led there: relative to the root. */
static char *real_path(struct unpack *unpack, int dirfd, const char *name)
{
        char link[64], root[UNPACK_PATH_MAX], path[UNPACK_PATH_MAX];
        snprintf(link, sizeof(link), "/proc/self/fd/%d", unpack->root_fd);
        ssize_t root_length = readlink(link, root, sizeof(root) - 1);
        snprintf(link, sizeof(link), "/proc/self/fd/%d", dirfd);
        ssize_t length = readlink(link, path, sizeof(path) - 1);
        if (root_length < 0 || length < root_length)
                return xstrdup(name);
        path[length] = '\0';
        const char *inside = path + root_length;
        inside += *inside == '/';
        return *inside ? xasprintf("%s/%s", inside, name) : xstrdup(name);
}

void unpack_note_implicit(struct unpack *unpack, char *path)
{
        if (unpack->implicit_length == unpack->implicit_capacity) {
                unpack->implicit_capacity = unpack->implicit_capacity * 2 + 16;
                unpack->implicit_order = xrealloc(unpack->implicit_order, unpack->implicit_capacity,
                                                  sizeof(char *));
        }
        table_put(&unpack->implicit, path, unpack);
        unpack->implicit_order[unpack->implicit_length++] = path;
}

static int note_implicit(struct unpack *unpack, int dirfd, const char *name, struct err *err)
{
        auto_free char *path = real_path(unpack, dirfd, name);
        int r = unpack_count_memory(unpack, 2 * strlen(path) + 64, err);
        if (r < 0)
                return r;
        unpack_note_implicit(unpack, take_ptr(path));
        return 0;
}

/* Makes the directory `name`, which does not exist or is a whiteout of the one below. */
static int make_implicit(struct unpack *unpack, int dirfd, const char *name, struct err *err)
{
        struct stat st;
        bool whiteout = fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
                        unpack_is_whiteout(&st);
        if (whiteout && unlinkat(dirfd, name, 0) < 0)
                return err_set(err, errno, "replace whiteout '%s'", name);
        if (mkdirat(dirfd, name, 0755) < 0)
                return err_set(err, errno, "make directory '%s'", name);
        if (unpack->umask & 0755 && fchmodat(dirfd, name, 0755, 0) < 0)
                return err_set(err, errno, "chmod directory '%s'", name);
        if (whiteout) {
                auto_fd fd = openat(dirfd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
                if (fd < 0)
                        return err_set(err, errno, "open directory '%s'", name);
                return unpack_set_opaque(fd, err);
        }
        return note_implicit(unpack, dirfd, name, err);
}

/* `path`'s component [start, end) is a link that leads nowhere yet: rewrites path
 * to what it means, with the rest behind it. */
static int follow_dangling(int dirfd, char path[UNPACK_PATH_MAX], size_t start, size_t end,
                           struct err *err)
{
        char name[NAME_MAX + 1], target[UNPACK_PATH_MAX], whole[3 * UNPACK_PATH_MAX];
        if (end - start > NAME_MAX)
                return err_plain(err, ENAMETOOLONG, "a component of the name is too long");
        snprintf(name, sizeof(name), "%.*s", (int)(end - start), path + start);
        ssize_t n = readlinkat(dirfd, name, target, sizeof(target) - 1);
        if (n < 0)
                return err_plain(err, ENOTDIR, "'%.*s' is not a directory", (int)end, path);
        target[n] = '\0';
        snprintf(whole, sizeof(whole), "%.*s/%s/%s", target[0] == '/' ? 0 : (int)start, path,
                 target, path + end);
        /* ".." is legal inside a link: it stops at the root. */
        size_t length = 0;
        for (const char *p = whole; *p;) {
                size_t size = strcspn(p, "/");
                if (size == 2 && p[0] == '.' && p[1] == '.') {
                        while (length > 0 && path[--length] != '/')
                                ;
                } else if (size > 0 && !(size == 1 && p[0] == '.')) {
                        if (length + size + 2 > UNPACK_PATH_MAX)
                                return err_plain(err, ENAMETOOLONG, "the name is too long");
                        if (length > 0)
                                path[length++] = '/';
                        memcpy(path + length, p, size);
                        length += size;
                }
                p += size;
                p += strspn(p, "/");
        }
        path[length] = '\0';
        return 0;
}

/* Opens directory `wanted`, making what is missing. Each round makes or follows
 * one component and starts over; depth and links bound the rounds. */
static int make_parents(struct unpack *unpack, const char *wanted, int *ret_fd, struct err *err)
{
        char path[UNPACK_PATH_MAX];
        unsigned links = 0;
        size_t start = 0;
        snprintf(path, sizeof(path), "%s", wanted);
        auto_fd dirfd = unpack_open_dir(unpack, "");
        if (dirfd < 0)
                return err_set(err, -dirfd, "open the layer's root");
        while (path[start]) {
                size_t end = start + strcspn(path + start, "/");
                char rest = path[end];
                path[end] = '\0';
                int fd = unpack_open_dir(unpack, path);
                if (fd < 0) {
                        bool missing = fd == -ENOENT || fd == -ENOTDIR;
                        int r = missing ? make_implicit(unpack, dirfd, path + start, err)
                                        : err_set(err, -fd, "open '%s'", path);
                        if (r == 0)
                                fd = unpack_open_dir(unpack, path);
                        path[end] = rest;
                        if (r == -EEXIST && ++links <= UNPACK_LINKS_MAX) {
                                r = follow_dangling(dirfd, path, start, end, err);
                                if (r < 0)
                                        return r;
                                close_fd(&dirfd);
                                dirfd = unpack_open_dir(unpack, "");
                                if (dirfd < 0)
                                        return err_set(err, -dirfd, "open the layer's root");
                                start = 0;
                                continue;
                        }
                        if (r < 0)
                                return r;
                        if (fd < 0)
                                return err_set(err, -fd, "open '%s'", path);
                }
                path[end] = rest;
                close(dirfd);
                dirfd = fd;
                start = end + (rest == '/');
        }
        *ret_fd = take_fd(dirfd);
        return 0;
}

static int find_parent(struct unpack *unpack, const char *path, bool make, int *ret_fd,
                       const char **ret_name, struct err *err)
{
        const char *slash = strrchr(path, '/');
        size_t length = slash ? (size_t)(slash - path) : 0;
        const char *name = slash ? slash + 1 : path;
        int fd = kept_parent(unpack, path, length);
        if (fd < 0) {
                auto_free char *parent = xstrndup(path, length);
                fd = unpack_open_dir(unpack, parent);
                if (fd < 0 && !make)
                        return err_set(err, -fd, "directory '%s'", parent);
                if (fd == -ENOENT || fd == -ENOTDIR) {
                        int r = make_parents(unpack, parent, &fd, err);
                        if (r < 0)
                                return r;
                }
                if (fd < 0)
                        return err_set(err, -fd, "directory '%s'", parent);
                keep_parent(unpack, parent, fd);
        }
        *ret_fd = fd;
        *ret_name = name;
        return 0;
}

int unpack_find_parent(struct unpack *unpack, const char *path, int *ret_fd, const char **ret_name,
                       struct err *err)
{
        return find_parent(unpack, path, true, ret_fd, ret_name, err);
}

int unpack_find_existing(struct unpack *unpack, const char *path, int *ret_fd,
                         const char **ret_name, struct err *err)
{
        return find_parent(unpack, path, false, ret_fd, ret_name, err);
}
