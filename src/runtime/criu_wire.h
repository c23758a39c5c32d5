/* The messages that are exchanged with `criu swrk`: protocol buffers, one message a packet.
 *
 * Only what checkpoint and restore need is known: requests are written, responses are read.
 * A response is read without allocating anything: texts are cut to the size of their member,
 * unknown fields are passed over, and whatever is not well-formed is an error. A field that comes
 * twice counts as it came last, as the format wants it.
 *
 * Source: CRIU's images/rpc.proto (numbers of fields and kinds) and the encoding guide of protocol
 * buffers (varints, length-delimited fields). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

enum criu_kind { /* of requests and responses */
                 CRIU_EMPTY = 0,
                 CRIU_DUMP = 1,
                 CRIU_RESTORE = 2,
                 CRIU_NOTIFY = 6,
                 CRIU_FEATURE_CHECK = 9,
                 CRIU_VERSION = 10,
                 CRIU_PRE_DUMP = 13, /* a single one; 4 would wait for more */
};

enum criu_cgroups { /* how much of the groups' own state CRIU keeps; its manual has the meanings */
                    CRIU_CGROUPS_IGNORE = 0,
                    CRIU_CGROUPS_NONE = 1,
                    CRIU_CGROUPS_PROPS = 2,
                    CRIU_CGROUPS_SOFT = 3,
                    CRIU_CGROUPS_FULL = 4,
                    CRIU_CGROUPS_STRICT = 5,
};

struct criu_pair {
        char *key, *value;
};

struct criu_inherit {
        char *key; /* as in the images: "pipe:[7]", "file[1a:5]", a name of an external namespace */
        int fd;    /* of criu's process */
};

/* Descriptors are those of criu's process, but for images_fd and work_fd: these it opens
 * through the /proc of who speaks to it. */
struct criu_options {
        int images_fd, work_fd; /* directories; work_fd: -1 for the images' */
        int pid;                /* of the tree to dump; 0 for restore */
        const char *log_file;   /* in work_fd */
        const char *root;
        const char *parent;        /* directory of earlier images, relative to images_fd */
        const char *freeze_cgroup; /* directory of a freezer */
        const char *config_file, *lsm_profile, *lsm_mount_context;
        enum criu_cgroups cgroups;
        bool leave_running, ext_unix_sk, tcp_established, tcp_close, shell_job, file_locks,
                link_remap, auto_dedup, track_memory, evasive_devices, restore_sibling;
        const struct criu_pair *mounts; /* external ones */
        size_t mounts_length;
        const struct criu_pair *cgroup_roots; /* controller, new path */
        size_t cgroup_roots_length;
        const struct criu_pair *joins; /* kind of namespace ("ipc"), file */
        size_t joins_length;
        const struct criu_inherit *inherits;
        size_t inherits_length;
        char *const *externals; /* "net[5]:name"; NULL-terminated or NULL */
};

struct criu_request {
        enum criu_kind kind;
        const struct criu_options *options; /* NULL: none */
        bool keep_open;                     /* more requests follow */
        bool notified;                      /* CRIU_NOTIFY: the answer, with `success` */
        bool success;
        bool ask_memory_tracking; /* CRIU_FEATURE_CHECK */
};

/* Appends the message. */
void criu_encode(const struct criu_request *request, struct buf *to);

struct criu_response {
        uint32_t kind; /* enum criu_kind, or one of the future */
        bool success;
        int32_t error;      /* errno, or 0 */
        char message[256];  /* why it failed, or "" */
        char script[32];    /* CRIU_NOTIFY: what happens */
        int32_t pid;        /* CRIU_RESTORE, and some notifications; else 0 */
        uint32_t version;   /* CRIU_VERSION: 31700 for 3.17 */
        bool tracks_memory; /* CRIU_FEATURE_CHECK */
};

/* Returns 0 or -EBADMSG; *ret is touched on success only. */
int criu_decode(const void *data, size_t size, struct criu_response *ret, struct err *err);
