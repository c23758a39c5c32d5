/* Starting a helper program without inheriting anything by accident.
 *
 * The child is cloned with CLONE_VM | CLONE_VFORK | CLONE_PIDFD: nothing of the
 * caller's memory is copied, so the cost does not grow with the caller, and a
 * failed exec is told to the caller as an error instead of as exit code 127.
 * The child starts with
 *  - exactly the descriptors of `fds`, whatever overlaps there are between
 *    `from` and `to`; standard ones that are not named are /dev/null; every
 *    other descriptor is closed by exec, CLOEXEC or not;
 *  - all signals unblocked and at their defaults;
 *  - the environment `envp` only (NULL passes the caller's on, but for NOTIFY_SOCKET: who has been
 *    told to say that it is ready is the caller, sd_notify(3)).
 *
 * The caller must reap the child (waitid with P_PIDFD, or waitpid). Callable
 * from any thread; all signals of the calling thread are blocked meanwhile.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"

struct spawn_fd {
        int from; /* in the caller; stays open there */
        int to;   /* in the child, 0 … SPAWN_FD_MAX */
};

#define SPAWN_FD_MAX    1023
#define SPAWN_FDS_LIMIT 64 /* length of `fds` */

struct spawn {
        const char *path; /* of the program; without a slash it is looked up in PATH */
        char *const *argv;
        char *const *envp; /* NULL: the caller's environment, see above */
        const char *cwd;   /* NULL: the caller's */
        const struct spawn_fd *fds;
        size_t fds_length;
        bool new_session;     /* setsid() */
        bool controlling_tty; /* with new_session: descriptor 0 becomes it */
        int death_signal;     /* sent to the child when the calling thread ends; 0 for none */
        int cgroup_fd;        /* v2 directory to start in; 0 for the caller's */
};

/* *ret_pidfd (CLOEXEC) belongs to the caller; ret_pidfd may be NULL. */
int spawn_process(const struct spawn *spawn, pid_t *ret_pid, int *ret_pidfd, struct err *err);
