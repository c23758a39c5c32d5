/* Flights: one worker at a time per key ("blob <digest>", "layer <chain id>").
 *
 * Two pulls that need the same layer must not write it twice: the second waits
 * for the first to land and then finds the work done. Keys exist only while
 * somebody holds or awaits them.
 *
 * Threads: safe. Lock order: a thread holds at most one "layer" flight and,
 * taken after it, one "blob" flight; nobody waits for a flight with
 * image_store.lock held.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "base/err.h"
#include "base/table.h"

struct flights {
        pthread_mutex_t mutex;
        pthread_cond_t landed;
        struct table held; /* key -> itself */
};

void flights_init(struct flights *flights);
void flights_finish(struct flights *flights);
/* Waits until nobody holds the key, then holds it. -ECANCELED. */
int flight_begin(struct flights *flights, const char *key, const atomic_bool *cancel,
                 struct err *err);
void flight_end(struct flights *flights, const char *key);
