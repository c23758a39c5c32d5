#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/str.h"
#include "cli/path.h"
#include "cli/tree.h"

/* Times and modes of directories are set last: making files in them changes the
 * times, and a read-only mode would be in the way. */
struct made_directory {
        char *path;
        mode_t mode;
        int64_t mtime_ns;
};

struct unpacker {
        int root_fd;
        const char *old_base, *new_base;
        struct made_directory *directories;
        size_t length;
};

static int open_beneath(int root_fd, const char *path, uint64_t flags)
{
        struct open_how how = {
                .flags = flags | O_CLOEXEC,
                .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS,
        };
        return (int)syscall(SYS_openat2, root_fd, *path ? path : ".", &how, sizeof(how));
}

/* The place below the root: no empty parts or ".", the base replaced. -EINVAL for
 * what leads out. */
static int place_of(const struct unpacker *unpacker, const char *name, char **ret, struct err *err)
{
        const char *old_base = unpacker->old_base, *new_base = unpacker->new_base;
        auto_strv parts = str_split(name, '/');
        auto_strv kept = NULL;
        bool whole = new_base && (!*old_base || streq(old_base, "."));
        if (whole)
                strv_push(&kept, new_base);
        for (char **part = parts; *part; part++) {
                if (streq(*part, ".."))
                        return err_plain(err, EINVAL, "refusing archive entry '%s': it leads out",
                                         name);
                if (!**part || streq(*part, "."))
                        continue;
                bool renamed = new_base && !kept && streq(*part, old_base);
                strv_push(&kept, renamed ? new_base : *part);
        }
        *ret = strv_join(kept, "/");
        return 0;
}

/* Opens the directory that holds `path`, made where it is missing. */
static int open_parent(const struct unpacker *unpacker, const char *path, int *ret_fd,
                       char **ret_base, struct err *err)
{
        auto_free char *directory = NULL;
        path_split(path, &directory, ret_base);
        auto_fd fd = open_beneath(unpacker->root_fd, directory, O_RDONLY | O_DIRECTORY);
        if (fd < 0 && errno == ENOENT && !streq(directory, ".")) {
                auto_fd above = -1;
                auto_free char *name = NULL;
                int r = open_parent(unpacker, directory, &above, &name, err);
                if (r < 0)
                        return r;
                if (mkdirat(above, name, 0755) < 0 && errno != EEXIST)
                        return err_set(err, errno, "mkdir %s", directory);
                fd = open_beneath(unpacker->root_fd, directory, O_RDONLY | O_DIRECTORY);
        }
        if (fd < 0)
                return err_set(err, errno, "open %s", directory);
        *ret_fd = take_fd(fd);
        return 0;
}

static struct timespec when(int64_t time_ns)
{
        int64_t fraction = time_ns % NS_PER_S;
        fraction += fraction < 0 ? NS_PER_S : 0;
        return (struct timespec){ .tv_sec = (time_ns - fraction) / NS_PER_S, .tv_nsec = fraction };
}

static int unpack_data(struct tar_reader *reader, int fd, const char *path, struct err *err)
{
        const void *data;
        size_t size;
        uint64_t offset;
        for (;;) {
                int r = tar_reader_data(reader, &data, &size, &offset, err);
                if (r <= 0)
                        return r;
                r = io_pwrite_full(fd, data, size, offset);
                if (r < 0)
                        return err_set(err, -r, "write %s", path);
        }
}

static void set_xattrs(int fd, const struct tar_entry *entry)
{
        for (size_t i = 0; i < entry->xattrs_length; i++)
                if (str_starts(entry->xattrs[i].name, "user."))
                        fsetxattr(fd, entry->xattrs[i].name, entry->xattrs[i].value,
                                  entry->xattrs[i].size_bytes, 0);
}

static int unpack_file(struct tar_reader *reader, const struct tar_entry *entry, int parent_fd,
                       const char *base, const char *path, struct err *err)
{
        auto_fd fd = openat(parent_fd, base, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                            0600);
        if (fd < 0)
                return err_set(err, errno, "create %s", path);
        set_xattrs(fd, entry);
        mode_t mode = entry->mode & 07777;
        struct timespec times[2] = { { .tv_nsec = UTIME_NOW }, when(entry->mtime_ns) };
        uint64_t size_bytes = entry->size_bytes;
        int r = unpack_data(reader, fd, path, err);
        if (r < 0)
                return r;
        if (ftruncate(fd, (off_t)size_bytes) < 0 || fchmod(fd, mode) < 0 || futimens(fd, times) < 0)
                return err_set(err, errno, "finish %s", path);
        return 0;
}

static int unpack_directory(struct unpacker *unpacker, const struct tar_entry *entry, int parent_fd,
                            const char *base, const char *path, struct err *err)
{
        /* "" and "." are the root, which stays as it is. */
        if (*path && mkdirat(parent_fd, base, 0700) < 0 && errno != EEXIST)
                return err_set(err, errno, "mkdir %s", path);
        unpacker->directories = xrealloc(unpacker->directories, unpacker->length + 1,
                                         sizeof(*unpacker->directories));
        unpacker->directories[unpacker->length++] = (struct made_directory){
                .path = xstrdup(path),
                .mode = entry->mode & 07777,
                .mtime_ns = entry->mtime_ns,
        };
        return 0;
}

static int unpack_link(const struct unpacker *unpacker, const struct tar_entry *entry,
                       int parent_fd, const char *base, const char *path, struct err *err)
{
        auto_free char *target = NULL, *target_base = NULL;
        auto_fd target_fd = -1;
        int r = place_of(unpacker, entry->link, &target, err);
        if (r == 0)
                r = open_parent(unpacker, target, &target_fd, &target_base, err);
        if (r < 0)
                return r;
        if (linkat(target_fd, target_base, parent_fd, base, 0) < 0)
                return err_set(err, errno, "link %s to %s", path, target);
        return 0;
}

static int unpack_special(const struct tar_entry *entry, int parent_fd, const char *base,
                          const char *path, struct err *err)
{
        struct timespec times[2] = { { .tv_nsec = UTIME_NOW }, when(entry->mtime_ns) };
        int r;
        if (S_ISLNK(entry->mode))
                r = symlinkat(entry->link, parent_fd, base);
        else
                r = mknodat(parent_fd, base, entry->mode,
                            makedev(entry->dev_major, entry->dev_minor));
        if (r < 0)
                return err_set(err, errno, "create %s", path);
        utimensat(parent_fd, base, times, AT_SYMLINK_NOFOLLOW);
        return 0;
}

/* Makes way: a file may be replaced, but neither by nor for a directory. */
static int clear_way(const struct tar_entry *entry, int parent_fd, const char *base,
                     const char *path, struct err *err)
{
        struct stat st;
        if (!*base || fstatat(parent_fd, base, &st, AT_SYMLINK_NOFOLLOW) < 0)
                return 0;
        bool directory = S_ISDIR(entry->mode);
        if (directory && S_ISDIR(st.st_mode))
                return 0;
        if (directory && S_ISLNK(st.st_mode)) {
                auto_fd fd = open_beneath(parent_fd, base, O_PATH | O_DIRECTORY);
                if (fd >= 0)
                        return 0;
        }
        if (directory)
                return err_plain(err, ENOTDIR, "cannot overwrite non-directory %s with directory",
                                 path);
        if (S_ISDIR(st.st_mode))
                return err_plain(err, EISDIR, "cannot overwrite directory %s with non-directory",
                                 path);
        if (unlinkat(parent_fd, base, 0) < 0)
                return err_set(err, errno, "replace %s", path);
        return 0;
}

static int unpack_entry(struct unpacker *unpacker, struct tar_reader *reader,
                        const struct tar_entry *entry, struct err *err)
{
        auto_free char *path = NULL, *base = NULL;
        auto_fd parent_fd = -1;
        int r = place_of(unpacker, entry->path, &path, err);
        if (r < 0)
                return r;
        if (!*path)
                return S_ISDIR(entry->mode)
                               ? 0
                               : err_plain(err, EINVAL, "refusing archive entry '%s': no name",
                                           entry->path);
        r = open_parent(unpacker, path, &parent_fd, &base, err);
        if (r == 0)
                r = clear_way(entry, parent_fd, base, path, err);
        if (r < 0)
                return r;
        if (entry->hard_link)
                return unpack_link(unpacker, entry, parent_fd, base, path, err);
        if (S_ISDIR(entry->mode))
                return unpack_directory(unpacker, entry, parent_fd, base, path, err);
        if (S_ISREG(entry->mode))
                return unpack_file(reader, entry, parent_fd, base, path, err);
        return unpack_special(entry, parent_fd, base, path, err);
}

static void finish_directories(struct unpacker *unpacker)
{
        for (size_t i = unpacker->length; i-- > 0;) {
                struct made_directory *made = &unpacker->directories[i];
                struct timespec times[2] = { { .tv_nsec = UTIME_NOW }, when(made->mtime_ns) };
                auto_fd fd = open_beneath(unpacker->root_fd, made->path, O_RDONLY | O_DIRECTORY);
                if (fd >= 0) {
                        (void)!fchmod(fd, made->mode);
                        (void)!futimens(fd, times);
                }
                free(made->path);
        }
        free(unpacker->directories);
}

int tree_unpack(int root_fd, const char *old_base, const char *new_base, tar_read *read, void *arg,
                struct err *err)
{
        struct unpacker unpacker = { .root_fd = root_fd,
                                     .old_base = old_base,
                                     .new_base = new_base };
        auto_tar_reader reader = NULL;
        struct tar_entry entry;
        int r = tar_reader_create(read, arg, NULL, &reader, err);
        while (r >= 0 && (r = tar_reader_next(reader, &entry, err)) > 0)
                r = unpack_entry(&unpacker, reader, &entry, err);
        if (r == 0)
                r = tar_reader_drain(reader, err);
        finish_directories(&unpacker);
        return r;
}
