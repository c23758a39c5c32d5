/* The engine's own structures, for its files only.
 *
 * Theory of operation.
 *
 * An instance is a record in the store (instances/ID, names/NAME), an object in
 * memory, a directory ROOT/instances/ID and a snapshot. While it runs there is a
 * `struct run` (run.h): one monitor process and the connection to it.
 *
 * What users ask for becomes a `struct operation` (operation.h) in the instance's
 * queue: one at a time, so start, stop and remove never interleave; kill is not
 * queued. An operation begins, perhaps gives work to a worker or a command, and is
 * told by operation_advance() whenever the run changes. A stuck run holds up its
 * own instance only, and a forced removal or a stop's time limit aborts it.
 *
 * Nothing is a truth of its own in memory: records are written when things change,
 * what runs is known from the monitors' locks and sockets, so that engine_create()
 * after a kill -9 finds everything again (reconcile.c).
 */
#pragma once

#include <sys/types.h>

#include "base/auto.h"
#include "base/list.h"
#include "base/str.h"
#include "base/table.h"
#include "engine/engine.h"
#include "engine/events.h"
#include "engine/instance.h"
#include "engine/remap.h"
#include "loop/loop.h"
#include "loop/workers.h"
#include "store/store.h"

struct probe;
struct run;
struct operation;

struct engine {
        struct loop *loop;
        struct workers *workers;
        struct workers *streams; /* tar streams: may take as long as their clients */
        struct store *store;
        struct image_store *images;
        struct engine_settings settings;
        char *owned[10];                         /* the settings' strings */
        char *instances_dir, *volumes_dir;       /* ROOT/… */
        char *run_instances_dir, *run_execs_dir; /* RUN/… */
        bool swap_limit;                         /* the host can limit swap */
        struct id_remap remap;

        struct table by_id;    /* -> struct instance */
        struct table by_name;  /* -> struct instance, or &name_reserved */
        struct list instances; /* newest first */
        struct table execs;
        struct table volumes;

        struct kept_event *kept; /* ring of EVENTS_KEPT */
        size_t kept_next;
        struct list subscriptions;
        struct list children; /* child.h */
        struct list commands; /* command.c */
        unsigned endings;     /* runs that are over and not yet cleaned up */
        struct list log_streams;
        struct list adoptions; /* reconcile.c */
};

/* What by_name holds for a name whose instance is being created. */
extern char name_reserved;

struct pending_attach {
        struct list node;
        int fd;
        unsigned flags; /* MONITOR_ATTACH_… */
        uint8_t keys[64];
        size_t keys_size;
        void *early;
        size_t early_size;
};

struct instance_private {
        struct engine *engine;
        struct list node;
        unsigned references;
        struct run *run;
        struct list operations; /* struct operation; the first one is under way */
        struct list waits;
        struct list attaches; /* for the next start */
        struct list execs;
        struct loop_source *restart_timer;
        struct loop_source *probe_timer; /* probe.c: NULL where nothing is checked */
        struct probe *probe;             /* under way */
        bool probing;                    /* its health is checked while it runs */
        bool probes_held;                /* but not now: it is told to end */
        int64_t restart_delay_ns;
        unsigned failures_in_a_row; /* restarts since a long enough run */
        bool dirty;                 /* a save is due */
        bool listed;                /* in the engine's tables */
        bool removing;              /* a removal is queued or under way */
};

static inline struct engine *instance_engine(const struct instance *instance)
{
        return instance->private->engine;
}

/* -- instance.c ---------------------------------------------------------------- */
/* An object with one reference, in no table. */
struct instance *instance_new(struct engine *engine, const char *id);
/* Fills the paths that follow from id and spec. */
void instance_set_paths(struct instance *instance);
/* Puts it into the tables, which takes a reference. */
void instance_enlist(struct instance *instance);
void instance_delist(struct instance *instance);
bool instance_is_running(const struct instance *instance); /* running or paused */
void instance_set_state(struct instance *instance, enum instance_state state);
/* Emits "container" ACTION with docker's attributes (image, name, labels) and `extra`, a
 * list of "key=value" that ends with NULL. */
void instance_event(struct instance *instance, const char *action, const char *const *extra);
#define INSTANCE_EVENT(instance, action, ...)                                                      \
        instance_event(instance, action, (const char *const[]){ __VA_ARGS__ __VA_OPT__(, ) NULL })
char *instance_root_path(const struct engine *engine, const char *id); /* ROOT/instances/ID */
/* The root of a running instance: where its processes see it, beneath /proc; or where its machine
 * shares it from; or, where a machine makes it of layers, a look at these, read-only, which may
 * show what was taken away where the caller does not look: outside of the directory `within`
 * ("etc"; NULL: it looks everywhere, which takes longer the more was written). Blocks. -EBUSY where
 * the instance has just ended. live_root.c. */
int instance_open_live_root(const struct instance *instance, pid_t pid, const char *within,
                            int *ret_fd, struct err *err);
char *instance_run_path(const struct engine *engine, const char *id); /* RUN/instances/ID */
char *instance_cgroup_path(const struct engine *engine, const struct instance *instance);

/* -- record.c ------------------------------------------------------------------ */
/* Writes the record now, or soon (once per turn of the loop). Failures are logged. */
void instance_save(struct instance *instance);
void instance_save_soon(struct instance *instance);

/* -- wait.c -------------------------------------------------------------------- */
/* Tells the waits what happened: a stop for good, or the removal. */
void instance_waits_exited(struct instance *instance);
void instance_waits_removed(struct instance *instance);
void instance_waits_failed(struct instance *instance, const char *error);

/* -- reconcile.c --------------------------------------------------------------- */
int engine_reconcile(struct engine *engine, struct err *err);
void adoptions_destroy(struct engine *engine);

/* -- logs.c, command.c, operation.c: at the engine's end ----------------------- */
void logs_destroy(struct engine *engine);
void commands_destroy(struct engine *engine);
void operations_drop(struct instance *instance);

/* -- exec.c -------------------------------------------------------------------- */
void execs_instance_ended(struct instance *instance);
void execs_instance_removed(struct instance *instance);
int execs_reconcile(struct engine *engine, struct err *err);
void execs_destroy(struct engine *engine);

/* -- events.c ------------------------------------------------------------------ */
void events_finish(struct engine *engine);

/* -- volume.c ------------------------------------------------------------------ */
int volumes_load(struct engine *engine, struct err *err);
void volumes_destroy(struct engine *engine);
