/* Progress of an operation with several threads: one event at a time. */
#pragma once

#include <pthread.h>
#include <stdint.h>

#include "image/image.h"

#define PROGRESS_INTERVAL_NS (100 * 1000000LL)

struct progress {
        struct image_progress to;
        pthread_mutex_t mutex;
};
void progress_init(struct progress *progress, const struct image_progress *to);
void progress_finish(struct progress *progress);
/* id NULL is "". */
void progress_say(struct progress *progress, const char *id, const char *format, ...)
        __attribute__((format(printf, 3, 4)));

/* A bar that is not drawn more often than needed. */
struct progress_bar {
        struct progress *progress;
        const char *id, *status;
        int64_t last_ns;
        const char *told; /* the status last reported, and with what */
        uint64_t told_current;
};
void progress_bar_set(struct progress_bar *bar, uint64_t current, uint64_t total);
