/* The connection to one monitor process (src/monitor/protocol.h).
 *
 * Made by spawning a monitor (link_spawn runs on a worker; link_open then watches it
 * on the loop) or by connecting to one that outlived a former isled. */
#pragma once

#include "engine/child.h"
#include "engine/core.h"
#include "monitor/protocol.h"

struct link_events {
        /* The monitor's state; several may come, also equal ones. */
        void (*state)(void *arg, const struct monitor_message *state);
        void (*detached)(void *arg);
        /* Last of all: the monitor has let go (its lock is free), or died. */
        void (*gone)(void *arg);
};

struct link {
        struct engine *engine;
        int fd; /* -1: closed */
        pid_t pid;
        struct loop_source *io;
        struct child *process;
        const struct link_events *events;
        void *arg;
        bool told_gone;
        int *destroyed; /* set while a callback runs */
};

/* A monitor that was spawned: its process and our end of the socket pair. */
struct link_process {
        int control_fd, pidfd;
        pid_t pid;
};

/* Spawns `argv` in `dir`, which holds its files. Takes nothing: lock_fd and rootfs_fd (-1:
 * none) stay the caller's. Any thread. */
int link_spawn(char *const *argv, const char *dir, int lock_fd, int rootfs_fd,
               struct link_process *ret, struct err *err);
/* Loop thread; takes the descriptors of `process`, also on failure. */
int link_open(struct link *link, struct engine *engine, const struct link_process *process,
              const struct link_events *events, void *arg, struct err *err);
/* Connects to `dir`/monitor.sock of a running monitor. -ENOENT or -ECONNREFUSED where it
 * does not listen (yet). */
int link_connect(struct link *link, struct engine *engine, const char *dir,
                 const struct link_events *events, void *arg, struct err *err);
int link_send(struct link *link, const struct monitor_message *message, int fd);
/* Takes in now what the monitor has sent, instead of when the loop gets to it. */
void link_drain(struct link *link);
/* SIGKILL to the monitor and what it runs in its session (a stuck runtime). */
void link_kill(struct link *link);
/* Lets go; legal in its callbacks. A zeroed one (fd -1) is fine. */
void link_close(struct link *link);

/* Takes `dir`/monitor.lock. 1 with *ret_fd: nobody minds this instance; 0: a monitor does. */
int link_lock(const char *dir, int *ret_fd, struct err *err);
/* The monitor's pid from the lock file, 0 when not known. */
pid_t link_lock_pid(const char *dir);
