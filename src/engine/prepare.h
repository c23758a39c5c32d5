/* Everything between "start" and a monitor that runs: on a worker thread. */
#pragma once

#include "engine/core.h"
#include "engine/link.h"

struct prepare_input {
        const struct engine *engine;         /* settings and paths only */
        const struct instance *instance;     /* does not change while it starts */
        pid_t ipc_pid, network_pid, pid_pid; /* of the instances whose name spaces it joins */
};

/* Mounts the root file system, looks the user up in it, writes the bundle, spawns the
 * monitor. On failure nothing is left but the run directory. */
int prepare_run(const struct prepare_input *input, struct link_process *ret, struct err *err);
