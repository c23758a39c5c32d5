/* Rename and update. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "codec/json.h"
#include "engine/bundle.h"
#include "engine/command.h"
#include "engine/names.h"
#include "engine/operation.h"
#include "engine/record.h"
#include "engine/run.h"

/* -- rename -------------------------------------------------------------------- */

static int write_rename(struct instance *i, char *name, struct err *err)
{
        struct engine *engine = instance_engine(i);
        char *old = i->name;
        auto_free char *old_key = xasprintf("names/%s", old);
        auto_free char *new_key = xasprintf("names/%s", name);
        auto_free char *key = xasprintf("instances/%s", i->id);
        i->name = name;
        auto_free char *text = instance_record_encode(i);
        struct store_guard guard = { .key = new_key, .mod_revision = 0 };
        struct store_op ops[] = {
                { .kind = STORE_PUT, .key = new_key, .data = i->id, .size = strlen(i->id) },
                { .kind = STORE_DELETE, .key = old_key },
                { .kind = STORE_PUT, .key = key, .data = text, .size = strlen(text) },
        };
        int r = store_txn(engine->store, &guard, 1, ops, ELEMENTS(ops), NULL, err);
        if (r < 0)
                i->name = old;
        return r;
}

static void rename_begin(struct operation *o)
{
        struct instance *i = o->instance;
        struct engine *engine = instance_engine(i);
        char *name = o->data;
        struct err err = { 0 };
        int r = name_check(name, &err);
        if (r == 0 && streq(name, i->name))
                r = err_plain(&err, EINVAL,
                              "Renaming a container with the same name as its current "
                              "name");
        if (r == 0 && table_get(&engine->by_name, name))
                r = err_plain(
                        &err, EEXIST,
                        "Error when allocating new name: Conflict. The container name \"/%s\" "
                        "is already in use. You have to remove (or rename) that container to "
                        "be able to reuse that name.",
                        name);
        auto_free char *old = xstrdup(i->name);
        if (r == 0) {
                char *former = i->name;
                r = write_rename(i, name, &err);
                if (r == 0)
                        free(former);
        }
        if (r == 0) {
                o->data = NULL;
                table_remove(&engine->by_name, old);
                table_put(&engine->by_name, i->name, i);
                auto_free char *was = xasprintf("oldName=/%s", old);
                INSTANCE_EVENT(i, "rename", was);
        }
        operation_finish(o, r, &err);
}

static const struct operation_kind rename_kind = { "rename", rename_begin, NULL };

void instance_rename(struct instance *instance, const char *name, engine_done *done, void *arg)
{
        struct operation *o = operation_new(instance, &rename_kind, done, arg);
        o->data = xstrdup(*name == '/' ? name + 1 : name);
        o->data_free = free;
        operation_submit(o);
}

/* -- update -------------------------------------------------------------------- */

struct update {
        struct host_config asked;
        struct instance_spec *merged;
        char *file;
        char **warnings;
        instance_updated *done;
        void *arg;
};

static void update_free(void *data)
{
        struct update *update = data;
        json_free(&host_config_shape, &update->asked);
        spec_finish(update->merged);
        free(update->merged);
        if (update->file)
                unlink(update->file);
        free(update->file);
        strv_free(update->warnings);
        free(update);
}

static void replace(char **slot, const char *value)
{
        if (str_empty(value))
                return;
        free(*slot);
        *slot = xstrdup(value);
}

#define TAKE(member)                                                                               \
        do {                                                                                       \
                if (from->member)                                                                  \
                        to->member = from->member;                                                 \
        } while (0)

/* What is given replaces what is there. */
static void merge(const struct host_config *from, struct host_config *to)
{
        TAKE(cpu_shares);
        TAKE(memory);
        TAKE(memory_swap);
        TAKE(memory_reservation);
        TAKE(blkio_weight);
        if (from->nano_cpus) {
                to->nano_cpus = from->nano_cpus;
                to->cpu_period = to->cpu_quota = 0;
        }
        if (from->cpu_period || from->cpu_quota) {
                TAKE(cpu_period);
                TAKE(cpu_quota);
                to->nano_cpus = 0;
        }
        replace(&to->cpuset_cpus, from->cpuset_cpus);
        replace(&to->cpuset_mems, from->cpuset_mems);
        if (from->has_pids_limit) {
                to->has_pids_limit = true;
                to->pids_limit = from->pids_limit;
        }
        if (!str_empty(from->restart_policy.name)) {
                replace(&to->restart_policy.name, from->restart_policy.name);
                to->restart_policy.maximum_retry_count = from->restart_policy.maximum_retry_count;
        }
}

static void update_answer(struct operation *o, int r, const struct err *err);

static void update_apply(struct operation *o)
{
        struct instance *i = o->instance;
        struct update *update = o->data;
        struct instance_spec old = i->spec;
        i->spec = *update->merged;
        *update->merged = old;
        instance_save_soon(i);
        INSTANCE_EVENT(i, "update");
        update_answer(o, 0, NULL);
}

static void update_ran(void *arg, int r, const struct err *err)
{
        struct operation *o = arg;
        if (r == 0) {
                update_apply(o);
                return;
        }
        struct err text = *err;
        err_wrap(&text, "Cannot update container %s", o->instance->name);
        update_answer(o, r, &text);
}

/* Gives the runtime a file of the new limits. */
static int update_run(struct operation *o, struct err *err)
{
        struct instance *i = o->instance;
        struct engine *engine = instance_engine(i);
        struct update *update = o->data;
        struct oci_resources *resources = bundle_resources(&update->merged->host,
                                                           engine->swap_limit);
        auto_free char *text = json_encode_text(&oci_resources_shape, resources, false);
        json_free(&oci_resources_shape, resources);
        free(resources);
        auto_free char *dir = instance_run_path(engine, i->id);
        update->file = xasprintf("%s/update.json", dir);
        int r = file_replace(AT_FDCWD, update->file, text, strlen(text), 0600, false, err);
        if (r == 0)
                runtime_run(engine, update_ran, o, "update", "--resources", update->file, i->id,
                            NULL);
        return r;
}

static void update_begin(struct operation *o)
{
        struct instance *i = o->instance;
        struct update *update = o->data;
        struct err err = { 0 };
        int r = 0;
        update->merged = spec_copy(&i->spec);
        if (i->state == INSTANCE_REMOVING || i->state == INSTANCE_DEAD)
                r = err_plain(&err, EBUSY, "container is marked for removal and cannot be updated");
        merge(&update->asked, &update->merged->host);
        if (r == 0)
                r = spec_check(update->merged, &update->warnings, &err);
        if (r == 0 && !instance_is_running(i)) {
                update_apply(o);
                return;
        }
        if (r == 0)
                r = update_run(o, &err);
        if (r < 0)
                update_answer(o, r, &err);
}

static const struct operation_kind update_kind = { "update", update_begin, NULL };

static void update_deliver(void *arg, int r, const struct err *err)
{
        struct update *update = arg;
        update->done(update->arg, r, err, update->warnings);
        update_free(update);
}

static void update_answer(struct operation *o, int r, const struct err *err)
{
        o->data_free = NULL; /* goes on to update_deliver() */
        operation_finish(o, r, err);
}

void instance_update(struct instance *instance, const struct host_config *host,
                     instance_updated *done, void *arg)
{
        struct update *update = new0(struct update);
        auto_json object = json_encode(&host_config_shape, host);
        if (json_decode(&host_config_shape, object, &update->asked, NULL) < 0)
                abort();
        update->done = done;
        update->arg = arg;
        struct operation *o = operation_new(instance, &update_kind, update_deliver, update);
        o->data = update;
        o->data_free = update_free;
        operation_submit(o);
}
