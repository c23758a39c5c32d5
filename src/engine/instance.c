#include "engine/instance.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "codec/json.h"
#include "engine/core.h"
#include "engine/operation.h"
#include "engine/probe.h"
#include "engine/record.h"
#include "engine/run.h"
#include "sys/process.h"

char name_reserved;

static const char *const state_names[] = {
        [INSTANCE_CREATED] = "created",   [INSTANCE_RUNNING] = "running",
        [INSTANCE_PAUSED] = "paused",     [INSTANCE_RESTARTING] = "restarting",
        [INSTANCE_REMOVING] = "removing", [INSTANCE_EXITED] = "exited",
        [INSTANCE_DEAD] = "dead",         [INSTANCE_REMOVED] = "removed",
};

const char *instance_state_name(enum instance_state state)
{
        return state_names[state];
}

struct object {
        struct instance instance;
        struct instance_private private;
};

struct instance *instance_new(struct engine *engine, const char *id)
{
        struct object *object = new0(struct object);
        struct instance *instance = &object->instance;
        instance->private = &object->private;
        *instance->private = (struct instance_private){ .engine = engine, .references = 1 };
        struct instance_private *p = instance->private;
        list_init(&p->node);
        list_init(&p->operations);
        list_init(&p->waits);
        list_init(&p->attaches);
        list_init(&p->execs);
        memcpy(instance->id, id, INSTANCE_ID_SIZE);
        return instance;
}

/* Paths that follow from the id and the spec. */
void instance_set_paths(struct instance *instance)
{
        if (instance->hostname_path)
                return;
        auto_free char *dir = instance_root_path(instance_engine(instance), instance->id);
        instance->hostname_path = xasprintf("%s/hostname", dir);
        instance->hosts_path = xasprintf("%s/hosts", dir);
        instance->resolv_conf_path = xasprintf("%s/resolv.conf", dir);
        if (!streq(instance->spec.host.log_config.type, "none"))
                instance->log_path = xasprintf("%s/%s-json.log", dir, instance->id);
}

void instance_enlist(struct instance *instance)
{
        struct engine *engine = instance_engine(instance);
        instance_set_paths(instance);
        table_put(&engine->by_id, instance->id, instance);
        table_put(&engine->by_name, instance->name, instance);
        /* Newest first; at start they come in no order. */
        struct instance *at = instance_first(engine);
        while (at && at->created_ns > instance->created_ns)
                at = instance_next(at);
        list_insert_before(at ? &at->private->node : &engine->instances, &instance->private->node);
        instance->private->listed = true;
        instance_ref(instance);
}

void instance_delist(struct instance *instance)
{
        struct engine *engine = instance_engine(instance);
        if (!instance->private->listed)
                return;
        instance->private->listed = false;
        list_remove(&instance->private->node);
        table_remove(&engine->by_id, instance->id);
        table_remove(&engine->by_name, instance->name);
        instance_unref(instance);
}

struct instance *instance_ref(struct instance *instance)
{
        instance->private->references++;
        return instance;
}

void instance_unref(struct instance *instance)
{
        if (!instance || --instance->private->references)
                return;
        attaches_drop(instance);
        loop_source_destroy(instance->private->restart_timer);
        probes_forget(instance);
        health_finish(&instance->health);
        instance_record_finish(instance);
        free(instance->log_path);
        free(instance->hostname_path);
        free(instance->hosts_path);
        free(instance->resolv_conf_path);
        free(container_of(instance, struct object, instance));
}

static struct instance *instance_at(struct engine *engine, struct list *node)
{
        if (node == &engine->instances)
                return NULL;
        return &container_of(container_of(node, struct instance_private, node), struct object,
                             private)
                        ->instance;
}

struct instance *instance_first(struct engine *engine)
{
        return instance_at(engine, engine->instances.next);
}

struct instance *instance_next(struct instance *instance)
{
        return instance_at(instance_engine(instance), instance->private->node.next);
}

struct instance *instance_find(struct engine *engine, const char *name_or_id, struct err *err)
{
        const char *name = *name_or_id == '/' ? name_or_id + 1 : name_or_id;
        struct instance *found = table_get(&engine->by_id, name);
        if (found)
                return found;
        found = table_get(&engine->by_name, name);
        if (found && found != (void *)&name_reserved)
                return found;
        found = NULL;
        for (struct instance *i = instance_first(engine); *name && i; i = instance_next(i)) {
                if (!str_starts(i->id, name))
                        continue;
                if (found) {
                        err_plain(err, EINVAL, "multiple IDs found with provided prefix: %s", name);
                        return NULL;
                }
                found = i;
        }
        if (!found)
                err_plain(err, ENOENT, "No such container: %.200s", name_or_id);
        return found;
}

bool instance_is_running(const struct instance *instance)
{
        return instance->state == INSTANCE_RUNNING || instance->state == INSTANCE_PAUSED;
}

void instance_set_state(struct instance *instance, enum instance_state state)
{
        instance->state = state;
        probes_follow(instance);
        instance_save_soon(instance);
}

void instance_event(struct instance *instance, const char *action, const char *const *extra)
{
        auto_strv attributes = NULL;
        for (char **label = instance->spec.config.labels; label && *label; label++)
                strv_push(&attributes, *label);
        for (; *extra; extra++)
                strv_push(&attributes, *extra);
        strv_push_take(&attributes, xasprintf("image=%s", instance->spec.config.image));
        strv_push_take(&attributes, xasprintf("name=%s", instance->name));
        engine_event_emit(instance_engine(instance), "container", action, instance->id, attributes);
}

char *instance_root_path(const struct engine *engine, const char *id)
{
        return xasprintf("%s/%s", engine->instances_dir, id);
}

/* In the runtime's directory of the instance: GUEST_CPU_FILE there. */
#define MACHINE_CPU_FILE  "vm/cpu"
#define VM_CPU_LENGTH_MAX 16

char *instance_vm_cpu(const struct instance *instance)
{
        if (instance->pid <= 0 || !host_config_wants_vm(&instance->spec.host))
                return NULL;
        auto_free char *path = xasprintf("%s/%s/" MACHINE_CPU_FILE,
                                         instance_engine(instance)->settings.runtime_root,
                                         instance->id);
        char *text = NULL;
        return file_read(AT_FDCWD, path, VM_CPU_LENGTH_MAX, &text, NULL, NULL) < 0 ? NULL : text;
}

char *instance_run_path(const struct engine *engine, const char *id)
{
        return xasprintf("%s/%s", engine->run_instances_dir, id);
}

char *instance_cgroup_path(const struct engine *engine, const struct instance *instance)
{
        const char *parent = instance->spec.host.cgroup_parent;
        if (str_empty(parent))
                parent = engine->settings.cgroup_parent;
        return xasprintf("%s%s/%s", *parent == '/' ? "" : "/", parent, instance->id);
}

/* -- status text --------------------------------------------------------------- */

/* docker's units.HumanDuration */
static void human_duration(int64_t ns, char *text, size_t size)
{
        int64_t seconds = ns / NS_PER_S, minutes = seconds / 60, hours = (minutes + 30) / 60;
        if (seconds < 1)
                snprintf(text, size, "Less than a second");
        else if (seconds == 1)
                snprintf(text, size, "1 second");
        else if (seconds < 60)
                snprintf(text, size, "%lld seconds", (long long)seconds);
        else if (minutes == 1)
                snprintf(text, size, "About a minute");
        else if (minutes < 60)
                snprintf(text, size, "%lld minutes", (long long)minutes);
        else if (hours == 1)
                snprintf(text, size, "About an hour");
        else if (hours < 48)
                snprintf(text, size, "%lld hours", (long long)hours);
        else if (hours < 24 * 7 * 2)
                snprintf(text, size, "%lld days", (long long)(hours / 24));
        else if (hours < 24 * 30 * 2)
                snprintf(text, size, "%lld weeks", (long long)(hours / 24 / 7));
        else if (hours < 24 * 365 * 2)
                snprintf(text, size, "%lld months", (long long)(hours / 24 / 30));
        else
                snprintf(text, size, "%lld years", (long long)(hours / 24 / 365));
}

char *instance_status_text(const struct instance *i, int64_t now_ns)
{
        char up[64], ago[64];
        human_duration(now_ns - i->started_ns, up, sizeof(up));
        human_duration(now_ns - i->finished_ns, ago, sizeof(ago));
        switch (i->state) {
        case INSTANCE_RUNNING:
                if (i->health.status == HEALTH_NONE)
                        return xasprintf("Up %s", up);
                return xasprintf("Up %s (%s%s)", up,
                                 i->health.status == HEALTH_STARTING ? "health: " : "",
                                 health_status_name(i->health.status));
        case INSTANCE_PAUSED:
                return xasprintf("Up %s (Paused)", up);
        case INSTANCE_RESTARTING:
                return xasprintf("Restarting (%d) %s ago", i->exit_code, ago);
        case INSTANCE_EXITED:
                if (i->finished_ns == 0)
                        return xstrdup("Created");
                return xasprintf("Exited (%d) %s ago", i->exit_code, ago);
        case INSTANCE_CREATED:
                return xstrdup("Created");
        case INSTANCE_DEAD:
                return xstrdup("Dead");
        default:
                return xstrdup("Removal In Progress");
        }
}

int instance_signal_parse(const char *text, struct err *err)
{
        int signo;
        if (process_signal_parse(text, &signo) < 0)
                return err_plain(err, EINVAL, "Invalid signal: %s", text);
        return signo;
}

struct engine_counts engine_counts(const struct engine *engine)
{
        struct engine_counts counts = { 0 };
        for (struct instance *i = instance_first((struct engine *)engine); i;
             i = instance_next(i)) {
                counts.total++;
                if (i->state == INSTANCE_RUNNING || i->state == INSTANCE_RESTARTING)
                        counts.running++;
                else if (i->state == INSTANCE_PAUSED)
                        counts.paused++;
                else
                        counts.stopped++;
        }
        return counts;
}
