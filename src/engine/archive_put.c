/* docker cp into an instance: a tar stream unpacked at a place in it.
 *
 * Names in the archive are relative to that place; ".." is refused. Every file is made by a
 * descriptor of its directory, resolved inside the instance's root, so that neither links
 * in the archive nor those in the instance lead out of it. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "codec/compress.h"
#include "codec/tar.h"
#include "engine/archive.h"
#include "engine/core.h"
#include "engine/tar_source.h"
#include "engine/users.h"
#include "engine/view.h"
#include "sys/resolve.h"

struct put_job {
        struct engine *engine;
        struct view *view;
        char *path;
        struct archive_put_options options;
        int body_fd;
        bool has_owner;
        uint32_t uid, gid;
        int root_fd;
        char *base; /* beneath root_fd */
        int r;
        struct err err;
        engine_done *done;
        void *arg;
};

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

static int apply_metadata(const struct put_job *job, int dir_fd, const char *name,
                          const struct tar_entry *entry, struct err *err)
{
        uid_t uid = job->has_owner ? job->uid : entry->uid;
        gid_t gid = job->has_owner ? job->gid : entry->gid;
        const struct id_remap *remap = &job->view->remap;
        if (remap->on && (uid >= remap->uids || gid >= remap->gids))
                return err_plain(err, EINVAL, "owner %u:%u of '%s' has no id in the container", uid,
                                 gid, entry->path);
        if (fchownat(dir_fd, name, remap->uid + uid, remap->gid + gid, AT_SYMLINK_NOFOLLOW) < 0)
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
                const char *at = data;
                while (size > 0) {
                        ssize_t n = pwrite(fd, at, size, (off_t)offset);
                        if (n < 0 && errno == EINTR)
                                continue;
                        if (n < 0)
                                return err_set(err, errno, "write '%s'", entry->path);
                        at += n;
                        size -= (size_t)n;
                        offset += (uint64_t)n;
                }
        }
        if (r == 0 && ftruncate(fd, (off_t)entry->size_bytes) < 0)
                return err_set(err, errno, "write '%s'", entry->path);
        return r;
}

static int put_hard_link(const struct put_job *job, int dir_fd, const char *name,
                         const struct tar_entry *entry, struct err *err)
{
        auto_free char *target = entry_path(entry->link);
        if (!target)
                return err_plain(err, EINVAL, "invalid link target '%s' in the archive",
                                 entry->link);
        auto_free char *whole = xasprintf("%s/%s", job->base, target);
        auto_fd to_dir = -1;
        auto_free char *to_name = NULL;
        int r = resolve_parent(job->root_fd, whole, &to_dir, &to_name, err);
        if (r < 0)
                return r;
        if (linkat(to_dir, to_name, dir_fd, name, 0) < 0)
                return err_set(err, errno, "link '%s' to '%s'", entry->path, entry->link);
        return 0;
}

static int put_new(const struct put_job *job, struct tar_reader *reader, int dir_fd,
                   const char *name, const struct tar_entry *entry, struct err *err)
{
        if (entry->hard_link)
                return put_hard_link(job, dir_fd, name, entry, err);
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
        return r < 0 ? r : apply_metadata(job, dir_fd, name, entry, err);
}

/* Takes away what is there, where the archive has something else. 1: a directory that stays. */
static int make_room(const struct put_job *job, int dir_fd, const char *name,
                     const struct tar_entry *entry, struct err *err)
{
        struct stat st;
        if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
                return errno == ENOENT ? 0 : err_set(err, errno, "stat '%s'", entry->path);
        bool is_dir = S_ISDIR(st.st_mode), wants_dir = S_ISDIR(entry->mode) && !entry->hard_link;
        if (is_dir && wants_dir)
                return 1;
        if (job->options.no_overwrite_dir_non_dir && is_dir != wants_dir)
                return err_plain(err, EINVAL,
                                 is_dir ? "cannot overwrite directory \"%s\" with non-directory "
                                          "\"%s\""
                                        : "cannot overwrite non-directory \"%s\" with directory "
                                          "\"%s\"",
                                 job->path, entry->path);
        return file_remove_tree(dir_fd, name, err);
}

static int put_entry(const struct put_job *job, struct tar_reader *reader,
                     const struct tar_entry *entry, struct err *err)
{
        auto_free char *path = entry_path(entry->path);
        if (!path)
                return err_plain(err, EINVAL, "invalid name '%s' in the archive", entry->path);
        if (!*path)
                return 0; /* the place itself keeps what it has */
        auto_free char *whole = xasprintf("%s/%s", job->base, path);
        auto_fd dir_fd = -1;
        auto_free char *name = NULL;
        int r = resolve_parent(job->root_fd, whole, &dir_fd, &name, err);
        if (r == 0)
                r = make_room(job, dir_fd, name, entry, err);
        if (r < 0)
                return r;
        if (r == 1)
                return apply_metadata(job, dir_fd, name, entry, err);
        return put_new(job, reader, dir_fd, name, entry, err);
}

static int open_place(struct put_job *job, struct err *err)
{
        bool read_only = false;
        int r = view_open(job->view, err);
        if (r == 0)
                r = view_locate(job->view, job->path, &job->root_fd, &job->base, &read_only, err);
        if (r < 0)
                return r;
        auto_fd place = -1;
        r = resolve_open(job->root_fd, job->base, O_PATH | O_DIRECTORY | O_CLOEXEC, 0, &place, err);
        if (r == -ENOTDIR)
                return err_plain(err, EINVAL, "extraction point is not a directory");
        if (r == -ENOENT)
                return err_plain(err, ENOENT, "Could not find the file %s in container %s",
                                 job->path, job->view->instance->name);
        if (r == 0 && read_only && job->view->is_look && !job->view->read_only_root)
                return err_plain(err, ENOTSUP,
                                 "files cannot be put beside the layers of a running virtual "
                                 "machine (--vm-rootfs erofs): its kernel would not see them; "
                                 "stop it before, or put them in a volume");
        if (r == 0 && read_only)
                return err_plain(err, EINVAL, "container rootfs or volume is marked read-only");
        return r;
}

static int find_owner(struct put_job *job, struct err *err)
{
        const char *user = job->view->instance->spec.config.user;
        if (!job->options.copy_uid_gid || str_empty(user))
                return 0;
        struct user_found found;
        int r = user_lookup(job->view->root_fd, user, NULL, &found, err);
        if (r < 0)
                return r;
        job->has_owner = true;
        job->uid = found.uid;
        job->gid = found.gid;
        user_found_finish(&found);
        return 0;
}

static int put(struct put_job *job, struct err *err)
{
        int r = open_place(job, err);
        if (r == 0)
                r = find_owner(job, err);
        if (r < 0)
                return r;
        auto_tar_source source = NULL;
        r = tar_source_create(job->body_fd, &source, err);
        auto_tar_reader reader = NULL;
        if (r == 0)
                r = tar_reader_create(tar_source_read, source, NULL, &reader, err);
        if (r == 0)
                r = remap_enter(&job->view->remap, err);
        struct tar_entry entry;
        while (r >= 0 && (r = tar_reader_next(reader, &entry, err)) > 0)
                r = put_entry(job, reader, &entry, err);
        remap_leave(&job->view->remap);
        /* To the very end, so that whoever sends it is known to have sent it all. */
        const void *rest;
        while (r == 0 && tar_source_read(source, &rest, NULL) > 0)
                ;
        return r;
}

static void put_in_worker(void *arg)
{
        struct put_job *job = arg;
        if (job->r == 0)
                job->r = put(job, &job->err);
}

static void put_done(void *arg)
{
        struct put_job *job = arg;
        job->done(job->arg, job->r < 0 ? job->r : 0, job->r < 0 ? &job->err : NULL);
        view_unref(job->view);
        close_fd(&job->body_fd);
        close_fd(&job->root_fd);
        free(job->base);
        free(job->path);
        free(job);
}

void instance_archive_put(struct instance *instance, const char *path,
                          const struct archive_put_options *options, int body_fd, engine_done *done,
                          void *arg)
{
        struct put_job *job = new0(struct put_job);
        *job = (struct put_job){
                .engine = instance_engine(instance),
                .path = xstrdup(path),
                .options = *options,
                .body_fd = body_fd,
                .root_fd = -1,
                .done = done,
                .arg = arg,
        };
        INSTANCE_EVENT(instance, "extract-to-dir");
        job->r = view_create(instance, &job->view, &job->err);
        workers_submit(job->engine->streams, put_in_worker, put_done, job);
}
