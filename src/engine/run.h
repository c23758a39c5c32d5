/* One run of an instance: from the first preparation until its monitor has gone. */
#pragma once

#include "engine/core.h"
#include "engine/link.h"

enum run_phase {
        RUN_PREPARING, /* on a worker */
        RUN_STARTING,  /* the monitor and the runtime work */
        RUN_RUNNING,
        RUN_FAILED, /* never ran; the error is known */
        RUN_ENDED,  /* exit code known, the monitor cleans up */
        RUN_BURIAL, /* the monitor has gone; what it left is removed */
};

struct run {
        struct engine *engine;
        struct instance *instance; /* a reference */
        enum run_phase phase;
        struct link link;
        struct link_process process; /* between preparation and link_open */
        bool aborted;
        bool started; /* "start" has been told */
        bool deleted; /* the runtime's state is known to be gone */
        bool lost;    /* the monitor died under a running instance */
        char *text;   /* what the monitor said last: a failed delete */
        uint32_t oom_kills;
        struct err failure; /* of RUN_FAILED */
        struct loop_source *timer;
        pid_t ipc_pid, network_pid, pid_pid;
        int prepared;   /* result of the worker */
        bool leftovers; /* the instance was removed meanwhile: delete its files in the end */
        char **leftover_volumes;
};

/* Begins; the instance has no run. Failures come later, as RUN_FAILED. The instance's
 * operation is advanced at every change; instance->private->run is NULL in the end. */
void run_begin(struct instance *instance);
/* Kills whatever holds it up: monitor and runtime. */
void run_abort(struct instance *instance);
/* Takes over a run that a former isled began. -ENOENT, -ECONNREFUSED: the monitor does not
 * listen (yet). */
int run_adopt(struct instance *instance, struct err *err);
/* Cleans up after a monitor that is dead: what it recorded counts, else the instance is
 * killed. Used at start. */
void run_bury(struct instance *instance, bool was_running);
/* At the engine's end. */
void run_forget(struct instance *instance);

/* Exit code docker's CLI expects of a start that failed with this text: 126, 127 or 128. */
int run_failure_code(const char *text);

/* -- attach.c ------------------------------------------------------------------ */
/* Hands the waiting clients to the monitor. */
void attaches_send(struct instance *instance);
/* Closes them. */
void attaches_drop(struct instance *instance);
/* Fills an ATTACH from docker's options. `keys` holds MONITOR_KEYS_MAX bytes. */
int attach_message(const struct attach_options *options, uint8_t *keys, struct monitor_message *ret,
                   struct err *err);

/* -- ended.c ------------------------------------------------------------------- */
/* The instance's init has ended: records, tells, restarts or removes. */
void instance_ended(struct instance *instance, int exit_code, bool oom_killed, int64_t finished_ns);
void instance_start_failed(struct instance *instance, const struct err *why);
/* Takes a pending restart back. */
void instance_cancel_restart(struct instance *instance);
