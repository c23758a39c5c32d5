/* What instances and volumes take on disk, and what instances changed. */
#include "engine/usage.h"

#include <errno.h>
#include <stdlib.h>

#include "engine/core.h"
#include "engine/tree.h"
#include "engine/volume.h"
#include "image/image.h"
#include "image/snapshot.h"

/* -- one instance -------------------------------------------------------------- */

struct measure_job {
        struct engine *engine;
        char *id, *image_id;
        uint64_t rw_bytes, image_bytes;
        int r;
        struct err err;
        instance_measured *done;
        void *arg;
};

static void measure_in_worker(void *arg)
{
        struct measure_job *job = arg;
        job->r = snapshot_usage(job->engine->images, job->id, &job->rw_bytes, &job->err);
        auto_image image = NULL;
        if (image_resolve(job->engine->images, job->image_id, &image, NULL) == 0)
                job->image_bytes = image->size_bytes;
}

static void measure_done(void *arg)
{
        struct measure_job *job = arg;
        job->done(job->arg, job->r, job->r < 0 ? &job->err : NULL, job->rw_bytes,
                  job->rw_bytes + job->image_bytes);
        free(job->id);
        free(job->image_id);
        free(job);
}

void instance_measure(struct instance *instance, instance_measured *done, void *arg)
{
        struct measure_job *job = new0(struct measure_job);
        *job = (struct measure_job){
                .engine = instance_engine(instance),
                .id = xstrdup(instance->id),
                .image_id = xstrdup(instance->image_id),
                .done = done,
                .arg = arg,
        };
        workers_submit(job->engine->workers, measure_in_worker, measure_done, job);
}

/* -- changes ------------------------------------------------------------------- */

struct changes_job {
        struct engine *engine;
        char *id;
        char **own; /* mount points, which the engine made */
        struct instance_change *changes;
        size_t length;
        int r;
        struct err err;
        instance_changed *done;
        void *arg;
};

static int add_change(void *arg, enum snapshot_change kind, const char *path)
{
        struct changes_job *job = arg;
        /* Grows by doubling: an instance may have changed a great deal. */
        if ((job->length & (job->length - 1)) == 0)
                job->changes = xrealloc(job->changes, job->length ? job->length * 2 : 1,
                                        sizeof(*job->changes));
        job->changes[job->length++] = (struct instance_change){ (int)kind, xstrdup(path) };
        return 0;
}

static void changes_in_worker(void *arg)
{
        struct changes_job *job = arg;
        job->r = snapshot_diff(job->engine->images, job->id, add_change, job, &job->err);
}

/* Whether `path` is `own` or one of its parents. */
static bool leads_to(const char *path, const char *own)
{
        const char *rest = str_after(own, path);
        return rest && (*rest == '/' || !*rest);
}

/* Takes out what only our mount points changed, as docker's list does not show it: the points
 * themselves, and directories above them with no other change below. */
static void hide_own(struct changes_job *job)
{
        size_t kept = 0;
        for (size_t i = 0; i < job->length; i++) {
                struct instance_change *change = &job->changes[i];
                bool above = false, other = false;
                for (char **own = job->own; *own; own++)
                        above = above || leads_to(change->path, *own);
                for (size_t below = i + 1; above && below < job->length; below++) {
                        const char *path = job->changes[below].path;
                        if (!leads_to(change->path, path))
                                break;
                        bool ours = false;
                        for (char **own = job->own; *own; own++)
                                ours = ours || leads_to(path, *own);
                        other = other || !ours;
                }
                if (above && !other && change->kind != SNAPSHOT_DELETED)
                        free(change->path);
                else
                        job->changes[kept++] = *change;
        }
        job->length = kept;
}

static void changes_done(void *arg)
{
        struct changes_job *job = arg;
        hide_own(job);
        job->done(job->arg, job->r, job->r < 0 ? &job->err : NULL, job->changes, job->length);
        for (size_t i = 0; i < job->length; i++)
                free(job->changes[i].path);
        free(job->changes);
        free(job->id);
        strv_free(job->own);
        free(job);
}

void instance_changes(struct instance *instance, instance_changed *done, void *arg)
{
        struct changes_job *job = new0(struct changes_job);
        *job = (struct changes_job){ .engine = instance_engine(instance),
                                     .id = xstrdup(instance->id),
                                     .done = done,
                                     .arg = arg };
        static const char *const always[] = {
                "/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/dev",
                "/proc",         "/sys",       "/sbin/docker-init"
        };
        for (size_t i = 0; i < ELEMENTS(always); i++)
                strv_push(&job->own, always[i]);
        for (size_t i = 0; i < instance->mounts_length; i++)
                strv_push(&job->own, instance->mounts[i].destination);
        workers_submit(job->engine->workers, changes_in_worker, changes_done, job);
}

/* -- all ----------------------------------------------------------------------- */

struct usage_job {
        struct engine *engine;
        struct engine_usage usage;
        char **mountpoints; /* parallel to usage.volumes */
        engine_used *done;
        void *arg;
};

static void usage_in_worker(void *arg)
{
        struct usage_job *job = arg;
        for (size_t i = 0; i < job->usage.instances_length; i++)
                snapshot_usage(job->engine->images, job->usage.instances[i].id,
                               &job->usage.instances[i].bytes, NULL);
        for (size_t i = 0; i < job->usage.volumes_length; i++)
                job->usage.volumes[i].bytes = tree_bytes(job->mountpoints[i]);
}

static void entries_free(struct usage_entry *entries, size_t length)
{
        for (size_t i = 0; i < length; i++)
                free(entries[i].id);
        free(entries);
}

static void usage_done(void *arg)
{
        struct usage_job *job = arg;
        job->done(job->arg, 0, NULL, &job->usage);
        entries_free(job->usage.instances, job->usage.instances_length);
        entries_free(job->usage.volumes, job->usage.volumes_length);
        strv_free(job->mountpoints);
        free(job);
}

static void add_entry(struct usage_entry **entries, size_t *length, const char *id)
{
        *entries = xrealloc(*entries, *length + 1, sizeof(**entries));
        (*entries)[(*length)++] = (struct usage_entry){ .id = xstrdup(id) };
}

void engine_usage(struct engine *engine, engine_used *done, void *arg)
{
        struct usage_job *job = new0(struct usage_job);
        *job = (struct usage_job){ .engine = engine, .done = done, .arg = arg };
        for (struct instance *i = instance_first(engine); i; i = instance_next(i))
                add_entry(&job->usage.instances, &job->usage.instances_length, i->id);
        for (struct volume *v = volume_first(engine); v; v = volume_next(v)) {
                add_entry(&job->usage.volumes, &job->usage.volumes_length, v->name);
                strv_push(&job->mountpoints, v->mountpoint);
        }
        workers_submit(engine->workers, usage_in_worker, usage_done, job);
}
