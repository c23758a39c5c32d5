#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"
#include "runtime/rootfs.h"

#define DEPTH_MAX  64
#define COPY_BYTES (64 * 1024)

static int copy_tree(int from, int to, unsigned depth, struct err *err);

static int copy_data(int from, int to, struct err *err)
{
        for (;;) {
                ssize_t n = copy_file_range(from, NULL, to, NULL, 1 << 30, 0);
                if (n == 0)
                        return 0;
                if (n < 0)
                        break;
        }
        char buffer[COPY_BYTES];
        for (;;) {
                ssize_t n = io_read_full(from, buffer, sizeof(buffer));
                if (n < 0)
                        return err_set(err, (int)-n, "read");
                int r = io_write_full(to, buffer, (size_t)n);
                if (r < 0)
                        return err_set(err, -r, "write");
                if ((size_t)n < sizeof(buffer))
                        return 0;
        }
}

static void copy_attributes(int from, int to, const struct stat *st)
{
        char names[4096], value[4096];
        (void)!fchown(to, st->st_uid, st->st_gid);
        (void)fchmod(to, st->st_mode & 07777);
        ssize_t n = flistxattr(from, names, sizeof(names));
        for (ssize_t i = 0; n > 0 && i < n; i += (ssize_t)strlen(names + i) + 1) {
                ssize_t size = fgetxattr(from, names + i, value, sizeof(value));
                if (size >= 0)
                        (void)fsetxattr(to, names + i, value, (size_t)size, 0);
        }
        struct timespec times[2] = { st->st_atim, st->st_mtim };
        (void)futimens(to, times);
}

static int copy_file(int from_dir, int to_dir, const char *name, const struct stat *st,
                     struct err *err)
{
        auto_fd from = openat(from_dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        auto_fd to = openat(to_dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                            0600);
        if (from < 0 || to < 0)
                return err_set(err, errno, "copy '%s'", name);
        int r = copy_data(from, to, err);
        if (r < 0)
                return err_wrap(err, "copy '%s'", name);
        copy_attributes(from, to, st);
        return 0;
}

static int copy_directory(int from_dir, int to_dir, const char *name, const struct stat *st,
                          unsigned depth, struct err *err)
{
        if (mkdirat(to_dir, name, 0700) < 0)
                return err_set(err, errno, "make directory '%s'", name);
        auto_fd from = openat(from_dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        auto_fd to = openat(to_dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (from < 0 || to < 0)
                return err_set(err, errno, "copy '%s'", name);
        int r = copy_tree(from, to, depth + 1, err);
        if (r < 0)
                return r;
        copy_attributes(from, to, st);
        return 0;
}

static int copy_entry(int from_dir, int to_dir, const char *name, unsigned depth, struct err *err)
{
        struct stat st;
        char target[PATH_MAX];
        if (fstatat(from_dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
                return err_set(err, errno, "stat '%s'", name);
        switch (st.st_mode & S_IFMT) {
        case S_IFREG:
                return copy_file(from_dir, to_dir, name, &st, err);
        case S_IFDIR:
                return copy_directory(from_dir, to_dir, name, &st, depth, err);
        case S_IFLNK: {
                ssize_t n = readlinkat(from_dir, name, target, sizeof(target) - 1);
                if (n < 0)
                        return err_set(err, errno, "read link '%s'", name);
                target[n] = '\0';
                if (symlinkat(target, to_dir, name) < 0)
                        return err_set(err, errno, "make link '%s'", name);
                break;
        }
        default:
                if (mknodat(to_dir, name, st.st_mode, st.st_rdev) < 0)
                        return err_set(err, errno, "make node '%s'", name);
        }
        (void)!fchownat(to_dir, name, st.st_uid, st.st_gid, AT_SYMLINK_NOFOLLOW);
        return 0;
}

static int copy_tree(int from, int to, unsigned depth, struct err *err)
{
        if (depth > DEPTH_MAX)
                return err_plain(err, ELOOP, "tree is deeper than %d", DEPTH_MAX);
        int fd = fcntl(from, F_DUPFD_CLOEXEC, 0);
        auto_dir dir = fd < 0 ? NULL : fdopendir(fd);
        if (!dir)
                return err_set(err, errno, "list directory");
        for (struct dirent *entry; (entry = readdir(dir));) {
                if (streq(entry->d_name, ".") || streq(entry->d_name, ".."))
                        continue;
                int r = copy_entry(from, to, entry->d_name, depth, err);
                if (r < 0)
                        return r;
        }
        return 0;
}

int rootfs_copy_up(int from_fd, int to_fd, struct err *err)
{
        auto_fd from = openat(from_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        auto_fd to = openat(to_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (from < 0 || to < 0)
                return err_set(err, errno, "tmpcopyup");
        struct stat st;
        int r = copy_tree(from, to, 0, err);
        if (r < 0)
                return err_wrap(err, "tmpcopyup");
        if (fstat(from, &st) == 0)
                copy_attributes(from, to, &st);
        return 0;
}
