/* Work of a request that lasts as long as its client or a registry wants: pull,
 * push, load, save. It gets a thread of its own, so that slow ones do not occupy
 * the workers that start instances; at most TRANSFERS_MAX at once.
 *
 * A transfer answers with docker's stream of JSON records. The stream begins with
 * the first record; a failure before it is answered with a status of its own, a
 * failure after it is a last record {"errorDetail":{"message":…},"error":…}.
 *
 * A route embeds `struct transfer` first in a struct of its own. `run` is called
 * on the thread, sets r and err, and may write records; `done`, which may be NULL,
 * on the loop's thread after a run that left r >= 0; `finish` then frees the
 * members; the struct itself is freed here.
 *
 * A client that reads slowly delays only its own progress bars: beyond
 * TRANSFER_PENDING_BYTES they are dropped. One that goes raises `cancelled`.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "api/api.h"
#include "api/reply.h"
#include "base/buf.h"

#define TRANSFERS_MAX          64
#define TRANSFER_PENDING_BYTES (256u << 10)

struct image_event;

struct transfer {
        struct api *api;
        struct http_request *request; /* loop's thread; NULL once the client is gone */
        atomic_bool cancelled;
        bool quiet; /* no progress bars */
        int r;      /* of run */
        struct err err;
        void (*run)(struct transfer *transfer);
        void (*done)(struct transfer *transfer);
        void (*finish)(struct transfer *transfer);

        pthread_mutex_t lock; /* the three below */
        struct buf pending;   /* records not yet given to the server */
        bool posted;          /* a flush is on its way */
        bool begun;           /* loop's thread: the stream has begun */
        bool waiting;         /* loop's thread: for the client to read */
};

/* Takes `transfer` (heap). Answers 503 when too many run. */
void transfer_submit(struct api *api, struct http_request *request, struct transfer *transfer);

/* Writes a record; takes the object. Any thread, while run or done are called. */
void transfer_record(struct transfer *transfer, struct json_object *record);
/* As above, a line of progress; `arg` is the transfer. For struct image_progress. */
void transfer_event(void *arg, const struct image_event *event);

/* The bare thread: `run`, then `done` on the loop's thread. -EAGAIN when too many run. */
int transfer_thread(struct api *api, void (*run)(void *arg), void (*done)(void *arg), void *arg,
                    struct err *err);
