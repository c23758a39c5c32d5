/* Removal of instances, and their pruning.
 *
 * The record and the name go in one transaction; from then on the instance does not
 * exist. Its snapshot, directory and anonymous volumes are deleted afterwards by a
 * worker, off everybody's path; what a crash leaves of them has no record any more and
 * is found by reconcile.c. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "codec/json.h"
#include "engine/filter.h"
#include "engine/operation.h"
#include "engine/probe.h"
#include "engine/remove.h"
#include "engine/run.h"
#include "engine/volumes.h"
#include "image/snapshot.h"

#define REMOVE_PATIENCE_NS (20 * NS_PER_S)

struct leftovers {
        struct image_store *images;
        char *id, *dir, *volumes_dir;
        char **volumes;
};

static void delete_in_worker(void *arg)
{
        struct leftovers *l = arg;
        struct err err = { 0 };
        if (snapshot_remove(l->images, l->id, &err) < 0)
                log_warning("cannot remove the snapshot of %s: %s", l->id, err_text(&err));
        else if (file_remove_tree(AT_FDCWD, l->dir, &err) < 0)
                log_warning("cannot remove '%s': %s", l->dir, err_text(&err));
        for (char **volume = l->volumes; volume && *volume; volume++)
                if (volume_remove_dir(l->volumes_dir, *volume, &err) < 0)
                        log_warning("cannot remove volume %s: %s", *volume, err_text(&err));
        free(l->id);
        free(l->dir);
        free(l->volumes_dir);
        strv_free(l->volumes);
        free(l);
}

void leftovers_delete(struct engine *engine, const char *id, char **volumes)
{
        struct leftovers *l = new0(struct leftovers);
        *l = (struct leftovers){
                .images = engine->images,
                .id = xstrdup(id),
                .dir = instance_root_path(engine, id),
                .volumes_dir = xstrdup(engine->volumes_dir),
                .volumes = volumes,
        };
        workers_submit(engine->workers, delete_in_worker, NULL, l);
}

static int delete_records(struct instance *i, struct volume_txn *volumes, struct err *err)
{
        auto_free char *key = xasprintf("instances/%s", i->id);
        auto_free char *name = xasprintf("names/%s", i->name);
        struct store_op *ops = xcalloc(volumes->length + 2, sizeof(*ops));
        ops[0] = (struct store_op){ .kind = STORE_DELETE, .key = key };
        ops[1] = (struct store_op){ .kind = STORE_DELETE, .key = name };
        if (volumes->length)
                memcpy(&ops[2], volumes->ops, volumes->length * sizeof(*ops));
        int r = store_txn(instance_engine(i)->store, NULL, 0, ops, volumes->length + 2, NULL, err);
        free(ops);
        return r;
}

/* It is at rest: make it go. */
static void remove_now(struct operation *o)
{
        struct instance *i = o->instance;
        struct engine *engine = instance_engine(i);
        struct volume_txn volumes = { 0 };
        struct err err = { 0 };
        volumes_use(i, -1);
        if (o->volumes)
                volumes_drop_anonymous(i, &volumes);
        int r = delete_records(i, &volumes, &err);
        if (r < 0) {
                i->private->removing = false;
                i->state = INSTANCE_DEAD;
                err_wrap(&err, "cannot remove container %s", i->name);
                instance_waits_failed(i, err_text(&err));
                operation_finish(o, r, &err);
                volume_txn_finish(&volumes);
                return;
        }
        volumes_dropped(engine, &volumes);
        i->private->dirty = false;
        instance_cancel_restart(i);
        execs_instance_removed(i);
        attaches_drop(i);
        i->state = INSTANCE_REMOVED;
        INSTANCE_EVENT(i, "destroy");
        instance_waits_exited(i);
        instance_waits_removed(i);
        /* A run that is still cleaned up holds the root file system: its end deletes. */
        struct run *run = i->private->run;
        if (run) {
                run->leftovers = true;
                run->leftover_volumes = take_ptr(volumes.made);
        } else {
                leftovers_delete(engine, i->id, take_ptr(volumes.made));
        }
        volume_txn_finish(&volumes);
        instance_delist(i);
        operation_finish(o, 0, NULL);
}

static void remove_advance(struct operation *o)
{
        struct instance *i = o->instance;
        const struct run *run = i->private->run;
        if (!instance_is_running(i) && (!run || run->phase >= RUN_FAILED))
                remove_now(o);
}

static void remove_expired(void *arg)
{
        struct operation *o = arg;
        if (o->step == 0) {
                o->step = 1;
                operation_arm(o, remove_expired, REMOVE_PATIENCE_NS);
                run_abort(o->instance);
                return;
        }
        struct err err;
        int r = err_plain(&err, ETIMEDOUT, "could not kill container %s: it does not end",
                          o->instance->name);
        o->instance->private->removing = false;
        probes_hold(o->instance, false);
        operation_finish(o, r, &err);
}

static void remove_begin(struct operation *o)
{
        struct instance *i = o->instance;
        struct err err = { 0 };
        int r = 0;
        if (i->state == INSTANCE_REMOVED)
                r = err_plain(&err, ENOENT, "No such container: %s", i->id);
        else if (!o->force && (instance_is_running(i) || i->state == INSTANCE_RESTARTING))
                r = err_plain(
                        &err, EBUSY,
                        "cannot remove container \"/%s\": container is %s: stop the container "
                        "before removing or force remove",
                        i->name, instance_state_name(i->state));
        if (r < 0) {
                i->private->removing = false;
                operation_finish(o, r, &err);
                return;
        }
        i->private->removing = true;
        i->stopped_by_user = true;
        instance_cancel_restart(i);
        if (instance_is_running(i)) {
                operation_arm(o, remove_expired, REMOVE_PATIENCE_NS);
                instance_kill(i, SIGKILL, NULL, NULL);
        } else if (i->private->run && i->private->run->phase < RUN_FAILED) {
                operation_arm(o, remove_expired, REMOVE_PATIENCE_NS);
        } else {
                remove_now(o);
        }
}

static const struct operation_kind remove_kind = { "remove", remove_begin, remove_advance };

void instance_remove(struct instance *instance, bool force, bool volumes, engine_done *done,
                     void *arg)
{
        struct operation *o = operation_new(instance, &remove_kind, done, arg);
        o->force = force;
        o->volumes = volumes;
        if (instance->private->removing && done && !force) {
                struct err err;
                int r = err_plain(&err, EBUSY, "removal of container %s is already in progress",
                                  instance->name);
                list_append(&instance->private->operations, &o->node);
                operation_finish(o, r, &err);
                return;
        }
        if (force) {
                instance->private->removing = true;
                /* Whatever is under way, a start that hangs, a stop that waits, gives way. */
                struct run *run = instance->private->run;
                if (run && run->phase < RUN_RUNNING)
                        run_abort(instance);
                else if (instance_is_running(instance) && operation_current(instance))
                        instance_kill(instance, SIGKILL, NULL, NULL);
        }
        operation_submit(o);
}

/* -- prune --------------------------------------------------------------------- */

struct prune {
        struct engine *engine;
        unsigned pending;
        bool submitted;
        char **removed;
        uint64_t bytes;
        engine_pruned *done;
        void *arg;
};

struct pruned_one {
        struct prune *prune;
        struct instance *instance;
        uint64_t bytes;
};

static void prune_finish(struct prune *prune)
{
        if (prune->pending || !prune->submitted)
                return;
        char *none[] = { NULL };
        prune->done(prune->arg, 0, NULL, prune->removed ? prune->removed : none, prune->bytes);
        strv_free(prune->removed);
        free(prune);
}

static void prune_removed(void *arg, int r, const struct err *err)
{
        struct pruned_one *one = arg;
        struct prune *prune = one->prune;
        (void)err;
        if (r == 0) {
                strv_push(&prune->removed, one->instance->id);
                prune->bytes += one->bytes;
        }
        instance_unref(one->instance);
        free(one);
        prune->pending--;
        prune_finish(prune);
}

static void prune_measured(void *arg, int r, const struct err *err, uint64_t rw_bytes,
                           uint64_t total_bytes)
{
        struct pruned_one *one = arg;
        (void)err;
        (void)total_bytes;
        one->bytes = r < 0 ? 0 : rw_bytes;
        instance_remove(one->instance, false, false, prune_removed, one);
}

static bool prune_wants(const struct prune_filter *filter, const struct instance *i)
{
        if (i->private->run || i->private->removing ||
            (i->state != INSTANCE_CREATED && i->state != INSTANCE_EXITED &&
             i->state != INSTANCE_DEAD))
                return false;
        if (filter->until_ns && i->created_ns >= filter->until_ns)
                return false;
        for (char **label = filter->labels; label && *label; label++)
                if (!label_matches(i->spec.config.labels, *label))
                        return false;
        for (char **label = filter->labels_not; label && *label; label++)
                if (label_matches(i->spec.config.labels, *label))
                        return false;
        return true;
}

static void prune_submitted(void *arg)
{
        struct prune *prune = arg;
        prune->submitted = true;
        prune_finish(prune);
}

void instance_prune(struct engine *engine, const struct prune_filter *filter, engine_pruned *done,
                    void *arg)
{
        struct prune *prune = new0(struct prune);
        *prune = (struct prune){ .engine = engine, .done = done, .arg = arg };
        for (struct instance *i = instance_first(engine); i; i = instance_next(i)) {
                if (!prune_wants(filter, i))
                        continue;
                struct pruned_one *one = new0(struct pruned_one);
                *one = (struct pruned_one){ .prune = prune, .instance = instance_ref(i) };
                prune->pending++;
                instance_measure(i, prune_measured, one);
        }
        loop_defer(engine->loop, prune_submitted, prune);
}
