/* docker cp into an instance: a tar stream unpacked at a place in it, by us where we see what the
 * instance sees, else by the agent in its guest, to which the runtime passes the stream. */
#include <errno.h>
#include <string.h>

#include "agent/extract.h"
#include "engine/archive.h"
#include "engine/archive_guest.h"
#include "engine/core.h"
#include "engine/tar_source.h"
#include "engine/users.h"
#include "engine/view.h"

struct put_job {
        struct engine *engine;
        struct view *view;
        char *path;
        struct archive_put_options options;
        int body_fd;
        struct extract to; /* its texts are path, base, and the instance's name */
        int root_fd;
        char *base;    /* beneath root_fd */
        bool in_guest; /* nobody else sees the place */
        int r;
        struct err err;
        engine_done *done;
        void *arg;
};

static int open_place(struct put_job *job, struct err *err)
{
        const struct id_remap *remap = &job->view->remap;
        bool read_only = false;
        int r = view_open(job->view, err);
        if (r == 0)
                r = view_locate(job->view, job->path, &job->root_fd, &job->base, &read_only,
                                &job->in_guest, err);
        if (r < 0)
                return r;
        job->to = (struct extract){
                .root_fd = job->root_fd,
                .base = job->base,
                .path = job->path,
                .container = job->view->instance->name,
                .read_only = read_only,
                .no_overwrite_dir_non_dir = job->options.no_overwrite_dir_non_dir,
                .shifts = remap->on,
                .first_uid = remap->uid,
                .uids = remap->uids,
                .first_gid = remap->gid,
                .gids = remap->gids,
        };
        if (!job->in_guest)
                return extract_check(&job->to, err);
        return read_only ? extract_refuse_read_only(err) : 0;
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
        job->to.has_owner = true;
        job->to.uid = found.uid;
        job->to.gid = found.gid;
        user_found_finish(&found);
        return 0;
}

static int put_here(const struct put_job *job, struct tar_source *source, struct err *err)
{
        auto_tar_reader reader = NULL;
        int r = tar_reader_create(tar_source_read, source, NULL, &reader, err);
        if (r == 0)
                r = remap_enter(&job->view->remap, err);
        if (r == 0)
                r = extract_archive(&job->to, reader, err);
        remap_leave(&job->view->remap);
        return r;
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
        if (r == 0)
                r = job->in_guest ? archive_guest_put(job->engine, job->view->instance->id,
                                                      &job->to, source, err)
                                  : put_here(job, source, err);
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
