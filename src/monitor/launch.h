/* Running the OCI runtime for one instance or exec session.
 *
 * The root file system arrives as a detached mount (isled made it with fsmount,
 * so it has no path on the host). launch_runtime() enters a new mount namespace,
 * attaches it at ./rootfs there, starts the runtime, which therefore sees it, and
 * returns to the host's namespace: from then on only the container holds the
 * mount, and the kernel drops it whoever dies in whatever order.
 */
#pragma once

#include <sys/types.h>

#include "monitor/options.h"

/* What an instance's descriptors 0, 1 and 2 become; -1 is /dev/null. */
struct launch_stdio {
        int in, out, err;
};

/* Starts `RUNTIME run` or `RUNTIME exec` detached; the runtime is our child and
 * ends when the command has been executed. `rootfs_fd` is -1 for exec. */
int launch_runtime(const struct monitor_options *options, const struct launch_stdio *stdio,
                   int rootfs_fd, pid_t *ret_pid, struct err *err);

/* Starts `RUNTIME delete --force ID`. */
int launch_delete(const struct monitor_options *options, pid_t *ret_pid, struct err *err);

/* What the runtime said when it failed, on the heap: the last error message of its
 * JSON log, or a sentence with its exit code. */
char *launch_failure(int wait_status);

/* The pid the runtime wrote to init.pid. */
int launch_read_pid(pid_t *ret_pid, struct err *err);

/* Listens at ./console.sock, where the runtime sends the terminal. */
int launch_console_listen(int *ret_fd, struct err *err);
