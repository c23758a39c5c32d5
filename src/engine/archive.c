#include "engine/archive.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/collect.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/path.h"
#include "codec/json.h"
#include "engine/archive_guest.h"
#include "engine/core.h"
#include "engine/operation.h"
#include "engine/view.h"

enum archive_kind { ARCHIVE_STAT, ARCHIVE_GET, ARCHIVE_EXPORT };

struct archive_job {
        struct engine *engine;
        enum archive_kind kind;
        struct view *view;
        char *path;
        struct archive_stat stat;
        struct collected file;      /* what is read, by us */
        struct archive_guest guest; /* or by a guest */
        int out_fd;
        int r;
        struct err err;
        archive_done *done;
        void *arg;
};

static void job_free(struct archive_job *job)
{
        view_unref(job->view);
        collected_finish(&job->file);
        archive_guest_finish(&job->guest);
        close_fd(&job->out_fd);
        free(job->path);
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

/* As docker names it: the last component, also of a directory whose content is meant. */
static char *stat_name(const char *path)
{
        auto_free char *absolute = xasprintf("/%s", path);
        auto_free char *clean = NULL;
        (void)path_clean(absolute, &clean, NULL); /* it is absolute */
        return xstrdup(clean[1] ? strrchr(clean, '/') + 1 : "/");
}

static int look_in_guest(struct archive_job *job, struct err *err)
{
        const struct instance *instance = job->view->instance;
        struct collect from = { .path = job->path, .container = instance->name };
        auto_guest_file file = { 0 };
        int r = archive_guest_get(job->engine, instance->id, &from, job->kind == ARCHIVE_STAT,
                                  &file, &job->guest, err);
        if (r < 0)
                return r;
        job->stat.size = file.size_bytes;
        job->stat.mode = go_mode(file.mode);
        job->stat.mtime_ns = file.mtime_ns;
        job->stat.link_target = xstrdup(file.link ? file.link : "");
        return 0;
}

static int look_here(struct archive_job *job, struct err *err)
{
        auto_fd root = -1;
        auto_free char *base = NULL;
        int r = view_open(job->view, err);
        if (r == 0)
                r = view_locate(job->view, job->path, &root, &base, NULL, NULL, err);
        if (r < 0)
                return r;
        struct collect from = { root, base, job->path, job->view->instance->name };
        r = collect_find(&from, &job->file, err);
        if (r < 0)
                return r;
        const struct stat *st = &job->file.stat;
        job->stat.size = st->st_size;
        job->stat.mode = go_mode(st->st_mode);
        job->stat.mtime_ns = st->st_mtim.tv_sec * NS_PER_S + st->st_mtim.tv_nsec;
        job->stat.link_target = xstrdup(job->file.link_target);
        return 0;
}

static int look_at_all(struct archive_job *job, struct err *err)
{
        int r = view_open(job->view, err);
        if (r < 0)
                return r;
        job->file.dir_fd = fcntl(job->view->root_fd, F_DUPFD_CLOEXEC, 3);
        job->file.name = xstrdup(".");
        job->file.as = xstrdup("");
        job->stat.name = xstrdup("/");
        job->stat.link_target = xstrdup("");
        job->stat.mode = go_mode(S_IFDIR | 0755);
        return 0;
}

static int look(struct archive_job *job, struct err *err)
{
        if (job->kind == ARCHIVE_EXPORT)
                return look_at_all(job, err);
        job->stat.name = stat_name(job->path);
        return job->view->guest_answers ? look_in_guest(job, err) : look_here(job, err);
}

/* -- streams ------------------------------------------------------------------- */

static int write_out(void *arg, const void *data, size_t size, struct err *err)
{
        const struct archive_job *job = arg;
        int r = io_write_full(job->out_fd, data, size);
        return r < 0 ? err_set(err, -r, "write the archive") : 0;
}

static int stream(struct archive_job *job, struct err *err)
{
        const struct id_remap *remap = &job->view->remap;
        const struct tree_ids ids = { remap->uid, remap->uids, remap->gid, remap->gids };
        if (job->guest.pid)
                return archive_guest_wait(&job->guest, err);
        int r = collect_archive(&job->file, &ids, write_out, job, err);
        if (r == 0)
                io_stream_end(job->out_fd);
        return r;
}

static void stream_in_worker(void *arg)
{
        struct archive_job *job = arg;
        int r = stream(job, &job->err);
        if (r < 0 && r != -EPIPE)
                log_warning("archive of %s in %s: %s", job->path ? job->path : "/",
                            job->view->instance->name, err_text(&job->err));
}

static void stream_done(void *arg)
{
        job_free(arg);
}

/* The end that is read. */
static int open_stream(struct archive_job *job, int *ret_fd, struct err *err)
{
        if (!job->guest.pid)
                return io_stream(ret_fd, &job->out_fd, err);
        *ret_fd = take_fd(job->guest.archive);
        return 0;
}

static void looked(void *arg)
{
        struct archive_job *job = arg;
        int fd = -1;
        if (job->r == 0 && job->kind != ARCHIVE_STAT)
                job->r = open_stream(job, &fd, &job->err);
        job->done(job->arg, job->r, job->r < 0 ? &job->err : NULL, job->r < 0 ? NULL : &job->stat,
                  fd);
        if (fd >= 0)
                workers_submit(job->engine->streams, stream_in_worker, stream_done, job);
        else
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
                .file.dir_fd = -1,
                .guest = { .archive = -1, .writer = -1, .words = -1 },
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
