/* What isled and isle-monitor say to each other.
 *
 * A SOCK_SEQPACKET Unix socket, one message a packet: `struct monitor_header`,
 * the fixed part of its kind, then bytes of variable length. Same machine, same
 * build, so numbers are native; a version in the header refuses what is older.
 * At most MONITOR_MESSAGE_MAX bytes and one file descriptor (SCM_RIGHTS) each.
 *
 * Two ways in: the monitor inherits one end of a socket pair, over which it is
 * told what to attach and then to start (it gives up where that connection ends
 * before); and it listens at monitor.sock in its directory, where an isled that
 * was restarted comes back. On every connection the monitor first sends its
 * state, then a state again whenever it changes.
 *
 *   isled -> monitor   START    begin (once, inherited connection only)
 *                      ATTACH   + descriptor: serve this client's connection
 *                      RESIZE   terminal size
 *                      KILL     SIGKILL to the process and its group, as soon as there is one
 *   monitor -> isled   STATE    phase and all that is known
 *                      DETACHED a client used its detach keys
 *
 * Parsing is pure and bounded (monitor_parse); fuzzed by tests/fuzz_protocol.c.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

#define MONITOR_VERSION     1
#define MONITOR_MESSAGE_MAX 40960 /* header and all; early input is the largest part */
#define MONITOR_TEXT_MAX    4096  /* error text in a state */
#define MONITOR_KEYS_MAX    64    /* detach keys */
#define MONITOR_EARLY_MAX   32768 /* input that came with the request */

enum monitor_kind {
        MONITOR_START = 1,
        MONITOR_ATTACH,
        MONITOR_RESIZE,
        MONITOR_STATE,
        MONITOR_DETACHED,
        MONITOR_KILL,
        MONITOR_KINDS, /* count */
};

/* Flags of ATTACH. */
#define MONITOR_ATTACH_IN  1u
#define MONITOR_ATTACH_OUT 2u
#define MONITOR_ATTACH_ERR 4u
#define MONITOR_ATTACH_ALL 7u

enum monitor_phase {
        MONITOR_WAITING,  /* for START */
        MONITOR_STARTING, /* the runtime works */
        MONITOR_RUNNING,
        MONITOR_FAILED, /* the runtime refused; text says why */
        MONITOR_EXITED, /* exit_code and finished_ns are known; the runtime's state may still be
                           there */
        MONITOR_PHASES, /* count */
};

struct monitor_header {
        uint16_t version, kind;
        uint32_t size; /* of the whole message */
};

/* A message taken apart. Pointers lead into the packet. */
struct monitor_message {
        enum monitor_kind kind;
        /* ATTACH */
        uint32_t flags;
        const uint8_t *keys;
        size_t keys_size;
        const uint8_t *early;
        size_t early_size;
        /* RESIZE */
        uint16_t rows, columns;
        /* STATE */
        enum monitor_phase phase;
        pid_t pid;                       /* 0 until RUNNING */
        uint64_t start_time;             /* of that pid, /proc/PID/stat field 22 */
        int exit_code;                   /* status, or 128 + signal */
        uint32_t oom_kills;              /* so far */
        int64_t started_ns, finished_ns; /* real time */
        const char *text;                /* not NUL-terminated */
        size_t text_size;
};

/* Takes a packet apart; -EBADMSG where it is not a proper message. */
int monitor_parse(const void *packet, size_t size, struct monitor_message *ret);

/* Puts a message together in `packet` of MONITOR_MESSAGE_MAX bytes. Returns its
 * size, or -E2BIG where a variable part is longer than its limit. */
ssize_t monitor_format(const struct monitor_message *message, void *packet);

/* Sends (fd -1: none; the descriptor stays the caller's). Never blocks: -EAGAIN where
 * the other side does not read. */
int monitor_send(int socket_fd, const struct monitor_message *message, int fd);

/* Receives into `packet` (MONITOR_MESSAGE_MAX bytes, which the message points
 * into). Returns 1 with a message, 0 at the end of the connection, -EAGAIN,
 * -EBADMSG (to be treated as the end) or another -errno. *ret_fd is -1 or the
 * caller's. */
int monitor_receive(int socket_fd, void *packet, struct monitor_message *ret, int *ret_fd);

/* Files in a monitor's directory. */
#define MONITOR_SOCKET_NAME  "monitor.sock"
#define MONITOR_LOCK_NAME    "monitor.lock" /* flock held while it lives; holds its pid */
#define MONITOR_EXIT_NAME    "exit.json"    /* {"exit_code":0,"oom_killed":false,…} */
#define MONITOR_PID_NAME     "init.pid"
#define MONITOR_CONSOLE_NAME "console.sock"
#define MONITOR_RUNTIME_LOG  "runtime.log"
#define MONITOR_ROOTFS_NAME  "rootfs"
#define MONITOR_PROCESS_NAME "process.json" /* exec */
