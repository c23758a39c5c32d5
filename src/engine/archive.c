#include "engine/archive.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "codec/json.h"
#include "codec/tar.h"
#include "engine/core.h"
#include "engine/mounts.h"
#include "engine/operation.h"
#include "engine/tree_tar.h"
#include "engine/view.h"
#include "sys/resolve.h"

enum archive_kind { ARCHIVE_STAT, ARCHIVE_GET, ARCHIVE_EXPORT };

struct archive_job {
        struct engine *engine;
        enum archive_kind kind;
        struct view *view;
        char *path;
        struct archive_stat stat;
        int dir_fd; /* directory of what is read */
        char *name; /* in it */
        char *as;   /* its name in the archive */
        int out_fd;
        int r;
        struct err err;
        archive_done *done;
        void *arg;
};

static void job_free(struct archive_job *job)
{
        view_unref(job->view);
        close_fd(&job->dir_fd);
        close_fd(&job->out_fd);
        free(job->path);
        free(job->name);
        free(job->as);
        free(job->stat.name);
        free(job->stat.link_target);
        free(job);
}

/* -- stat ---------------------------------------------------------------------- */

/* Go's os.FileMode, which docker's header has. */
static uint32_t go_mode(mode_t mode)
{
        uint32_t go = mode & 0777;
        go |= S_ISDIR(mode) ? 1u << 31 : 0;
        go |= S_ISLNK(mode) ? 1u << 27 : 0;
        go |= S_ISBLK(mode) || S_ISCHR(mode) ? 1u << 26 : 0;
        go |= S_ISFIFO(mode) ? 1u << 25 : 0;
        go |= S_ISSOCK(mode) ? 1u << 24 : 0;
        go |= mode & S_ISUID ? 1u << 23 : 0;
        go |= mode & S_ISGID ? 1u << 22 : 0;
        go |= S_ISCHR(mode) ? 1u << 21 : 0;
        go |= mode & S_ISVTX ? 1u << 20 : 0;
        return go;
}

char *archive_stat_json(const struct archive_stat *stat)
{
        char time[CLOCK_TEXT_SIZE];
        clock_format(stat->mtime_ns, time);
        auto_json object = json_object_new_object();
        json_object_object_add(object, "name", json_object_new_string(stat->name));
        json_object_object_add(object, "size", json_object_new_int64(stat->size));
        json_object_object_add(object, "mode", json_object_new_int64(stat->mode));
        json_object_object_add(object, "mtime", json_object_new_string(time));
        json_object_object_add(object, "linkTarget", json_object_new_string(stat->link_target));
        return json_text(object, false);
}

/* Where a link leads, as a path in the instance. */
static char *link_target(int dir_fd, const char *name, const char *path)
{
        char target[4097];
        ssize_t n = readlinkat(dir_fd, name, target, sizeof(target) - 1);
        if (n < 0)
                return xstrdup("");
        target[n] = '\0';
        auto_free char *joined = target[0] == '/' ? xstrdup(target)
                                                  : xasprintf("/%s/../%s", path, target);
        char *clean;
        return path_clean(joined, &clean, NULL) < 0 ? xstrdup("") : clean;
}

static int not_found(const struct archive_job *job, struct err *err)
{
        return err_plain(err, ENOENT, "Could not find the file %s in container %s", job->path,
                         job->view->instance->name);
}

/* Finds the directory and the name that job->path means. A trailing "/" or "/." follows a
 * link and wants a directory, as in docker. */
static int locate(struct archive_job *job, struct err *err)
{
        auto_fd root = -1;
        auto_free char *path = NULL;
        int r = view_locate(job->view, job->path, &root, &path, NULL, NULL, err);
        if (r < 0)
                return r;
        bool dot = str_ends(job->path, "/.") || streq(job->path, ".");
        bool follow = dot || str_ends(job->path, "/");
        if (follow || streq(path, "/")) {
                r = resolve_open(root, path, O_PATH | O_DIRECTORY | O_CLOEXEC, 0, &job->dir_fd,
                                 err);
                if (r == -ENOTDIR)
                        return err_plain(err, EINVAL, "%s is not a directory", job->path);
                if (r < 0)
                        return r == -ENOENT ? not_found(job, err) : r;
                job->name = xstrdup(".");
                const char *slash = strrchr(path, '/');
                job->as = xstrdup(dot || !slash[1] ? "." : slash + 1);
                job->stat.name = xstrdup(slash[1] ? slash + 1 : "/");
                return 0;
        }
        char *slash = strrchr(path, '/');
        auto_free char *parent = xstrndup(path, (size_t)(slash - path) + 1);
        r = resolve_open(root, parent, O_PATH | O_DIRECTORY | O_CLOEXEC, 0, &job->dir_fd, err);
        if (r < 0)
                return r == -ENOENT || r == -ENOTDIR ? not_found(job, err) : r;
        job->name = xstrdup(slash + 1);
        job->as = xstrdup(slash + 1);
        job->stat.name = xstrdup(slash + 1);
        return 0;
}

static int look(struct archive_job *job, struct err *err)
{
        int r = view_open(job->view, err);
        if (r < 0)
                return r;
        if (job->kind == ARCHIVE_EXPORT) {
                job->dir_fd = fcntl(job->view->root_fd, F_DUPFD_CLOEXEC, 3);
                job->name = xstrdup(".");
                job->as = xstrdup("");
                job->stat.name = xstrdup("/");
                job->stat.link_target = xstrdup("");
                job->stat.mode = go_mode(S_IFDIR | 0755);
                return 0;
        }
        r = locate(job, err);
        if (r < 0)
                return r;
        struct stat st;
        if (fstatat(job->dir_fd, job->name, &st, AT_SYMLINK_NOFOLLOW) < 0)
                return errno == ENOENT ? not_found(job, err)
                                       : err_set(err, errno, "stat %s", job->path);
        job->stat.size = st.st_size;
        job->stat.mode = go_mode(st.st_mode);
        job->stat.mtime_ns = st.st_mtim.tv_sec * NS_PER_S + st.st_mtim.tv_nsec;
        job->stat.link_target = S_ISLNK(st.st_mode) ? link_target(job->dir_fd, job->name, job->path)
                                                    : xstrdup("");
        return 0;
}

/* -- streams ------------------------------------------------------------------- */

static int write_out(void *arg, const void *data, size_t size, struct err *err)
{
        const struct archive_job *job = arg;
        int r = io_write_full(job->out_fd, data, size);
        return r < 0 ? err_set(err, -r, "write the archive") : 0;
}

static void stream_in_worker(void *arg)
{
        struct archive_job *job = arg;
        auto_tar_writer writer = NULL;
        struct err *err = &job->err;
        int r = tar_writer_create(write_out, job, &writer, err);
        if (r == 0)
                r = tree_tar(writer, job->dir_fd, job->name, job->as, &job->view->remap, err);
        if (r == 0)
                r = tar_writer_finish(writer, err);
        if (r < 0 && r != -EPIPE)
                log_warning("archive of %s in %s: %s", job->path ? job->path : "/",
                            job->view->instance->name, err_text(err));
}

static void stream_done(void *arg)
{
        job_free(arg);
}

static void looked(void *arg)
{
        struct archive_job *job = arg;
        if (job->r == 0 && job->kind != ARCHIVE_STAT) {
                int ends[2];
                if (pipe2(ends, O_CLOEXEC) == 0) {
                        job->out_fd = ends[1];
                        job->done(job->arg, 0, NULL, &job->stat, ends[0]);
                        workers_submit(job->engine->streams, stream_in_worker, stream_done, job);
                        return;
                }
                job->r = err_set(&job->err, errno, "make a pipe");
        }
        job->done(job->arg, job->r, job->r < 0 ? &job->err : NULL, job->r < 0 ? NULL : &job->stat,
                  -1);
        job_free(job);
}

static void look_in_worker(void *arg)
{
        struct archive_job *job = arg;
        if (job->r == 0)
                job->r = look(job, &job->err);
}

static void submit(struct instance *instance, enum archive_kind kind, const char *path,
                   archive_done *done, void *arg)
{
        struct archive_job *job = new0(struct archive_job);
        *job = (struct archive_job){
                .engine = instance_engine(instance),
                .kind = kind,
                .path = path ? xstrdup(path) : NULL,
                .dir_fd = -1,
                .out_fd = -1,
                .done = done,
                .arg = arg,
        };
        job->r = view_create(instance, &job->view, &job->err);
        workers_submit(job->engine->workers, look_in_worker, looked, job);
}

void instance_archive_stat(struct instance *instance, const char *path, archive_done *done,
                           void *arg)
{
        submit(instance, ARCHIVE_STAT, path, done, arg);
}

void instance_archive_get(struct instance *instance, const char *path, archive_done *done,
                          void *arg)
{
        INSTANCE_EVENT(instance, "archive-path");
        submit(instance, ARCHIVE_GET, path, done, arg);
}

void instance_export(struct instance *instance, archive_done *done, void *arg)
{
        INSTANCE_EVENT(instance, "export");
        submit(instance, ARCHIVE_EXPORT, NULL, done, arg);
}
