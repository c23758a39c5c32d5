#include "agent/extract.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/str.h"
#include "sys/resolve.h"

/* "a/b" of an entry, "" for the place itself; NULL for a name that leads out. Heap. */
static char *entry_path(const char *name)
{
        char *clean = xmalloc(strlen(name) + 2), *at = clean;
        auto_strv parts = str_split(name, '/');
        for (char **part = parts; *part; part++) {
                if (!**part || streq(*part, "."))
                        continue;
                if (streq(*part, "..")) {
                        free(clean);
                        return NULL;
                }
                if (at > clean)
                        *at++ = '/';
                at = stpcpy(at, *part);
        }
        *at = '\0';
        return clean;
}

static int apply_metadata(const struct extract *to, int dir_fd, const char *name,
                          const struct tar_entry *entry, struct err *err)
{
        uid_t uid = to->has_owner ? to->uid : entry->uid;
        gid_t gid = to->has_owner ? to->gid : entry->gid;
        if (to->shifts && (uid >= to->uids || gid >= to->gids))
                return err_plain(err, EINVAL, "owner %u:%u of '%s' has no id in the container", uid,
                                 gid, entry->path);
        if (fchownat(dir_fd, name, to->first_uid + uid, to->first_gid + gid, AT_SYMLINK_NOFOLLOW) <
            0)
                return err_set(err, errno, "set the owner of '%s'", entry->path);
        if (!S_ISLNK(entry->mode)) {
                /* An O_PATH descriptor cannot be replaced by a link in between. */
                auto_fd fd = openat(dir_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
                auto_free char *self = xasprintf("/proc/self/fd/%d", fd);
                if (fd < 0 || chmod(self, entry->mode & 07777) < 0)
                        return err_set(err, errno, "set the mode of '%s'", entry->path);
                for (size_t i = 0; i < entry->xattrs_length; i++)
                        setxattr(self, entry->xattrs[i].name, entry->xattrs[i].value,
                                 entry->xattrs[i].size_bytes, 0);
        }
        struct timespec time = { entry->mtime_ns / NS_PER_S, entry->mtime_ns % NS_PER_S };
        if (time.tv_nsec < 0) {
                time.tv_nsec += NS_PER_S;
                time.tv_sec--;
        }
        const struct timespec times[2] = { time, time };
        utimensat(dir_fd, name, times, AT_SYMLINK_NOFOLLOW);
        return 0;
}

static int put_regular(struct tar_reader *reader, int dir_fd, const char *name,
                       const struct tar_entry *entry, struct err *err)
{
        auto_fd fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                            0600);
        if (fd < 0)
                return err_set(err, errno, "create '%s'", entry->path);
        const void *data;
        size_t size;
        uint64_t offset;
        int r;
        while ((r = tar_reader_data(reader, &data, &size, &offset, err)) > 0) {
                r = io_pwrite_full(fd, data, size, offset);
                if (r < 0)
                        return err_set(err, -r, "write '%s'", entry->path);
        }
        if (r == 0 && ftruncate(fd, (off_t)entry->size_bytes) < 0)
                return err_set(err, errno, "write '%s'", entry->path);
        return r;
}

static int put_hard_link(const struct extract *to, int dir_fd, const char *name,
                         const struct tar_entry *entry, struct err *err)
{
        auto_free char *target = entry_path(entry->link);
        if (!target)
                return err_plain(err, EINVAL, "invalid link target '%s' in the archive",
                                 entry->link);
        auto_free char *whole = xasprintf("%s/%s", to->base, target);
        auto_fd to_dir = -1;
        auto_free char *to_name = NULL;
        int r = resolve_parent(to->root_fd, whole, &to_dir, &to_name, err);
        if (r < 0)
                return r;
        if (linkat(to_dir, to_name, dir_fd, name, 0) < 0)
                return err_set(err, errno, "link '%s' to '%s'", entry->path, entry->link);
        return 0;
}

static int put_new(const struct extract *to, struct tar_reader *reader, int dir_fd,
                   const char *name, const struct tar_entry *entry, struct err *err)
{
        if (entry->hard_link)
                return put_hard_link(to, dir_fd, name, entry, err);
        int r = 0;
        if (S_ISREG(entry->mode))
                r = put_regular(reader, dir_fd, name, entry, err);
        else if (S_ISDIR(entry->mode) && mkdirat(dir_fd, name, 0700) < 0)
                r = err_set(err, errno, "make directory '%s'", entry->path);
        else if (S_ISLNK(entry->mode) && symlinkat(entry->link, dir_fd, name) < 0)
                r = err_set(err, errno, "make link '%s'", entry->path);
        else if ((S_ISCHR(entry->mode) || S_ISBLK(entry->mode) || S_ISFIFO(entry->mode)) &&
                 mknodat(dir_fd, name, entry->mode, makedev(entry->dev_major, entry->dev_minor)) <
                         0)
                r = err_set(err, errno, "make node '%s'", entry->path);
        return r < 0 ? r : apply_metadata(to, dir_fd, name, entry, err);
}

/* Takes away what is there, where the archive has something else. 1: a directory that stays. */
static int make_room(const struct extract *to, int dir_fd, const char *name,
                     const struct tar_entry *entry, struct err *err)
{
        struct stat st;
        if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
                return errno == ENOENT ? 0 : err_set(err, errno, "stat '%s'", entry->path);
        bool is_dir = S_ISDIR(st.st_mode), wants_dir = S_ISDIR(entry->mode) && !entry->hard_link;
        if (is_dir && wants_dir)
                return 1;
        if (to->no_overwrite_dir_non_dir && is_dir != wants_dir)
                return err_plain(err, EINVAL,
                                 is_dir ? "cannot overwrite directory \"%s\" with non-directory "
                                          "\"%s\""
                                        : "cannot overwrite non-directory \"%s\" with directory "
                                          "\"%s\"",
                                 to->path, entry->path);
        return file_remove_tree(dir_fd, name, err);
}

static int put_entry(const struct extract *to, struct tar_reader *reader,
                     const struct tar_entry *entry, struct err *err)
{
        auto_free char *path = entry_path(entry->path);
        if (!path)
                return err_plain(err, EINVAL, "invalid name '%s' in the archive", entry->path);
        if (!*path)
                return 0; /* the place itself keeps what it has */
        auto_free char *whole = xasprintf("%s/%s", to->base, path);
        auto_fd dir_fd = -1;
        auto_free char *name = NULL;
        int r = resolve_parent(to->root_fd, whole, &dir_fd, &name, err);
        if (r == 0)
                r = make_room(to, dir_fd, name, entry, err);
        if (r < 0)
                return r;
        if (r == 1)
                return apply_metadata(to, dir_fd, name, entry, err);
        return put_new(to, reader, dir_fd, name, entry, err);
}

int extract_refuse_read_only(struct err *err)
{
        return err_plain(err, EINVAL, "container rootfs or volume is marked read-only");
}

int extract_check(const struct extract *to, struct err *err)
{
        auto_fd place = -1;
        struct statvfs st;
        int r = resolve_open(to->root_fd, to->base, O_PATH | O_DIRECTORY | O_CLOEXEC, 0, &place,
                             err);
        if (r == -ENOTDIR)
                return err_plain(err, EINVAL, "extraction point is not a directory");
        if (r == -ENOENT)
                return err_plain(err, ENOENT, "Could not find the file %s in container %s",
                                 to->path, to->container);
        if (r == 0 && (to->read_only || (fstatvfs(place, &st) == 0 && st.f_flag & ST_RDONLY)))
                return extract_refuse_read_only(err);
        return r;
}

int extract_archive(const struct extract *to, struct tar_reader *reader, struct err *err)
{
        struct tar_entry entry;
        int r;
        while ((r = tar_reader_next(reader, &entry, err)) > 0) {
                r = put_entry(to, reader, &entry, err);
                if (r < 0)
                        return r;
        }
        return r;
}
