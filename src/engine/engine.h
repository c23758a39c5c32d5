/* The engine: instances, volumes, their events, over the image store and the
 * state store. Everything here runs on the loop's thread and nothing blocks:
 *
 *   - what takes time (snapshots, files, tar) runs on worker threads,
 *   - child processes are watched by pidfd,
 *   - monitors (one process per running instance, src/monitor) are spoken to over
 *     non-blocking sockets.
 *
 * Every instance is its own state machine, so a stuck one delays nobody else.
 *
 * Asynchronous functions take `done` and `arg`. `done` is called exactly once,
 * on the loop thread, never before the function has returned; `arg` must stay
 * valid until then whatever becomes of the client that asked. `err` is valid
 * during the call only and is NULL or unset on success. An operation goes on
 * when the client who asked for it has gone.
 *
 * Codes (r and err->code) that callers may map to statuses; texts are docker's
 * where docker's CLI or users' scripts look at them:
 *
 *   -ENOENT   no such instance, image, volume, path     404
 *   -EEXIST   name in use                               409
 *   -EBUSY    not possible in its present state         409
 *   -EINVAL   the request makes no sense                400
 *   -ENOTSUP  Isle cannot do that (yet)                 501
 *   -ENOEXEC  the command cannot be started             400 (exit status 126 or 127)
 *   -EALREADY already so (started, stopped)             304
 *   others                                              500
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct loop;
struct workers;
struct store;
struct image_store;
struct engine;

typedef void engine_done(void *arg, int r, const struct err *err);

/* Copied by engine_create; NULL members get the default in brackets. */
struct engine_settings {
        const char *root_dir;        /* [/var/lib/isle] */
        const char *run_dir;         /* [/run/isle] */
        const char *runtime_path;    /* [isle-runtime beside this program, else in PATH] */
        const char *runtime_root;    /* [RUN/runtime] */
        const char *monitor_path;    /* [isle-monitor beside this program, else in PATH] */
        const char *init_path;       /* for --init [tini-static, docker-init: where found] */
        const char *cgroup_parent;   /* [/isle] */
        const char *default_runtime; /* of instances that name none [isle-runtime] */
        const char *vm_rootfs;       /* of machines that do not say: fs or erofs [fs] */
        const char *vm_cpu_model;    /* of machines that do not say [what the runtime's own is] */
        const char *userns_remap;    /* as remap_load() takes it [off] */
        unsigned stream_threads;     /* tar streams at once [16] */
};

/* Opens the engine and brings what it finds in line with the records: running
 * monitors are taken over, dead instances buried, half-done operations finished
 * or undone, leaked directories removed; then starts what its restart policy
 * wants running. Returns when the records are loaded; taking over goes on in
 * the loop. `store`, `images`, `loop` and `workers` are borrowed. */
int engine_create(struct loop *loop, struct workers *workers, struct store *store,
                  struct image_store *images, const struct engine_settings *settings,
                  struct engine **ret, struct err *err);

/* Whether all that has ended is cleaned up too. */
bool engine_is_settled(const struct engine *engine);

/* Lets go of everything; instances keep running. Call after the loop has ended
 * and workers are drained; outstanding `done` are not called. NULL allowed. */
void engine_destroy(struct engine *engine);

/* The settings in force, defaults filled in. */
const struct engine_settings *engine_settings(const struct engine *engine);

struct engine_counts {
        unsigned total, running, paused, stopped;
};
struct engine_counts engine_counts(const struct engine *engine);
