/* isle-monitor: minds one run of an instance, or one exec session.
 *
 * Theory of operation. One process, one thread, one epoll set. Its life:
 *
 *   WAITING   started by isled; attach clients may already be handed over
 *   STARTING  START came: pipes or a console socket are made, the OCI runtime runs
 *             (launch.h). Output is not read yet: what a failing runtime prints
 *             must not pass for the instance's
 *   RUNNING   the runtime has gone; the instance's init is our child, because we
 *             are a subreaper. Output goes to the log and the clients, the
 *             clients' input to the instance
 *   EXITED    init has gone and its output is read to the end (at most
 *             MONITOR_DRAIN_NS of silence, MONITOR_DRAIN_MAX_NS in all, where a descendant
 *             outside its pid namespace keeps the pipe). exit.json is written, isled told, the
 *             runtime's state deleted; then root file system, lock and sockets are given up, and
 * the last bytes brought to the clients
 *
 * isled may die and come back at any time: nothing here waits for it, except
 * before START. A monitor that dies takes no state with it that isled cannot
 * find: the lock is free then, the container is deleted by force.
 *
 * Memory is bounded: per client CLIENT_QUEUE_BYTES and one read, MONITOR_INPUT_BYTES of
 * input, one line per stream.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/list.h"
#include "monitor/jsonlog.h"
#include "monitor/options.h"
#include "monitor/protocol.h"
#include "monitor/source.h"

#define MONITOR_CONNECTIONS  4
#define MONITOR_CLIENTS_MAX  64
#define MONITOR_INPUT_BYTES  65536u
#define MONITOR_READ_BYTES   65536u
#define MONITOR_DRAIN_NS     (500 * 1000000LL)
#define MONITOR_DRAIN_MAX_NS (3000 * 1000000LL)

struct cgroup;

struct connection {
        struct source source;
        bool dirty; /* owes a STATE */
};

struct monitor {
        const struct monitor_options *options;
        int epoll_fd;
        int lock_fd, rootfs_fd; /* -1 when given up */
        struct source signals, listener, console;
        struct source oom, machine_oom; /* of the group; of the guest */
        struct source oom_again;        /* time to look at the group's count once more */
        unsigned oom_looks;             /* how often that was */
        struct connection connections[MONITOR_CONNECTIONS];
        struct list clients;
        unsigned clients_length;

        struct source out[2]; /* stdout or the terminal; stderr */
        struct source in;     /* stdin pipe; unused with a terminal */
        struct buf input;     /* not yet taken by the instance */
        bool in_closing;      /* close stdin when input is empty */
        bool in_gone;         /* the instance does not read any more */
        uint16_t rows, columns;
        struct jsonlog log;

        enum monitor_phase phase;
        pid_t runtime_pid, init_pid, delete_pid; /* 0: none */
        uint64_t init_start_time;
        bool init_exited;
        bool kill_wanted;
        int exit_code;
        int64_t started_ns, finished_ns;
        int64_t drain_deadline_ns, drain_end_ns; /* monotonic; after silence, and at most */
        uint32_t oom_kills;
        struct cgroup *cgroup;
        char *text; /* why it failed */
        bool released;
};

/* Runs to the end; returns the process's exit code. */
int monitor_run(const struct monitor_options *options);

/* -- loop.c ------------------------------------------------------------------ */
/* Registers, changes or (events 0) removes interest. A source without descriptor is fine. */
void source_watch(struct monitor *monitor, struct source *source, uint32_t events);
/* Removes and closes. */
void source_close(struct monitor *monitor, struct source *source);

/* -- stdio.c ----------------------------------------------------------------- */
/* Makes the instance's descriptors and starts the runtime. */
int stdio_launch(struct monitor *monitor, struct err *err);
/* Takes the terminal the runtime has sent. */
int stdio_accept_console(struct monitor *monitor, struct err *err);
void stdio_attach(struct monitor *monitor, const struct monitor_message *attach, int fd);
void stdio_resize(struct monitor *monitor, uint16_t rows, uint16_t columns);
/* Brings every source's interest up to date. */
void stdio_update(struct monitor *monitor);
/* Drops clients that are dead or out of patience; the next deadline (monotonic), or 0. */
int64_t stdio_sweep(struct monitor *monitor, int64_t now_ns);
/* No more output is read; clients end when they have all of it. */
void stdio_finish(struct monitor *monitor);
bool stdio_drained(const struct monitor *monitor);

/* -- oom.c ------------------------------------------------------------------- */
void oom_watch(struct monitor *monitor);
/* Brings oom_kills up to date. */
void oom_count(struct monitor *monitor);
void oom_close(struct monitor *monitor);

/* -- control.c --------------------------------------------------------------- */
int control_open(struct monitor *monitor, struct err *err);
/* Sends the state to every connection. */
void control_publish(struct monitor *monitor);
void control_detached(struct monitor *monitor);
void control_close(struct monitor *monitor);

/* -- monitor.c --------------------------------------------------------------- */
void monitor_start(struct monitor *monitor);
void monitor_kill(struct monitor *monitor);
