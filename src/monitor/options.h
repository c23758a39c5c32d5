/* Command line of isle-monitor: everything it has to know, visible in ps(1).
 *
 *     isle-monitor run  --id ID --runtime PATH --runtime-root DIR [options]
 *     isle-monitor exec --id ID --runtime PATH --runtime-root DIR [options]
 *
 * It is started in the directory that holds its bundle (run) or process.json
 * (exec); descriptors 3 … 5 are inherited (MONITOR_FD_…).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

#define MONITOR_FD_CONTROL 3 /* one end of a SOCK_SEQPACKET pair; isled has the other */
#define MONITOR_FD_LOCK    4 /* monitor.lock, flock()ed: free means nobody minds the instance */
#define MONITOR_FD_ROOTFS  5 /* run: the root file system as a detached mount */

struct monitor_options {
        bool exec;
        const char *id;
        const char *runtime, *runtime_root;
        const char *cgroup; /* of the instance, NULL: OOM kills are not told */
        bool vm;            /* run: in a virtual machine */
        bool tty;
        bool in;                /* give it a stdin to attach to */
        bool in_once;           /* close it with its first client */
        const char *log_path;   /* NULL: no log */
        uint64_t log_max_bytes; /* 0: no rotation */
        unsigned log_max_files;
        uint16_t rows, columns; /* 0: not given */
};

int monitor_options_parse(int argc, char **argv, struct monitor_options *ret, struct err *err);
