/* Instances: create, start, stop, remove and all that lies between.
 *
 * `struct instance` belongs to the engine; callers read it on the loop thread
 * and keep no pointer across a return to the loop (hold the id instead, or
 * instance_ref()). An instance that is removed while referenced stays readable
 * with state INSTANCE_REMOVED.
 *
 * Threads: loop thread only. See engine.h for `done` and the codes.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "engine/engine.h"
#include "engine/health.h"
#include "engine/spec.h"

#define INSTANCE_ID_SIZE 65 /* 64 hex digits and NUL */

enum instance_state {
        INSTANCE_CREATED,
        INSTANCE_RUNNING,
        INSTANCE_PAUSED,
        INSTANCE_RESTARTING, /* waits for its restart delay */
        INSTANCE_REMOVING,
        INSTANCE_EXITED,
        INSTANCE_DEAD,    /* removal failed half-way */
        INSTANCE_REMOVED, /* gone; only references are left */
};

/* "created", "running" … as docker's State.Status. */
const char *instance_state_name(enum instance_state state);

/* A mount point of the instance as inspect's Mounts shows it. */
struct instance_mount {
        char *type;        /* bind, volume, tmpfs */
        char *name;        /* of the volume */
        char *source;      /* on the host */
        char *destination; /* in the instance */
        char *driver;      /* "local" for volumes */
        char *mode;        /* options as given: "z", "ro" */
        char *propagation;
        char *options; /* tmpfs mount options */
        bool read_write;
        bool copy_up; /* volume filled from the image on first use */
        bool non_recursive;
};

struct instance {
        char id[INSTANCE_ID_SIZE];
        char *name;                /* without the slash */
        struct instance_spec spec; /* merged with the image's configuration */
        char *image_id;            /* "sha256:…" */
        char **argv;               /* what runs: entrypoint + cmd */
        struct instance_mount *mounts;
        size_t mounts_length;

        enum instance_state state;
        pid_t pid; /* of its init on the host, 0 when not running */
        int exit_code;
        char *error; /* of the last start, NULL or text */
        bool oom_killed;
        unsigned restart_count;
        bool stopped_by_user; /* a stop or kill was asked for since the last start */
        int64_t created_ns, started_ns, finished_ns; /* real time; 0 is never */
        struct health health;                        /* of this isled's time: not recorded */

        char *log_path; /* json-file log; NULL with log driver none */
        char *hostname_path, *hosts_path, *resolv_conf_path;

        struct instance_private *private; /* the engine's */
};

/* By full id, unique id prefix, or name (a leading slash is allowed). A name wins
 * over an id prefix. NULL with "No such container: x" or an ambiguity error. */
struct instance *instance_find(struct engine *engine, const char *name_or_id, struct err *err);

/* In order of creation, newest first. `for (i = instance_first(e); i; i = instance_next(i))`;
 * do not return to the loop between. */
struct instance *instance_first(struct engine *engine);
struct instance *instance_next(struct instance *instance);

struct instance *instance_ref(struct instance *instance);
void instance_unref(struct instance *instance);

/* State in docker's words: "Up 2 minutes (Paused)", "Exited (0) 3 hours ago". */
char *instance_status_text(const struct instance *instance, int64_t now_ns);

/* "kvm" or "soft": what runs its virtual machine. Heap; NULL where it has none that runs. */
char *instance_vm_cpu(const struct instance *instance);

/* `spec` is copied; `name` NULL or "" draws one. `warnings` is borrowed. */
typedef void instance_created(void *arg, int r, const struct err *err, struct instance *instance,
                              char *const *warnings);
void instance_create(struct engine *engine, const char *name, const struct instance_spec *spec,
                     instance_created *done, void *arg);

/* -EALREADY when it runs. Done when the command has been executed (or could not be). */
void instance_start(struct instance *instance, const char *detach_keys, engine_done *done,
                    void *arg);

#define INSTANCE_TIMEOUT_DEFAULT INT64_MIN /* the instance's StopTimeout, else 10 s */
#define INSTANCE_TIMEOUT_NEVER   (-1)

/* Stop signal, then SIGKILL after timeout_s. `signo` 0 is the instance's own.
 * Done when it has exited; -EALREADY when it does not run. Ends a pending restart. */
void instance_stop(struct instance *instance, int signo, int64_t timeout_s, engine_done *done,
                   void *arg);
void instance_restart(struct instance *instance, int signo, int64_t timeout_s, engine_done *done,
                      void *arg);
/* Done when the signal is delivered; for SIGKILL when it has exited. -EBUSY when it does not run.
 */
void instance_kill(struct instance *instance, int signo, engine_done *done, void *arg);
/* Number of "SIGTERM", "TERM" or "15"; -EINVAL. */
int instance_signal_parse(const char *text, struct err *err);

void instance_pause(struct instance *instance, engine_done *done, void *arg);
void instance_unpause(struct instance *instance, engine_done *done, void *arg);

/* -EBUSY when running and not `force`. `volumes` removes its anonymous volumes too. */
void instance_remove(struct instance *instance, bool force, bool volumes, engine_done *done,
                     void *arg);
void instance_rename(struct instance *instance, const char *name, engine_done *done, void *arg);

/* New resource limits and restart policy: members that are zero or absent in
 * `host` stay as they are. `warnings` as at creation. */
typedef void instance_updated(void *arg, int r, const struct err *err, char *const *warnings);
void instance_update(struct instance *instance, const struct host_config *host,
                     instance_updated *done, void *arg);

/* Terminal size. Not running: -EBUSY. */
int instance_resize(struct instance *instance, uint16_t rows, uint16_t columns, struct err *err);

/* -- waiting --------------------------------------------------------------- */
enum instance_condition { WAIT_NOT_RUNNING, WAIT_NEXT_EXIT, WAIT_REMOVED };

/* `error` is NULL or why waiting failed. Called once, never before instance_wait
 * has returned, unless cancelled. */
typedef void instance_exited(void *arg, int exit_code, const char *error);
struct instance_wait;
struct instance_wait *instance_wait(struct instance *instance, enum instance_condition condition,
                                    instance_exited *done, void *arg);
/* NULL allowed; not after `done`. */
void instance_wait_cancel(struct instance_wait *wait);

/* -- attach ---------------------------------------------------------------- */
struct attach_options {
        bool in, out, err;
        bool logs;               /* first what the log holds */
        bool stream;             /* then what comes; false closes after the logs */
        const char *detach_keys; /* "ctrl-p,ctrl-q"; NULL or "" is that; only with a tty */
        const void *early;       /* bytes the client sent behind its request: input */
        size_t early_size;       /* at most ATTACH_EARLY_MAX */
};
#define ATTACH_EARLY_MAX 32768

/* Hands the client's own connection to the monitor, which frames output on it
 * (raw with a tty, else docker's 8-byte stream headers) and closes it in the
 * end; an attach outlives isled. An instance that does not run yet gets it at
 * its next start. `client_fd` is taken, also on failure. */
int instance_attach(struct instance *instance, const struct attach_options *options, int client_fd,
                    struct err *err);
/* Syntax of detach keys: "ctrl-p,ctrl-q", "a,b". */
int detach_keys_check(const char *text, struct err *err);

/* -- looking inside -------------------------------------------------------- */
struct instance_top {
        char **titles;
        char ***rows; /* NULL-terminated list of strv, one value per title */
};
/* `ps_args`: "-ef" when NULL or "". `top` is borrowed during the call. */
typedef void instance_topped(void *arg, int r, const struct err *err,
                             const struct instance_top *top);
void instance_top(struct instance *instance, const char *ps_args, instance_topped *done, void *arg);

struct instance_change {
        int kind; /* 0 modified, 1 added, 2 deleted */
        char *path;
};
typedef void instance_changed(void *arg, int r, const struct err *err,
                              const struct instance_change *changes, size_t length);
void instance_changes(struct instance *instance, instance_changed *done, void *arg);

/* Bytes in its writable layer (SizeRw) and with its image (SizeRootFs). */
typedef void instance_measured(void *arg, int r, const struct err *err, uint64_t rw_bytes,
                               uint64_t total_bytes);
void instance_measure(struct instance *instance, instance_measured *done, void *arg);

/* -- many ------------------------------------------------------------------ */
/* Filters of docker's prune: until=…, label=k[=v], label!=k. Decoded by prune_filter_parse. */
struct prune_filter {
        int64_t until_ns; /* 0: any age */
        char **labels, **labels_not;
        bool all; /* volumes: named ones too */
};
int prune_filter_parse(const char *json, struct prune_filter *ret, struct err *err);
void prune_filter_finish(struct prune_filter *filter);

typedef void engine_pruned(void *arg, int r, const struct err *err, char *const *removed,
                           uint64_t reclaimed_bytes);
/* Removes every instance that does not run. */
void instance_prune(struct engine *engine, const struct prune_filter *filter, engine_pruned *done,
                    void *arg);
