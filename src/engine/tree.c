#include "engine/tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"
#include "base/table.h"

#define DEPTH_MAX         256
#define XATTR_NAMES_BYTES 65536
#define XATTR_VALUE_BYTES 65536
#define COPY_CHUNK        (1u << 20)

static DIR *open_dir(int fd)
{
        int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        DIR *dir = copy >= 0 ? fdopendir(copy) : NULL;
        if (!dir && copy >= 0)
                close(copy);
        if (dir)
                rewinddir(dir);
        return dir;
}

static bool is_dots(const char *name)
{
        return streq(name, ".") || streq(name, "..");
}

bool tree_is_empty(int dir_fd)
{
        auto_dir dir = open_dir(dir_fd);
        struct dirent *entry;
        while (dir && (entry = readdir(dir)))
                if (!is_dots(entry->d_name))
                        return false;
        return true;
}

/* -- measuring ----------------------------------------------------------------- */

static uint64_t measure(int dir_fd, dev_t device, struct table *seen, unsigned level)
{
        uint64_t bytes = 0;
        auto_dir dir = open_dir(dir_fd);
        struct dirent *entry;
        while (dir && level < DEPTH_MAX && (entry = readdir(dir))) {
                struct stat st;
                if (is_dots(entry->d_name) ||
                    fstatat(dir_fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
                    st.st_dev != device)
                        continue;
                if (st.st_nlink > 1 && !S_ISDIR(st.st_mode)) {
                        char key[32];
                        snprintf(key, sizeof(key), "%llx", (unsigned long long)st.st_ino);
                        if (table_put(seen, key, seen))
                                continue;
                }
                bytes += (uint64_t)st.st_blocks * 512;
                if (!S_ISDIR(st.st_mode))
                        continue;
                auto_fd fd = openat(dir_fd, entry->d_name,
                                    O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
                if (fd >= 0)
                        bytes += measure(fd, device, seen, level + 1);
        }
        return bytes;
}

uint64_t tree_bytes(const char *path)
{
        auto_fd fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        struct stat st;
        if (fd < 0 || fstat(fd, &st) < 0)
                return 0;
        struct table seen = { 0 };
        uint64_t bytes = measure(fd, st.st_dev, &seen, 0);
        table_finish(&seen);
        return bytes;
}

/* -- copying ------------------------------------------------------------------- */

/* Attributes that cannot be set on the other side (another file system's) are left out. */
static void copy_xattrs(int from, int to)
{
        auto_free char *names = xmalloc(XATTR_NAMES_BYTES);
        auto_free char *value = xmalloc(XATTR_VALUE_BYTES);
        ssize_t size = flistxattr(from, names, XATTR_NAMES_BYTES);
        for (char *name = names; size > 0 && name < names + size; name += strlen(name) + 1) {
                ssize_t length = fgetxattr(from, name, value, XATTR_VALUE_BYTES);
                if (length >= 0 && !str_starts(name, "trusted.overlay.") &&
                    !str_starts(name, "user.overlay."))
                        fsetxattr(to, name, value, (size_t)length, 0);
        }
}

static int copy_metadata(int from, int to, const struct stat *st, struct err *err)
{
        const struct timespec times[2] = { st->st_atim, st->st_mtim };
        if (fchown(to, st->st_uid, st->st_gid) < 0 || fchmod(to, st->st_mode & 07777) < 0)
                return err_set(err, errno, "set owner and mode");
        copy_xattrs(from, to);
        futimens(to, times);
        return 0;
}

static int copy_bytes(int from, int to, struct err *err)
{
        for (;;) {
                ssize_t n = copy_file_range(from, NULL, to, NULL, COPY_CHUNK, 0);
                if (n == 0)
                        return 0;
                if (n > 0 || errno == EINTR)
                        continue;
                if (errno != EXDEV && errno != EINVAL && errno != ENOSYS && errno != EOPNOTSUPP)
                        return err_set(err, errno, "copy");
                break;
        }
        auto_free char *buffer = xmalloc(COPY_CHUNK);
        for (;;) {
                ssize_t n = io_read_full(from, buffer, COPY_CHUNK);
                if (n <= 0)
                        return n < 0 ? err_set(err, (int)-n, "copy") : 0;
                int r = io_write_full(to, buffer, (size_t)n);
                if (r < 0)
                        return err_set(err, -r, "copy");
        }
}

static int copy_file(int from_dir, int to_dir, const char *name, const struct stat *st,
                     struct err *err)
{
        auto_fd from = openat(from_dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
        auto_fd to = from < 0 ? -1
                              : openat(to_dir, name,
                                       O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (from < 0 || to < 0)
                return err_set(err, errno, "open");
        int r = copy_bytes(from, to, err);
        return r < 0 ? r : copy_metadata(from, to, st, err);
}

static int copy_special(int from_dir, int to_dir, const char *name, const struct stat *st,
                        struct err *err)
{
        if (S_ISLNK(st->st_mode)) {
                char target[4096];
                ssize_t n = readlinkat(from_dir, name, target, sizeof(target) - 1);
                if (n < 0)
                        return err_set(err, errno, "read link");
                target[n] = '\0';
                if (symlinkat(target, to_dir, name) < 0)
                        return err_set(err, errno, "make link");
        } else if (S_ISSOCK(st->st_mode)) {
                return 0;
        } else if (mknodat(to_dir, name, st->st_mode, st->st_rdev) < 0) {
                return err_set(err, errno, "make node");
        }
        if (fchownat(to_dir, name, st->st_uid, st->st_gid, AT_SYMLINK_NOFOLLOW) < 0)
                return err_set(err, errno, "set owner");
        return 0;
}

static int copy_entries(int from, int to, dev_t device, unsigned level, struct err *err);

static int copy_directory(int from_dir, int to_dir, const char *name, const struct stat *st,
                          unsigned level, struct err *err)
{
        int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
        if (level >= DEPTH_MAX)
                return err_plain(err, ELOOP, "more than %d directories deep", DEPTH_MAX);
        if (mkdirat(to_dir, name, 0700) < 0)
                return err_set(err, errno, "make directory");
        auto_fd from = openat(from_dir, name, flags), to = openat(to_dir, name, flags);
        if (from < 0 || to < 0)
                return err_set(err, errno, "open");
        int r = copy_entries(from, to, st->st_dev, level + 1, err);
        return r < 0 ? r : copy_metadata(from, to, st, err);
}

static int copy_entries(int from, int to, dev_t device, unsigned level, struct err *err)
{
        auto_dir dir = open_dir(from);
        if (!dir)
                return err_set(err, errno, "list");
        struct dirent *entry;
        while ((entry = readdir(dir))) {
                const char *name = entry->d_name;
                struct stat st;
                if (is_dots(name))
                        continue;
                if (fstatat(from, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
                        return err_set(err, errno, "stat '%s'", name);
                int r = 0;
                if (S_ISDIR(st.st_mode) && st.st_dev == device)
                        r = copy_directory(from, to, name, &st, level, err);
                else if (S_ISREG(st.st_mode))
                        r = copy_file(from, to, name, &st, err);
                else if (!S_ISDIR(st.st_mode))
                        r = copy_special(from, to, name, &st, err);
                if (r < 0) {
                        err_wrap(err, "'%s'", name);
                        return r;
                }
        }
        return 0;
}

int tree_copy(int from_fd, int to_fd, struct err *err)
{
        struct stat st;
        if (fstat(from_fd, &st) < 0)
                return err_set(err, errno, "stat");
        int r = copy_entries(from_fd, to_fd, st.st_dev, 0, err);
        return r < 0 ? r : copy_metadata(from_fd, to_fd, &st, err);
}
