#include "image/overlay_tree.h"

#include <fcntl.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include "base/str.h"

#define XATTR_NAMES_MAX (64u << 10)
#define XATTR_VALUE_MAX (64u << 10)

struct overlay_tree {
        int *fds; /* O_PATH, top first */
        size_t length;
};

void overlay_tree_close(struct overlay_tree *tree)
{
        if (!tree)
                return;
        for (size_t i = 0; i < tree->length; i++)
                close_fd(&tree->fds[i]);
        free(tree->fds);
        free(tree);
}

int overlay_tree_open(char *const *paths, struct overlay_tree **ret, struct err *err)
{
        auto_overlay_tree tree = new0(struct overlay_tree);
        tree->fds = xcalloc(strv_length(paths) + 1, sizeof(int));
        for (; paths && paths[tree->length]; tree->length++) {
                int fd = open(paths[tree->length], O_PATH | O_DIRECTORY | O_CLOEXEC);
                if (fd < 0)
                        return err_set(err, errno, "open layer '%s'", paths[tree->length]);
                tree->fds[tree->length] = fd;
        }
        *ret = take_ptr(tree);
        return 0;
}

static bool is_opaque(int fd)
{
        char path[64], value[4];
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        return getxattr(path, "trusted.overlay.opaque", value, sizeof(value)) == 1 &&
               value[0] == 'y';
}

enum found { FOUND, ABSENT_HERE, ABSENT };

/* Walks one layer. */
static int find_in_layer(int rootfd, const char *path, enum found *ret_found, int *ret_fd,
                         struct stat *ret_st, struct err *err)
{
        bool opaque = false;
        auto_fd fd = openat(rootfd, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
        struct stat st;
        if (fd < 0 || fstat(fd, &st) < 0)
                return err_set(err, errno, "open layer");
        while (*path) {
                size_t n = strcspn(path, "/");
                auto_free char *name = xstrndup(path, n);
                if (!S_ISDIR(st.st_mode)) {
                        *ret_found = ABSENT;
                        return 0;
                }
                opaque = opaque || is_opaque(fd);
                int next = openat(fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
                if (next < 0 && errno == ENOENT) {
                        *ret_found = opaque ? ABSENT : ABSENT_HERE;
                        return 0;
                }
                if (next < 0)
                        return err_set(err, errno, "open '%s' in layer", name);
                close(fd);
                fd = next;
                if (fstat(fd, &st) < 0)
                        return err_set(err, errno, "stat '%s' in layer", name);
                if (S_ISCHR(st.st_mode) && st.st_rdev == makedev(0, 0)) {
                        *ret_found = ABSENT;
                        return 0;
                }
                path += n;
                path += strspn(path, "/");
        }
        *ret_found = FOUND;
        *ret_fd = take_fd(fd);
        *ret_st = st;
        return 0;
}

int overlay_tree_find(struct overlay_tree *tree, const char *path, int *ret_fd, struct stat *ret_st,
                      struct err *err)
{
        for (size_t i = 0; i < tree->length; i++) {
                enum found found = ABSENT_HERE;
                struct stat st;
                int fd = -1;
                int r = find_in_layer(tree->fds[i], path, &found, &fd, &st, err);
                if (r < 0)
                        return r;
                if (found == ABSENT)
                        return 0;
                if (found == ABSENT_HERE)
                        continue;
                *ret_fd = fd;
                if (ret_st)
                        *ret_st = st;
                return 1;
        }
        return 0;
}

static int copy_xattrs(const char *from, const char *to, struct err *err)
{
        auto_free char *names = xmalloc(XATTR_NAMES_MAX);
        ssize_t size = listxattr(from, names, XATTR_NAMES_MAX);
        if (size < 0 && errno == ENOTSUP)
                return 0;
        if (size < 0)
                return err_set(err, errno, "list xattrs");
        auto_free char *value = xmalloc(XATTR_VALUE_MAX);
        for (const char *name = names; name < names + size; name += strlen(name) + 1) {
                if (str_starts(name, "trusted.overlay."))
                        continue;
                ssize_t length = getxattr(from, name, value, XATTR_VALUE_MAX);
                if (length >= 0 && setxattr(to, name, value, (size_t)length, 0) == 0)
                        continue;
                if (errno != ENOTSUP && errno != ENODATA && errno != EPERM)
                        return err_set(err, errno, "copy xattr %s", name);
        }
        return 0;
}

int overlay_copy_attributes(int from_fd, int to_fd, struct err *err)
{
        char from[64], to[64];
        struct stat st;
        snprintf(from, sizeof(from), "/proc/self/fd/%d", from_fd);
        snprintf(to, sizeof(to), "/proc/self/fd/%d", to_fd);
        if (fstat(from_fd, &st) < 0)
                return err_set(err, errno, "stat directory");
        if (chown(to, st.st_uid, st.st_gid) < 0)
                return err_set(err, errno, "set owner");
        if (chmod(to, st.st_mode & 07777) < 0)
                return err_set(err, errno, "set mode");
        int r = copy_xattrs(from, to, err);
        if (r < 0)
                return r;
        struct timespec times[2] = { st.st_atim, st.st_mtim };
        if (utimensat(AT_FDCWD, to, times, 0) < 0)
                return err_set(err, errno, "set time");
        return 0;
}
