/* What the guest agent and the host say to each other: JSON, one object a line.
 *
 * Theory of operation. The agent is the first process of a guest. It connects to the
 * host's port AGENT_READY_PORT when it can be spoken to, and listens on AGENT_PORT; the
 * host opens one connection for each thing it wants, and its first line says what:
 *
 *   stream   the connection is one stream (0 input, 1 output, 2 errors; 0 is both ways
 *            for a terminal) of the process to be named `key`. After the answer it
 *            carries plain bytes; its two halves close apart.
 *   launch   runs the OCI runtime with `argv` in the guest, which makes a process: the
 *            container's first one (`config` is its config.json) or one more (`process`
 *            is that JSON). Its standard descriptors are the streams of the same `key`.
 *            Answered with `pid`, and, when the process has ended, with `exit`. In
 *            between the host may send, on this connection, resize and signal, which
 *            are not answered. Of the container's first process it is also told, then
 *            and with the exit, how often the kernel killed for want of memory: `oom_kills`.
 *            Where the connection ends first, the process is killed, with its group.
 *   network  gives the network cards of `cards`, which are in the agent's own network
 *            namespace until then, to the process `key`, configured.
 *   call     runs the OCI runtime with `argv` to its end; answered with its exit code,
 *            output and errors.
 *   extract  unpacks a tar archive at `path` in the container, which is called `container` in
 *            what is said of errors; all files get `owner`, a uid and a gid, where there is
 *            one. After the answer the connection carries the archive, and its writing half is
 *            closed; a second answer tells how it went. It tells an error before that end, too.
 *   archive  answered with `mode`, `size_bytes`, `mtime_ns` and, of a link, where it leads (`link`)
 *            of the file at `path` in the container. Where this was not all (`look`) the connection
 *            then carries it and what is beneath it, in docker's frames (codec/stdcopy.h): those of
 *            stream 1 are a tar archive, the last is of stream 3, an answer that tells how it went.
 *   clock    moves the real time by `shift_ns` (0: does not), at once, or, with `gently` and if
 *            it is little, by and by; answered with `realtime_ns` after.
 *   cpus     has the first `count` processors work, and no other.
 *   list     answered with the `processes` of all containers, and the clock and memory that
 *            their numbers refer to.
 *
 * A request that fails is answered with `error`, the text a user shall read, and `code`,
 * an errno value. Both sides bound every line to MESSAGE_SIZE_MAX and treat what they
 * read as hostile: to the host a guest is somebody else's program.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "codec/json.h"
#include "sys/netdev.h"

#define AGENT_PORT       1024
#define AGENT_READY_PORT 1025
#define AGENT_SHARE_TAG  "isle"            /* of the virtio-fs device */
#define AGENT_SHARE      "/run/isle/share" /* where the agent mounts it in the guest */
#define AGENT_BUNDLE     "/run/isle/bundle"
#define AGENT_ONLY_BOOT  "isle.only_boot" /* on the kernel's command line: nobody will ask */

/* A root made of layers: on the kernel's command line AGENT_LAYERS with the name of the upper
 * directory, and ",ro" or ",volatile". The image of the lower ones is the first disk. */
#define AGENT_LAYERS        "isle.layers="
#define AGENT_LAYERS_TAG    "layers"          /* of the virtio-fs device of upper and work */
#define AGENT_ROOT          "/run/isle/root"  /* where the agent mounts it all */
#define AGENT_MODULES       "/modules"        /* in the initial ramdisk; loaded by name */
#define AGENT_LAYER_MODULES "/modules-layers" /* as well, for such a root */
#define AGENT_BAD_IMAGE     "mount the image of the layers" /* what it says of one that is none */
#define AGENT_WORK          "isle-work" /* name of the overlay's work directory */

#define MESSAGE_SIZE_MAX ((size_t)5 << 20)

enum agent_op {
        AGENT_OP_UNSET,
        AGENT_OP_STREAM,
        AGENT_OP_LAUNCH,
        AGENT_OP_CALL,
        AGENT_OP_RESIZE,
        AGENT_OP_SIGNAL,
        AGENT_OP_NETWORK,
        AGENT_OP_LIST,
        AGENT_OP_CPUS,
        AGENT_OP_CLOCK,
        AGENT_OP_EXTRACT,
        AGENT_OP_ARCHIVE,
};

struct agent_card {
        char *mac;            /* by which the machine has it */
        struct netdev device; /* what it shall be for the container */
};

struct agent_request {
        int op;      /* enum agent_op */
        char *key;   /* stream, launch, network: names the process, 1 to 64 of [a-z0-9] */
        uint32_t fd; /* stream: 0, 1, 2 */
        char **argv; /* launch, call: of the runtime, without its own name */
        char *config, *process;
        bool terminal;       /* launch */
        bool plain_newlines; /* of the terminal: whoever shows them adds what they need */
        uint32_t rows, columns;
        uint32_t signal;
        uint32_t count;           /* cpus, at least 1 */
        int64_t shift_ns;         /* clock */
        bool gently;              /* clock */
        struct agent_card *cards; /* network */
        size_t cards_length;
        char *path, *container; /* extract, archive */
        bool look;              /* archive */
        uint32_t *owner;
        size_t owner_length;
        bool no_overwrite_dir_non_dir;
};

#define AGENT_PROCESSES_MAX 4000 /* that a list has */
#define AGENT_COMMAND_MAX   512  /* bytes of `command`, of which all are printable */

struct agent_process { /* as the container sees it: proc(5) */
        uint32_t pid, parent, uid, threads;
        uint32_t terminal; /* device number, 0 without one */
        char *state;       /* one letter */
        char *name;
        char *command;       /* arguments with blanks between; empty for none */
        uint64_t started_ms; /* since boot */
        uint64_t cpu_ms;
        uint64_t virtual_kib, resident_kib;
};

struct agent_reply {
        bool ok;
        int64_t pid;
        int32_t exit;
        bool has_exit;
        uint32_t oom_kills; /* of launch */
        char *error;
        int32_t code;
        char *output, *errors;           /* of a call */
        struct agent_process *processes; /* of a list */
        size_t processes_length;
        uint64_t uptime_ms, memory_kib;
        int64_t realtime_ns; /* of clock */
        uint32_t mode;       /* of archive: stat(2)'s */
        int64_t size_bytes, mtime_ns;
        char *link; /* absolute, or NULL */
};

extern const struct json_shape agent_netdev_shape; /* of a struct netdev */

void agent_request_finish(struct agent_request *request);
void agent_reply_finish(struct agent_reply *reply);

/* Of one line without its end. */
int agent_request_parse(const char *text, size_t size, struct agent_request *ret, struct err *err);
int agent_reply_parse(const char *text, size_t size, struct agent_reply *ret, struct err *err);

/* Appends the line. */
void agent_request_put(const struct agent_request *request, struct buf *to);
void agent_reply_put(const struct agent_reply *reply, struct buf *to);

/* The first whole line in `from`, taken out of it: 1 with *ret (heap) and its size, 0
 * when there is none yet, -EMSGSIZE when it is longer than any may be. */
int message_take_line(struct buf *from, char **ret, size_t *ret_size, struct err *err);

#define auto_agent_request __attribute__((cleanup(agent_request_finish))) struct agent_request
#define auto_agent_reply   __attribute__((cleanup(agent_reply_finish))) struct agent_reply
