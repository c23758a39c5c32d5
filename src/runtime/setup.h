/* From "a process in the right namespaces" to "the program of the spec": limits,
 * identity, capabilities, filter, exec. Used by the first process of a container
 * (init.c) and by those of exec (join.c), after the tree was entered.
 *
 * The order matters and is fixed in setup.c: what needs privilege comes before
 * it is given up, the seccomp filter comes last, or, where no_new_privs is off
 * and loading it therefore needs privilege, just before that is given up.
 */
#pragma once

#include <stdbool.h>

#include "runtime/filter.h"
#include "runtime/hooks.h"
#include "runtime/plan.h"

struct setup {
        const struct plan_process *process;
        const struct oci_linux
                *linux_; /* of the container: personality, memory policy; NULL for exec */
        const struct filter *filter;    /* NULL or empty: none */
        const struct hook_state *state; /* for the seccomp listener and hooks */
        struct hook_set start_hooks;    /* startContainer */
        const char *keyring;            /* name of the session keyring; NULL to keep the caller's */
        /* Others in its pid namespace may not trace it before it executes the program, when
         * it already has no more rights than they. */
        bool hidden;
        int proc_fd;    /* the host's /proc, opened before the tree was entered */
        int report_fd;  /* errors go here (sync.h); closed by exec */
        int listen_fd;  /* wait here for `start`, or -1 to go on at once */
        int seccomp_fd; /* connected to the listener of notifications, or -1 */
        int wait_fd;    /* sync: SYNC_READY is sent and SYNC_GO awaited here, or -1 */
        unsigned preserve_fds;
        int pass_fd;          /* stays open in the program, or -1 */
        const char *affinity; /* list of CPUs for exec; NULL */
};

/* crun's annotation: the process has the supplementary groups of who called the runtime. */
bool setup_keeps_groups(char *const *annotations);

/* Returns only on failure. */
int setup_and_exec(struct setup *setup, struct err *err);

/* The terminal of a process: opens the pty in the container's devpts, makes it
 * the controlling terminal and standard descriptors, binds it over /dev/console
 * when `root_fd` is not -1, and sends the master to `socket_fd`. With `foreground` it is
 * as our caller's terminal is. */
int console_create(int pts_dirfd, int root_fd, int socket_fd, bool foreground,
                   const struct oci_process *process, struct err *err);
/* The devpts of the tree whose root is `root_fd`. */
int console_open_pts(int root_fd, int *ret_dirfd, struct err *err);

/* Waits on the listening socket for `start`; *ret_fd is its connection. */
int start_wait(int listen_fd, int *ret_fd, struct err *err);

/* Whether the host has the security modules that are asked for; before its tree is left. */
int attributes_check(const struct oci_process *oci, struct err *err);
/* Attributes that need no order: attributes.c. */
int attributes_apply(const struct setup *setup, struct err *err);
/* Loads the filter, and hands its listener to setup->seccomp_fd. */
/* To who listens for this filter's notifications. */
int listener_connect(const struct filter *filter, int *ret_fd, struct err *err);
int listener_load(const struct setup *setup, struct err *err);
