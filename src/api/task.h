/* Blocking work of a request, on a worker.
 *
 * A route embeds `struct task` first in a struct of its own, fills `run` and
 * `reply`, and submits it. `run` is called on a worker thread and must not touch
 * the request; `reply` on the loop's thread, when run left r >= 0 and the client
 * is still there (a failure is answered by api_fail). `finish`, which may be NULL,
 * then frees the members; the struct itself is freed here.
 *
 * A client that goes raises `cancelled`, which long work looks at.
 */
#pragma once

#include <stdatomic.h>

#include "api/api.h"
#include "api/reply.h"

struct task {
        struct api *api;
        struct http_request *request; /* NULL once the client is gone; loop's thread */
        atomic_bool cancelled;
        int r; /* of run */
        struct err err;
        void (*run)(struct task *task);
        void (*reply)(struct task *task);
        void (*finish)(struct task *task);
};

/* Takes `task` (heap). */
void task_submit(struct api *api, struct http_request *request, struct task *task);
