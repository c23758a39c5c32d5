#include "agent/tree_tar.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/str.h"
#include "base/table.h"

#define DEPTH_MAX         256
#define CHUNK             (256u << 10)
#define XATTRS_MAX        32
#define XATTR_NAMES_BYTES 16384
#define XATTR_VALUE_BYTES 65536

struct tar_walk {
        struct tar_writer *writer;
        uint64_t mount_id;
        const struct tree_ids *ids;
        struct table links; /* "device:inode" -> name in the archive */
        char *buffer;
        struct err *err;
};

static uint64_t mount_id_of(int dir_fd, const char *name)
{
        struct statx st;
        if (statx(dir_fd, name, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW, STATX_MNT_ID, &st) < 0 ||
            !(st.stx_mask & STATX_MNT_ID))
                return 0;
        return st.stx_mnt_id;
}

/* Attributes worth keeping, into arrays the caller frees. */
static size_t read_xattrs(int fd, struct tar_xattr *xattrs, char **ret_names)
{
        char *names = xmalloc(XATTR_NAMES_BYTES);
        ssize_t size = flistxattr(fd, names, XATTR_NAMES_BYTES);
        size_t length = 0;
        for (char *name = names; size > 0 && name < names + size && length < XATTRS_MAX;
             name += strlen(name) + 1) {
                if (!streq(name, "security.capability") && !str_starts(name, "user."))
                        continue;
                if (str_starts(name, "user.overlay.")) /* a machine's, of how its layers lie */
                        continue;
                char *value = xmalloc(XATTR_VALUE_BYTES);
                ssize_t n = fgetxattr(fd, name, value, XATTR_VALUE_BYTES);
                if (n < 0) {
                        free(value);
                        continue;
                }
                xattrs[length++] = (struct tar_xattr){ name, value, (size_t)n };
        }
        *ret_names = names;
        return length;
}

/* Exactly the announced size: what grew is cut, what shrank is filled with zeros. */
static int write_content(struct tar_walk *w, int fd, uint64_t size)
{
        while (size > 0) {
                size_t want = size < CHUNK ? (size_t)size : CHUNK;
                ssize_t n = io_read_full(fd, w->buffer, want);
                if (n < 0)
                        return err_set(w->err, (int)-n, "read");
                memset(w->buffer + n, 0, want - (size_t)n);
                int r = tar_writer_data(w->writer, w->buffer, want, w->err);
                if (r < 0)
                        return r;
                size -= want;
        }
        return 0;
}

/* An earlier name of the same file, or NULL (and `as` is remembered). */
static const char *earlier_name(struct tar_walk *w, const struct stat *st, const char *as)
{
        if (st->st_nlink < 2 || S_ISDIR(st->st_mode))
                return NULL;
        char key[64];
        snprintf(key, sizeof(key), "%llx:%llx", (unsigned long long)st->st_dev,
                 (unsigned long long)st->st_ino);
        char *earlier = table_get(&w->links, key);
        if (!earlier)
                table_put(&w->links, key, xstrdup(as));
        return earlier;
}

static int write_opened(struct tar_walk *w, struct tar_entry *entry, int fd)
{
        struct tar_xattr xattrs[XATTRS_MAX];
        auto_free char *names = NULL;
        entry->xattrs = xattrs;
        entry->xattrs_length = read_xattrs(fd, xattrs, &names);
        int r = tar_writer_entry(w->writer, entry, w->err);
        for (size_t i = 0; i < entry->xattrs_length; i++)
                free((void *)xattrs[i].value);
        entry->xattrs = NULL;
        entry->xattrs_length = 0;
        return r;
}

/* Outside of the range, an id is the host's: of a bind mount. Without one, first is 0. */
static uint32_t id_within(uint32_t id, uint32_t first, uint32_t count)
{
        return id >= first && id - first < count ? id - first : id;
}

static int walk(struct tar_walk *w, int dir_fd, const char *name, const char *as, unsigned level);

static int walk_directory(struct tar_walk *w, int fd, const char *as, unsigned level)
{
        int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        auto_dir dir = copy >= 0 ? fdopendir(copy) : NULL;
        if (!dir)
                return err_set(w->err, errno, "list");
        struct dirent *entry;
        while ((entry = readdir(dir))) {
                if (streq(entry->d_name, ".") || streq(entry->d_name, ".."))
                        continue;
                auto_free char *below = *as ? xasprintf("%s/%s", as, entry->d_name)
                                            : xstrdup(entry->d_name);
                int r = walk(w, fd, entry->d_name, below, level + 1);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int walk_opened(struct tar_walk *w, int dir_fd, const char *name, struct tar_entry *entry,
                       unsigned level)
{
        bool directory = S_ISDIR(entry->mode);
        auto_fd fd = openat(dir_fd, name,
                            O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC |
                                    (directory ? O_DIRECTORY : 0));
        if (fd < 0)
                return errno == ENOENT ? 0 : err_set(w->err, errno, "open '%s'", entry->path);
        struct stat st;
        if (fstat(fd, &st) < 0 || (st.st_mode & S_IFMT) != (entry->mode & S_IFMT))
                return 0; /* replaced meanwhile */
        entry->size_bytes = directory ? 0 : (uint64_t)st.st_size;
        int r = write_opened(w, entry, fd);
        if (r < 0)
                return r;
        return directory ? walk_directory(w, fd, entry->path, level)
                         : write_content(w, fd, entry->size_bytes);
}

static int walk(struct tar_walk *w, int dir_fd, const char *name, const char *as, unsigned level)
{
        struct stat st;
        if (level > DEPTH_MAX)
                return err_plain(w->err, ELOOP, "more than %d directories deep", DEPTH_MAX);
        if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
                return errno == ENOENT ? 0 : err_set(w->err, errno, "stat '%s'", as);
        if (S_ISSOCK(st.st_mode) || (w->mount_id && mount_id_of(dir_fd, name) != w->mount_id))
                return 0;
        char target[4097];
        struct tar_entry entry = {
                .path = *as ? as : ".",
                .mode = st.st_mode,
                .uid = id_within(st.st_uid, w->ids->first_uid, w->ids->uids),
                .gid = id_within(st.st_gid, w->ids->first_gid, w->ids->gids),
                .mtime_ns = st.st_mtim.tv_sec * NS_PER_S + st.st_mtim.tv_nsec,
                .dev_major = major(st.st_rdev),
                .dev_minor = minor(st.st_rdev),
        };
        const char *earlier = earlier_name(w, &st, as);
        if (earlier) {
                entry.link = earlier;
                entry.hard_link = true;
                entry.mode = S_IFREG | (st.st_mode & 07777);
                return tar_writer_entry(w->writer, &entry, w->err);
        }
        if (S_ISDIR(st.st_mode) || S_ISREG(st.st_mode))
                return walk_opened(w, dir_fd, name, &entry, level);
        if (S_ISLNK(st.st_mode)) {
                ssize_t n = readlinkat(dir_fd, name, target, sizeof(target) - 1);
                if (n < 0)
                        return errno == ENOENT ? 0 : err_set(w->err, errno, "read link '%s'", as);
                target[n] = '\0';
                entry.link = target;
        }
        return tar_writer_entry(w->writer, &entry, w->err);
}

int tree_tar(struct tar_writer *writer, int dir_fd, const char *name, const char *as,
             const struct tree_ids *ids, struct err *err)
{
        struct tar_walk w = {
                .writer = writer,
                .mount_id = mount_id_of(dir_fd, name),
                .ids = ids,
                .buffer = xmalloc(CHUNK),
                .err = err,
        };
        int r = walk(&w, dir_fd, name, as, 0);
        const struct table_entry *entry;
        for (size_t cursor = 0; (entry = table_next(&w.links, &cursor));)
                free(entry->value);
        table_finish(&w.links);
        free(w.buffer);
        return r;
}
