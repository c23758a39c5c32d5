/* Creating a container: the runtime's side.
 *
 * Theory of operation.
 *
 *   parent                                child (init.c)
 *   ------                                --------------
 *   config.json -> spec -> plan
 *   mkdir state directory (wins the id)
 *   record what will exist
 *   make cgroups
 *   let go of the own binary (exe_guard)
 *   clone3 ------------------------------> in its namespaces
 *   id maps          -- SYNC_MAPPED -->    becomes root of a new user namespace
 *   limits           -- SYNC_CGROUP ->     joins the cgroup (version 1)
 *                                          mounts, devices
 *   hooks            <- SYNC_HOOKS ---     (only where there are any)
 *                    -- SYNC_GO ------>    pivot, limits, identity
 *   record its pid   <- SYNC_READY ---     (only for create)
 *                    -- SYNC_GO ------>    run: exec. create: wait for start
 *
 * Messages the other side need not wait for are sent ahead, so a plain `run`
 * costs one wait. If either side dies the other sees the end of the stream: the
 * child never gets further without the parent's last word, which comes after the
 * pid was recorded; what a dead parent leaves is in the record.
 */
#pragma once

#include <stdbool.h>

#include "runtime/filter.h"
#include "runtime/hooks.h"
#include "runtime/plan.h"
#include "runtime/scope.h"
#include "runtime/state.h"
#include "sys/cgroup.h"

struct launch;

/* For who makes the process something else than the program of the spec (src/guest: a
 * virtual machine that runs it; checkpoint.h: what was running). The record keeps the
 * config.json as it was. Each function may be NULL. */
struct launch_variant {
        /* After config.json was read: the container is made from what this leaves in
         * launch->spec. Nothing exists yet but what `arg` owns. */
        int (*transform)(struct launch *launch, void *arg, struct err *err);
        /* The state directory exists and is ours, and is removed as a whole. */
        int (*prepare)(struct launch *launch, void *arg, struct err *err);
        /* The process executes its program; it does not wait for `start` itself:
         * launch->listen_fd, if any, is to be given to it. */
        int (*accompany)(struct launch *launch, void *arg, struct err *err);
        /* In the place of the clone and all that follows up to the poststart hooks; neither
         * the filter nor sources of mounts are prepared. Sets launch->pid. */
        int (*make)(struct launch *launch, void *arg, struct err *err);
        int pass_fd; /* stays open in the program */
        void *arg;
};

struct launch_options {
        const char *root, *id, *bundle;
        const char *config;                    /* in the bundle, or absolute; NULL: config.json */
        const char *console_socket, *pid_file; /* NULL for none */
        unsigned preserve_fds;
        bool no_pivot, no_new_keyring, detach;
        bool systemd_cgroup;                  /* the systemd driver: scope.h */
        bool wait_for_start;                  /* create, not run */
        bool crun_status;                     /* the state has crun's file, too */
        char *const *argv;                    /* of the program, for exe_guard */
        const struct launch_variant *variant; /* NULL for a plain container */
};

struct launch {
        const struct launch_options *options;
        char *bundle;      /* absolute */
        char *config_text; /* of config.json */
        struct oci_spec spec;
        struct plan plan;
        struct filter filter;
        struct state state;
        struct record record;
        struct scope *scope;     /* of the systemd driver, or NULL */
        struct cgroup *cgroup;   /* NULL where there are none (rootless) */
        struct cgroup_door door; /* how the child joins it; empty where that is done for it */
        bool joins_cgroup;       /* by itself */
        int guard_fd;            /* of exe_guard(); the child never keeps it */
        int proc_fd;
        int parent_fd, child_fd; /* of sync.h */
        int listen_fd;           /* of start.h, or -1 */
        int notify_fd;           /* of notify.h, when we are to listen, or -1 */
        int console_fd;          /* where the child sends the pty's master, or -1 */
        int master_socket_fd;    /* our end of it when we are the terminal, or -1 */
        int seccomp_fd;
        int root_source_fd;
        int *source_fds; /* per mount */
        int *device_fds; /* per device */
        int *join_fds;   /* per join of the plan */
        pid_t pid;
        int pidfd;
        bool rdt_made;
        bool made;          /* the state directory is ours */
        char *notify_place; /* where the socket is for the program to tell (notify.h), or NULL */
};

/* On failure everything is undone. On success the container is created or, with
 * !wait_for_start, its program runs; the caller has launch_finish to call. */
int launch_container(const struct launch_options *options, struct launch *ret, struct err *err);
void launch_finish(struct launch *launch);

/* The child. */
void init_main(struct launch *launch) __attribute__((noreturn));

/* Clones the child, through joined namespaces where there are any: clone.c. */
struct clone_request {
        int flags; /* CLONE_NEW… */
        const struct plan_join *joins;
        const int *join_fds; /* -1: skip (it is our own) */
        size_t joins_length;
        int target_pidfd, target_flags; /* exec: join all of this process's at once; -1 */
        int cgroup_fd;                  /* -1 */
        void (*child)(void *arg);       /* does not return */
        void *arg;
};
int clone_child(const struct clone_request *request, pid_t *ret_pid, int *ret_pidfd,
                struct err *err);

/* linux.intelRdt: what will be made, into the record; then it is. */
int launch_name_rdt(struct launch *launch, struct err *err);
int launch_make_rdt(struct launch *launch, struct err *err);

/* Parts, for a variant's make(). */
/* The systemd driver's scope around launch->pid; nothing with the other. */
int launch_start_scope(struct launch *launch, struct err *err);
int launch_apply_limits(struct launch *launch, struct err *err);
/* prestart and createRuntime, with launch->pid. */
int launch_run_hooks(struct launch *launch, struct err *err);
/* The record of the process and the pid file. */
int launch_finish_record(struct launch *launch, struct err *err);

int write_pid_file(const char *path, pid_t pid, struct err *err);
