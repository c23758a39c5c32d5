#include "image/flight.h"

#include <errno.h>
#include <time.h>

#include "base/clock.h"

void flights_init(struct flights *flights)
{
        pthread_condattr_t attr;
        pthread_mutex_init(&flights->mutex, NULL);
        pthread_condattr_init(&attr);
        pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
        pthread_cond_init(&flights->landed, &attr);
        pthread_condattr_destroy(&attr);
        flights->held = (struct table){ 0 };
}

void flights_finish(struct flights *flights)
{
        table_finish(&flights->held);
        pthread_cond_destroy(&flights->landed);
        pthread_mutex_destroy(&flights->mutex);
}

int flight_begin(struct flights *flights, const char *key, const atomic_bool *cancel,
                 struct err *err)
{
        int r = 0;
        pthread_mutex_lock(&flights->mutex);
        while (table_get(&flights->held, key)) {
                if (cancel && atomic_load(cancel)) {
                        r = err_plain(err, ECANCELED, "cancelled");
                        break;
                }
                /* The canceller does not know of us, so look now and then. */
                int64_t until = clock_monotonic_ns() + 200 * NS_PER_MS;
                struct timespec ts = { .tv_sec = until / NS_PER_S, .tv_nsec = until % NS_PER_S };
                pthread_cond_timedwait(&flights->landed, &flights->mutex, &ts);
        }
        if (r == 0)
                table_put(&flights->held, key, flights);
        pthread_mutex_unlock(&flights->mutex);
        return r;
}

void flight_end(struct flights *flights, const char *key)
{
        pthread_mutex_lock(&flights->mutex);
        table_remove(&flights->held, key);
        pthread_cond_broadcast(&flights->landed);
        pthread_mutex_unlock(&flights->mutex);
}
