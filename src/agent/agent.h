/* The first process of a guest that runs one container: isle-agent.
 *
 * It makes the guest ready (file systems, modules, the shared directory), tells the
 * host so, and serves the host's requests (message.h) until the machine is ended from
 * outside. Everything about containers is done by the OCI runtime's own program, which
 * it runs; the agent owns the streams and the exit statuses. One thread, no state that
 * outlives it. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "agent/message.h"
#include "agent/pump.h"

#define AGENT_RUNTIME "/bin/isle-runtime"
#define AGENT_STREAMS 3

/* Mounts, modules, cgroup controllers: setup.c. */
int agent_setup(struct err *err);
/* Loads the modules of a directory of the initial ramdisk; there may be none. */
int agent_load_modules(const char *directory, struct err *err);
/* Reads the kernel's command line; heap words. */
char **agent_command_line(void);
/* Makes the root of layers, where the command line asks for one: layers.c. */
int agent_mount_layers(struct err *err);
/* That was all: the machine boots for a template of memory, and goes off. */
bool agent_only_boots(void);

/* --- kills for want of memory: oom.c --- */

struct cgroup;

struct oom {
        struct cgroup *group; /* NULL: none is watched */
        int fd;               /* polls POLLIN when there may be more kills; -1 */
        uint32_t kills;
};

/* Of the group that the process is in. */
int oom_watch(struct oom *oom, pid_t pid, struct err *err);
/* Brings the count up to date: there were more. */
bool oom_look(struct oom *oom);
void oom_finish(struct oom *oom);

/* --- a process and its streams: process.c --- */

struct process {
        struct process *next;
        char *key;
        int streams[AGENT_STREAMS]; /* that wait for the launch; -1 */
        pid_t pid;                  /* 0 before the launch */
        int master;                 /* of its terminal, or -1; the pumps' too */
        struct pump pumps[AGENT_STREAMS];
        bool is_first;  /* of the container's processes */
        struct oom oom; /* of the container's first process */
        bool ended;
        int exit_code;
};

/* Runs the runtime with the request's arguments; on success process->pid is the new
 * process's and its streams run. */
int process_launch(struct process *process, const struct agent_request *request, struct err *err);
/* It has ended: what it wrote is still passed on. */
void process_ended(struct process *process, int status);
/* It and its group, if it has not ended. */
void process_kill(const struct process *process);
void process_resize(struct process *process, unsigned rows, unsigned columns);
void process_free(struct process *process);

/* Gives the cards of a request of this kind to the network namespace of `pid`: network.c. */
int agent_give_cards(const struct agent_request *request, pid_t pid, struct err *err);

/* The first `count` processors work, all others rest: cpus.c. */
int agent_set_cpus(uint32_t count, struct err *err);

/* Moves the real time: clock.c. */
int agent_move_clock(int64_t shift_ns, bool gently, struct err *err);

/* Files into a container and out of it, in a process of its own, which answers and goes on with the
 * connection: receive.c. `pid`: of the container. */
int agent_move_files(const struct agent_request *request, pid_t pid, int fd, struct err *err);
/* The second half of a request `archive`, by that process: send.c. */
void agent_send(const struct agent_request *request, int root_fd, int fd);

/* Answers a request of this kind: list.c. */
int agent_list(struct agent_reply *ret, struct err *err);

/* --- running the runtime: runtime.c --- */

struct runtime_run {
        char *const *argv;         /* after the global flags */
        int fds[AGENT_STREAMS];    /* the child's standard descriptors; -1: see below */
        struct buf output, errors; /* collected where fds[1], fds[2] are -1 */
        int code;
};

/* Waits for its end. What the runtime says of itself goes to its log, and is returned
 * in `errors`, also where the standard descriptors are somebody else's. */
int runtime_run(struct runtime_run *run, struct err *err);
/* What the runtime gave as its last reason. */
const char *runtime_reason(const struct runtime_run *run);
void runtime_run_finish(struct runtime_run *run);

/* Serves for ever: server.c. */
int agent_serve(struct err *err);
