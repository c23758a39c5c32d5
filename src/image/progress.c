#include "image/progress.h"

#include <stdarg.h>

#include "base/clock.h"
#include "base/str.h"

void progress_init(struct progress *progress, const struct image_progress *to)
{
        progress->to = *to;
        pthread_mutex_init(&progress->mutex, NULL);
}

void progress_finish(struct progress *progress)
{
        pthread_mutex_destroy(&progress->mutex);
}

static void report(struct progress *progress, const struct image_event *event)
{
        pthread_mutex_lock(&progress->mutex);
        progress->to.report(progress->to.arg, event);
        pthread_mutex_unlock(&progress->mutex);
}

void progress_say(struct progress *progress, const char *id, const char *format, ...)
{
        if (!progress->to.report)
                return;
        va_list ap;
        va_start(ap, format);
        auto_free char *status = xvasprintf(format, ap);
        va_end(ap);
        report(progress, &(struct image_event){ .id = id ? id : "", .status = status });
}

void progress_bar_set(struct progress_bar *bar, uint64_t current, uint64_t total)
{
        if (!bar->progress->to.report)
                return;
        int64_t now = clock_monotonic_ns();
        if (bar->told && bar->status == bar->told && current == bar->told_current)
                return;
        if ((total == 0 || current < total) && now - bar->last_ns < PROGRESS_INTERVAL_NS)
                return;
        bar->last_ns = now;
        bar->told = bar->status;
        bar->told_current = current;
        report(bar->progress,
               &(struct image_event){
                       .id = bar->id, .status = bar->status, .current = current, .total = total });
}
