/* The machine's process: what a guest that broke out of its machine would hold.
 *
 * The program that the user starts opens what needs the host (taps, sockets), then
 * runs the machine in a child, and only waits: it passes on SIGTERM, SIGINT and the
 * exit status, and starts another child when the guest resets. The child dies with it.
 *
 * The child is born into user, pid, mount, network, ipc, uts and cgroup namespaces of its
 * own (one child in between makes them and is gone at once: a process cannot
 * move itself into a new pid namespace). It builds the machine while it still sees
 * the host's files, then closes the door with jail_seal(): an empty read-only root, no
 * capabilities, and for each kind of thread a list of allowed system calls.
 *
 *     jail_run()            in the program: makes the child, waits for it
 *       jail_enter()        in the child, first: no new privileges, limits
 *       … build, start the threads, guest stands still …
 *       jail_seal()         in the child, before the guest runs
 *
 * What is handed in later comes as descriptors; nothing is opened by path any more.
 *
 * Source: namespaces(7), user_namespaces(7), pid_namespaces(7), pivot_root(2), seccomp(2),
 * landlock(7).
 */
#pragma once

#include <stdbool.h>

#include "base/err.h"

/* Exit status by which a child asks for another life of the machine. */
#define JAIL_AGAIN 254
/* Exit status of a process of which a thread did what it may not: as killed by SIGSYS. */
#define JAIL_BROKEN (128 + 31)

/* Runs inside(arg) in a child, in namespaces of its own where `jailed`. Returns when it
 * has ended; *ret_status is its exit status, 128 + signal where a signal ended it. The
 * caller has one thread. SIGTERM, SIGINT and SIGCHLD are blocked from then on, in
 * the child too. */
int jail_run(bool jailed, int (*inside)(void *arg), void *arg, int *ret_status, struct err *err);

struct jail_needs {
        bool files;            /* shared directories: /proc/self/fd, and root's rights over files */
        const char *vsock_dir; /* the host's directory that becomes JAIL_VSOCK; NULL: none */
};

#define JAIL_VSOCK "/vsock"

/* What a thread is for; decides what it may ask of the kernel. */
enum jail_thread {
        JAIL_MAIN, /* the loop: control socket, serial port, timers */
        JAIL_VCPU_SOFT,
        JAIL_VCPU_KVM,
        JAIL_DISK,
        JAIL_NET,
        JAIL_VSOCK_PEERS,
        JAIL_FILES, /* a shared directory */
        JAIL_BALLOON,
        JAIL_GDB,
        JAIL_THREADS,
};

int jail_enter(const struct jail_needs *needs, struct err *err);
int jail_seal(const struct jail_needs *needs, struct err *err);

/* The calling thread's part, first thing it does: no capabilities but what its work
 * needs, by Landlock no paths (but for shared directories) and no networks, where the kernel has
 * it, and a list of allowed system calls. One that is not on it ends the process with
 * status JAIL_BROKEN and a line that names the thread and the call. Nothing where
 * there is no jail; what fails here ends the process. */
void jail_thread(enum jail_thread kind);
/* Whether jail_enter() was called. */
bool jail_is_on(void);

/* A directory as a mount of its own that is attached nowhere: ".." ends at it. No
 * program, device or symbolic link on it has any effect. */
int jail_detach_directory(const char *path, bool read_only, int *ret_fd, struct err *err);
