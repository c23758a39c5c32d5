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
#include "base/str.h"
#include "base/table.h"
#include "cli/tree.h"

#define CHUNK_SIZE          65536
#define LINK_SIZE           4096
#define CAPABILITY_SIZE_MAX 1024
#define DEPTH_MAX           512

struct packer {
        struct tar_writer *writer;
        struct table linked; /* "device:inode" to the first name, for files with several */
        int depth;
};

static int pack_data(struct packer *packer, int fd, const char *name, uint64_t size_bytes,
                     struct err *err)
{
        static char chunk[CHUNK_SIZE];
        while (size_bytes > 0) {
                size_t wanted = size_bytes < sizeof(chunk) ? (size_t)size_bytes : sizeof(chunk);
                ssize_t n = read(fd, chunk, wanted);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return err_set(err, errno, "read %s", name);
                if (n == 0)
                        return err_plain(err, EIO, "%s became shorter while it was read", name);
                int r = tar_writer_data(packer->writer, chunk, (size_t)n, err);
                if (r < 0)
                        return r;
                size_bytes -= (uint64_t)n;
        }
        return 0;
}

/* A file with several names is written once; true with the former name. */
static bool seen_before(struct packer *packer, const struct stat *st, const char *name,
                        const char **ret_first)
{
        char key[64];
        if (st->st_nlink < 2)
                return false;
        snprintf(key, sizeof(key), "%llu:%llu", (unsigned long long)st->st_dev,
                 (unsigned long long)st->st_ino);
        *ret_first = table_get(&packer->linked, key);
        if (*ret_first)
                return true;
        table_put(&packer->linked, key, xstrdup(name));
        return false;
}

static int pack_file(struct packer *packer, int parent_fd, const char *file, const char *name,
                     const struct stat *st, bool follow, struct tar_entry *entry, struct err *err)
{
        char value[CAPABILITY_SIZE_MAX];
        struct tar_xattr capability = { .name = "security.capability", .value = value };
        const char *first;
        if (seen_before(packer, st, name, &first)) {
                entry->link = first;
                entry->hard_link = true;
                return tar_writer_entry(packer->writer, entry, err);
        }
        auto_fd fd = openat(parent_fd, file, O_RDONLY | O_CLOEXEC | (follow ? 0 : O_NOFOLLOW));
        if (fd < 0)
                return err_set(err, errno, "open %s", name);
        ssize_t size = fgetxattr(fd, capability.name, value, sizeof(value));
        struct tar_entry whole = *entry;
        if (size > 0) {
                capability.size_bytes = (size_t)size;
                whole.xattrs = &capability;
                whole.xattrs_length = 1;
        }
        whole.size_bytes = (uint64_t)st->st_size;
        int r = tar_writer_entry(packer->writer, &whole, err);
        return r < 0 ? r : pack_data(packer, fd, name, whole.size_bytes, err);
}

static int pack_any(struct packer *packer, int parent_fd, const char *file, const char *name,
                    bool follow, struct err *err);

static int pack_directory(struct packer *packer, int parent_fd, const char *file, const char *name,
                          struct err *err)
{
        int fd = openat(parent_fd, file, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        auto_dir dir = fd < 0 ? NULL : fdopendir(fd);
        if (!dir)
                return err_set(err, errno, "open %s", name);
        if (++packer->depth > DEPTH_MAX)
                return err_plain(err, ELOOP, "%s is nested too deeply", name);
        for (;;) {
                errno = 0;
                const struct dirent *item = readdir(dir);
                if (!item && errno)
                        return err_set(err, errno, "read %s", name);
                if (!item)
                        break;
                if (streq(item->d_name, ".") || streq(item->d_name, ".."))
                        continue;
                auto_free char *below = xasprintf("%s/%s", name, item->d_name);
                int r = pack_any(packer, dirfd(dir), item->d_name, below, false, err);
                if (r < 0)
                        return r;
        }
        packer->depth--;
        return 0;
}

static int pack_any(struct packer *packer, int parent_fd, const char *file, const char *name,
                    bool follow, struct err *err)
{
        struct stat st;
        char link[LINK_SIZE];
        if (fstatat(parent_fd, file, &st, follow ? 0 : AT_SYMLINK_NOFOLLOW) < 0)
                return err_set(err, errno, "lstat %s", name);
        struct tar_entry entry = {
                .path = name,
                .mode = st.st_mode,
                .uid = st.st_uid,
                .gid = st.st_gid,
                .mtime_ns = st.st_mtim.tv_sec * NS_PER_S + st.st_mtim.tv_nsec,
                .dev_major = major(st.st_rdev),
                .dev_minor = minor(st.st_rdev),
        };
        if (S_ISSOCK(st.st_mode))
                return 0;
        if (S_ISREG(st.st_mode))
                return pack_file(packer, parent_fd, file, name, &st, follow, &entry, err);
        if (S_ISLNK(st.st_mode)) {
                ssize_t length = readlinkat(parent_fd, file, link, sizeof(link) - 1);
                if (length < 0)
                        return err_set(err, errno, "read link %s", name);
                link[length] = '\0';
                entry.link = link;
        }
        int r = tar_writer_entry(packer->writer, &entry, err);
        if (r == 0 && S_ISDIR(st.st_mode))
                r = pack_directory(packer, parent_fd, file, name, err);
        return r;
}

int tree_pack(const char *path, const char *name, bool follow, tar_write *write, void *arg,
              struct err *err)
{
        auto_tar_writer writer = NULL;
        int r = tar_writer_create(write, arg, &writer, err);
        if (r < 0)
                return r;
        struct packer packer = { .writer = writer };
        r = pack_any(&packer, AT_FDCWD, path, name, follow, err);
        if (r == 0)
                r = tar_writer_finish(writer, err);
        size_t cursor = 0;
        for (const struct table_entry *entry; (entry = table_next(&packer.linked, &cursor));)
                free(entry->value);
        table_finish(&packer.linked);
        return r;
}
