/* At start: bringing what is found in line with the records.
 *
 *   record, monitor alive          its connection is taken over; what it says counts
 *   record, no monitor, but ran    exit.json if there is one; else killed. The runtime's state
 *                                  is deleted by force; then the restart policy
 *   no record, run directory       a removal or creation was interrupted: deleted by force
 *   no record, directory, snapshot likewise
 *   volume directory, no record    becomes a volume: nobody's data is deleted for want of one
 *
 * A monitor's lock (link_lock) tells whether it lives. One that was spawned but does
 * not listen yet is asked again for a while. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "engine/command.h"
#include "engine/core.h"
#include "engine/link.h"
#include "engine/record.h"
#include "engine/remove.h"
#include "engine/restart.h"
#include "engine/run.h"
#include "engine/volumes.h"
#include "image/snapshot.h"

#define ADOPT_RETRY_NS (50 * NS_PER_MS)
#define ADOPT_ATTEMPTS 100

static bool is_id(const char *name)
{
        return strlen(name) == INSTANCE_ID_SIZE - 1 &&
               strspn(name, "0123456789abcdef") == INSTANCE_ID_SIZE - 1;
}

/* -- loading ------------------------------------------------------------------- */

static void load_record(struct engine *engine, const struct store_value *value)
{
        static const char no_id[INSTANCE_ID_SIZE];
        struct instance *instance = instance_new(engine, no_id);
        struct err err = { 0 };
        if (instance_record_decode(value->data, value->size, instance, &err) < 0) {
                log_error("the record '%s' is damaged and ignored: %s", value->key, err_text(&err));
        } else if (!streq(value->key + strlen("instances/"), instance->id)) {
                log_error("the record '%s' is another's and ignored", value->key);
        } else if (table_get(&engine->by_name, instance->name)) {
                log_error("the record '%s' has a name that is taken, and is ignored", value->key);
        } else {
                instance_enlist(instance);
                volumes_use(instance, 1);
        }
        instance_unref(instance);
}

static int load_records(struct engine *engine, struct err *err)
{
        struct store_value *values;
        size_t length;
        int r = store_list(engine->store, "instances/", &values, &length, NULL, err);
        if (r < 0)
                return r;
        for (size_t i = 0; i < length; i++)
                load_record(engine, &values[i]);
        store_values_free(values, length);
        return 0;
}

/* -- taking over --------------------------------------------------------------- */

struct adoption {
        struct list node;
        struct instance *instance; /* a reference */
        struct loop_source *timer;
        unsigned attempts;
};

static void adoption_free(struct adoption *adoption)
{
        list_remove(&adoption->node);
        loop_source_destroy(adoption->timer);
        instance_unref(adoption->instance);
        free(adoption);
}

static void settle_dead(struct instance *instance);

/* A monitor that holds the lock and never listens: stuck. */
static void give_up(struct adoption *adoption)
{
        struct instance *i = adoption->instance;
        auto_free char *dir = instance_run_path(instance_engine(i), i->id);
        pid_t pid = link_lock_pid(dir);
        log_warning("the monitor of %s does not answer; it is killed", i->name);
        if (pid > 1)
                kill(-pid, SIGKILL);
        run_bury(i, instance_is_running(i));
        adoption_free(adoption);
}

static void try_adopt(void *arg)
{
        struct adoption *adoption = arg;
        struct instance *i = adoption->instance;
        struct err err = { 0 };
        int r = i->private->run || !i->private->listed ? 0 : run_adopt(i, &err);
        if (r == 0) {
                adoption_free(adoption);
                return;
        }
        auto_free char *dir = instance_run_path(instance_engine(i), i->id);
        auto_fd lock = -1;
        if (link_lock(dir, &lock, NULL) == 1) {
                settle_dead(i);
                adoption_free(adoption);
        } else if (++adoption->attempts > ADOPT_ATTEMPTS) {
                give_up(adoption);
        } else {
                loop_timer_arm(adoption->timer, ADOPT_RETRY_NS);
        }
}

static void adopt(struct instance *instance)
{
        struct adoption *adoption = new0(struct adoption);
        adoption->instance = instance_ref(instance);
        list_append(&instance_engine(instance)->adoptions, &adoption->node);
        struct err err = { 0 };
        if (loop_timer(instance_engine(instance)->loop, try_adopt, adoption, &adoption->timer,
                       &err) < 0) {
                log_error("cannot take over %s: %s", instance->name, err_text(&err));
                adoption_free(adoption);
                return;
        }
        try_adopt(adoption);
}

void adoptions_destroy(struct engine *engine)
{
        list_for_each_safe (struct adoption, adoption, &engine->adoptions, node)
                adoption_free(adoption);
}

/* -- the dead ------------------------------------------------------------------ */

/* Not running, nothing to bury: what its policy wants at boot. */
static void settle_boot(struct instance *i)
{
        bool was_running = instance_is_running(i) || i->state == INSTANCE_RESTARTING;
        bool start = restart_at_boot(&i->spec.host.restart_policy, i->exit_code, i->stopped_by_user,
                                     was_running);
        if (was_running) {
                i->pid = 0;
                if (i->state != INSTANCE_RESTARTING) {
                        /* The machine went down with it. */
                        i->exit_code = 137;
                        i->finished_ns = clock_realtime_ns();
                }
                instance_set_state(i, INSTANCE_EXITED);
        }
        if (i->state == INSTANCE_REMOVING || (i->spec.host.auto_remove && was_running)) {
                instance_remove(i, true, i->spec.host.auto_remove, NULL, NULL);
        } else if (start && i->state == INSTANCE_EXITED) {
                instance_start(i, NULL, NULL, NULL);
        }
}

/* It has a run directory, but no monitor. */
static void settle_dead(struct instance *i)
{
        bool was_running = instance_is_running(i);
        if (!was_running && i->state != INSTANCE_CREATED && i->state != INSTANCE_RESTARTING) {
                /* The record was written; only the directory was not removed. */
                auto_free char *dir = instance_run_path(instance_engine(i), i->id);
                file_remove_tree(AT_FDCWD, dir, NULL);
                settle_boot(i);
                return;
        }
        run_bury(i, was_running);
}

static void settle(struct instance *i)
{
        auto_free char *dir = instance_run_path(instance_engine(i), i->id);
        if (access(dir, F_OK) < 0) {
                settle_boot(i);
                return;
        }
        auto_fd lock = -1;
        struct err err = { 0 };
        int r = link_lock(dir, &lock, &err);
        if (r == 0)
                adopt(i);
        else if (r == 1)
                settle_dead(i);
        else
                log_error("cannot look after %s: %s", i->name, err_text(&err));
}

/* -- leftovers ----------------------------------------------------------------- */

struct stray {
        struct engine *engine;
        char *id, *dir;
};

static void stray_deleted(void *arg, int r, const struct err *err)
{
        struct stray *stray = arg;
        if (r < 0)
                log_debug("stray container %s: %s", stray->id, err_text(err));
        struct err why = { 0 };
        if (file_remove_tree(AT_FDCWD, stray->dir, &why) < 0)
                log_warning("cannot remove '%s': %s", stray->dir, err_text(&why));
        free(stray->id);
        free(stray->dir);
        free(stray);
}

static void delete_stray_run(struct engine *engine, const char *id)
{
        struct stray *stray = new0(struct stray);
        *stray = (struct stray){ engine, xstrdup(id), instance_run_path(engine, id) };
        auto_fd lock = -1;
        if (link_lock(stray->dir, &lock, NULL) == 0) {
                pid_t pid = link_lock_pid(stray->dir);
                if (pid > 1)
                        kill(-pid, SIGKILL);
        }
        log_info("removing what is left of container %s", id);
        runtime_run(engine, stray_deleted, stray, "delete", "--force", id, NULL);
}

/* Calls `found` for every entry of a directory that has no object. */
static void each_stray(struct engine *engine, const char *path, const struct table *known,
                       bool (*is_ours)(const char *name),
                       void (*found)(struct engine *engine, const char *name))
{
        auto_dir dir = opendir(path);
        struct dirent *entry;
        while (dir && (entry = readdir(dir))) {
                if (streq(entry->d_name, ".") || streq(entry->d_name, "..") ||
                    !is_ours(entry->d_name) || table_get(known, entry->d_name))
                        continue;
                found(engine, entry->d_name);
        }
}

static void delete_stray_files(struct engine *engine, const char *id)
{
        leftovers_delete(engine, id, NULL);
}

static void delete_stray_snapshots(struct engine *engine)
{
        auto_strv ids = NULL;
        if (snapshot_list(engine->images, &ids, NULL) < 0)
                return;
        for (char **id = ids; id && *id; id++)
                if (!table_get(&engine->by_id, *id))
                        leftovers_delete(engine, *id, NULL);
}

int engine_reconcile(struct engine *engine, struct err *err)
{
        int r = load_records(engine, err);
        if (r < 0)
                return r;
        each_stray(engine, engine->run_instances_dir, &engine->by_id, is_id, delete_stray_run);
        if (store_revision(engine->store) == 0) {
                log_debug("the state store is new: what '%s' and the snapshots hold is not "
                          "touched, though it has no records",
                          engine->instances_dir);
        } else {
                each_stray(engine, engine->instances_dir, &engine->by_id, is_id,
                           delete_stray_files);
                delete_stray_snapshots(engine);
        }
        /* By id, for settling may take instances off the list. */
        auto_strv ids = NULL;
        for (struct instance *i = instance_first(engine); i; i = instance_next(i))
                strv_push(&ids, i->id);
        for (char **id = ids; id && *id; id++) {
                struct instance *i = table_get(&engine->by_id, *id);
                if (i)
                        settle(i);
        }
        return execs_reconcile(engine, err);
}
