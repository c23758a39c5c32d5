#include "sys/resolve.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/buf.h"
#include "base/str.h"

#define RACE_ATTEMPTS 128 /* EAGAIN: the tree was renamed during the walk */
#define LINKS_MAX     40  /* dangling links followed while making directories */

static int open_in(int rootfd, const char *path, uint64_t flags, mode_t mode, uint64_t resolve)
{
        struct open_how how = {
                .flags = flags | O_CLOEXEC,
                .mode = flags & O_CREAT ? mode : 0,
                .resolve = resolve,
        };
        for (int attempt = 0;; attempt++) {
                long fd = syscall(SYS_openat2, rootfd, path, &how, sizeof(how));
                if (fd >= 0)
                        return (int)fd;
                if (errno != EINTR && (errno != EAGAIN || attempt >= RACE_ATTEMPTS))
                        return -errno;
        }
}

static int open_in_root(int rootfd, const char *path, uint64_t flags, mode_t mode)
{
        return open_in(rootfd, *path ? path : ".", flags, mode,
                       RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
}

int resolve_open(int rootfd, const char *path, int flags, mode_t mode, int *ret_fd, struct err *err)
{
        int fd = open_in_root(rootfd, path, (uint64_t)flags, mode);
        if (fd < 0)
                return err_set(err, -fd, "open '%s'", path);
        *ret_fd = fd;
        return 0;
}

/* The walk that makes directories: `done` was opened as `dirfd`, `left` is still to go. */
struct walk {
        int rootfd;
        int dirfd;
        struct buf done;
        char *left;
        int links;
};

/* Cuts the next component off `left`; NULL at the end. */
static char *next_component(struct walk *walk)
{
        while (*walk->left == '/')
                memmove(walk->left, walk->left + 1, strlen(walk->left));
        if (!*walk->left)
                return NULL;
        size_t length = strcspn(walk->left, "/");
        char *component = xstrndup(walk->left, length);
        memmove(walk->left, walk->left + length, strlen(walk->left + length) + 1);
        return component;
}

/* A dangling link: its target takes its place in what is left. */
static int follow_dangling(struct walk *walk, const char *component, struct err *err)
{
        char target[PATH_MAX];
        ssize_t n = readlinkat(walk->dirfd, component, target, sizeof(target) - 1);
        if (n < 0)
                return err_set(err, errno, "read link '%s'", component);
        target[n] = '\0';
        if (++walk->links > LINKS_MAX)
                return err_set(err, ELOOP, "'%s'", component);
        char *left = xasprintf("%s/%s", target, walk->left);
        free(walk->left);
        walk->left = left;
        if (target[0] == '/') {
                buf_reset(&walk->done);
                close_fd(&walk->dirfd);
                walk->dirfd = open_in_root(walk->rootfd, "/", O_PATH | O_DIRECTORY, 0);
                if (walk->dirfd < 0)
                        return err_set(err, -walk->dirfd, "open '/'");
        }
        return 0;
}

static int step(struct walk *walk, const char *component, mode_t mode, struct err *err)
{
        size_t before = walk->done.size;
        buf_printf(&walk->done, "/%s", component);
        const char *path = buf_text(&walk->done);
        int fd = open_in_root(walk->rootfd, path, O_PATH | O_DIRECTORY, 0);
        if (fd == -ENOENT && !streq(component, "..")) {
                if (mkdirat(walk->dirfd, component, mode) < 0 && errno != EEXIST)
                        return err_set(err, errno, "make directory '%s'", path);
                fd = open_in_root(walk->rootfd, path, O_PATH | O_DIRECTORY, 0);
                if (fd == -ENOENT) {
                        walk->done.data[before] = '\0';
                        walk->done.size = before;
                        return follow_dangling(walk, component, err);
                }
        }
        if (fd < 0)
                return err_set(err, -fd, "open '%s'", path);
        close_fd(&walk->dirfd);
        walk->dirfd = fd;
        return 0;
}

int resolve_make_dir(int rootfd, const char *path, mode_t mode, int *ret_fd, struct err *err)
{
        int fd = open_in_root(rootfd, path, O_PATH | O_DIRECTORY, 0);
        if (fd >= 0) {
                *ret_fd = fd;
                return 0;
        }
        if (fd != -ENOENT)
                return err_set(err, -fd, "open '%s'", path);
        struct walk walk = { .rootfd = rootfd, .left = xstrdup(path) };
        walk.dirfd = open_in_root(rootfd, "/", O_PATH | O_DIRECTORY, 0);
        int r = walk.dirfd < 0 ? err_set(err, -walk.dirfd, "open '/'") : 0;
        while (r == 0) {
                auto_free char *component = next_component(&walk);
                if (!component)
                        break;
                r = step(&walk, component, mode, err);
        }
        if (r == 0)
                *ret_fd = take_fd(walk.dirfd);
        close_fd(&walk.dirfd);
        buf_finish(&walk.done);
        free(walk.left);
        return r;
}

int resolve_parent(int rootfd, const char *path, int *ret_dirfd, char **ret_name, struct err *err)
{
        auto_free char *copy = xstrdup(path);
        size_t length = strlen(copy);
        while (length > 0 && copy[length - 1] == '/')
                copy[--length] = '\0';
        char *slash = strrchr(copy, '/');
        const char *name = slash ? slash + 1 : copy;
        if (!*name || streq(name, ".") || streq(name, ".."))
                return err_plain(err, EINVAL, "'%s' has no file name", path);
        auto_free char *last = xstrdup(name);
        if (slash)
                *slash = '\0';
        else
                *copy = '\0';
        int r = resolve_make_dir(rootfd, copy, 0755, ret_dirfd, err);
        if (r < 0)
                return r;
        *ret_name = take_ptr(last);
        return 0;
}

int resolve_make_file(int rootfd, const char *path, mode_t mode, int *ret_fd, struct err *err)
{
        int fd = open_in_root(rootfd, path, O_PATH, 0);
        if (fd == -ENOENT) {
                auto_fd dirfd = -1;
                auto_free char *name = NULL;
                int r = resolve_parent(rootfd, path, &dirfd, &name, err);
                if (r < 0)
                        return r;
                /* Through the root again, so that a dangling link stays inside it. */
                auto_fd made = open_in_root(rootfd, path,
                                            O_CREAT | O_WRONLY | O_NOCTTY | O_NONBLOCK, mode);
                if (made < 0)
                        return err_set(err, -made, "make file '%s'", path);
                fd = open_in_root(rootfd, path, O_PATH, 0);
        }
        if (fd < 0)
                return err_set(err, -fd, "open '%s'", path);
        *ret_fd = fd;
        return 0;
}

int resolve_beneath(int dirfd, const char *path, int flags, int *ret_fd, struct err *err)
{
        int fd = open_in(dirfd, path, (uint64_t)flags, 0,
                         RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV);
        if (fd < 0)
                return err_set(err, -fd, "open '%s'", path);
        *ret_fd = fd;
        return 0;
}

bool resolve_is_on(int fd, long magic)
{
        struct statfs fs;
        return fstatfs(fd, &fs) == 0 && (long)fs.f_type == magic;
}
