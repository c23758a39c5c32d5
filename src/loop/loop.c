#include "loop/loop.h"

#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <systemd/sd-event.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/str.h"

/* A function handed to the loop by loop_post() or loop_defer(). */
struct posted {
        struct posted *next;
        void (*fn)(void *arg);
        void *arg;
};

struct loop {
        sd_event *event;
        bool exiting;
        int exit_code;

        pthread_mutex_t lock; /* guards the queue below, nothing else */
        struct posted *first, *last;
        int wake_fd; /* eventfd, readable while the queue may hold something */
        sd_event_source *wake;
};

struct loop_source {
        struct loop *loop;
        sd_event_source *event_source;
        union {
                void (*ready)(void *arg, uint32_t events);
                void (*expired)(void *arg);
                void (*arrived)(void *arg, int signo);
        } call;
        void *arg;
};

/* --- functions posted to the loop --- */

static void posted_free(struct posted *first)
{
        while (first) {
                struct posted *next = first->next;
                free(first);
                first = next;
        }
}

static int loop_drain(sd_event_source *source __attribute__((unused)), int fd,
                      uint32_t events __attribute__((unused)), void *arg)
{
        struct loop *loop = arg;
        uint64_t count;
        if (read(fd, &count, sizeof(count)) < 0 && errno != EAGAIN && errno != EINTR)
                return 0;

        pthread_mutex_lock(&loop->lock);
        struct posted *first = loop->first;
        loop->first = loop->last = NULL;
        pthread_mutex_unlock(&loop->lock);

        /* What these post themselves waits for the next round. */
        while (first) {
                struct posted *posted = first;
                first = posted->next;
                void (*fn)(void *arg) = posted->fn;
                void *fn_arg = posted->arg;
                free(posted);
                fn(fn_arg);
        }
        return 0;
}

void loop_post(struct loop *loop, void (*fn)(void *arg), void *arg)
{
        struct posted *posted = new0(struct posted);
        posted->fn = fn;
        posted->arg = arg;

        pthread_mutex_lock(&loop->lock);
        bool was_empty = !loop->first;
        if (loop->last)
                loop->last->next = posted;
        else
                loop->first = posted;
        loop->last = posted;
        /* Under the lock, so that loop_destroy() after this call's effect was seen
         * cannot close the descriptor below us. The counter cannot overflow. */
        if (was_empty) {
                uint64_t one = 1;
                while (write(loop->wake_fd, &one, sizeof(one)) < 0 && errno == EINTR)
                        ;
        }
        pthread_mutex_unlock(&loop->lock);
}

int loop_defer(struct loop *loop, void (*fn)(void *arg), void *arg)
{
        loop_post(loop, fn, arg);
        return 0;
}

/* --- the loop --- */

int loop_create(struct loop **ret, struct err *err)
{
        struct loop *loop = new0(struct loop);
        pthread_mutex_init(&loop->lock, NULL);
        loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (loop->wake_fd < 0) {
                int code = errno;
                loop_destroy(loop);
                return err_set(err, code, "create the event loop's wake-up descriptor");
        }
        int r = sd_event_new(&loop->event);
        if (r >= 0)
                r = sd_event_add_io(loop->event, &loop->wake, loop->wake_fd, EPOLLIN, loop_drain,
                                    loop);
        if (r < 0) {
                loop_destroy(loop);
                return err_set(err, -r, "create event loop");
        }
        *ret = loop;
        return 0;
}

void loop_destroy(struct loop *loop)
{
        if (!loop)
                return;
        sd_event_source_disable_unref(loop->wake);
        sd_event_unref(loop->event);
        /* A thread that has just posted may still hold the lock. */
        pthread_mutex_lock(&loop->lock);
        posted_free(loop->first);
        close_fd(&loop->wake_fd);
        pthread_mutex_unlock(&loop->lock);
        pthread_mutex_destroy(&loop->lock);
        free(loop);
}

bool loop_step(struct loop *loop, int64_t timeout_ns)
{
        uint64_t timeout_us = UINT64_MAX;
        if (timeout_ns >= 0)
                timeout_us = (uint64_t)((timeout_ns + NS_PER_US - 1) / NS_PER_US);
        return sd_event_run(loop->event, timeout_us) > 0;
}

int loop_run(struct loop *loop)
{
        while (!loop->exiting) {
                int r = sd_event_run(loop->event, UINT64_MAX);
                if (r < 0 && r != -EINTR)
                        return r;
        }
        loop->exiting = false;
        return loop->exit_code;
}

void loop_exit(struct loop *loop, int code)
{
        loop->exiting = true;
        loop->exit_code = code;
}

/* --- sources --- */

static struct loop_source *source_create(struct loop *loop, void *arg)
{
        struct loop_source *source = new0(struct loop_source);
        source->loop = loop;
        source->arg = arg;
        return source;
}

/* Publishes a source whose registration returned `r`. */
static int source_finish(struct loop_source *source, int r, struct loop_source **ret,
                         struct err *err, const char *what)
{
        if (r < 0) {
                loop_source_destroy(source);
                return err_set(err, -r, "watch %s in the event loop", what);
        }
        *ret = source;
        return 0;
}

void loop_source_destroy(struct loop_source *source)
{
        if (!source)
                return;
        /* sd-event keeps a source alive while it dispatches it, and calls a
         * disabled one no more; the trampolines below touch ours no more
         * after the callback. */
        sd_event_source_disable_unref(source->event_source);
        free(source);
}

static int source_io(sd_event_source *event_source __attribute__((unused)),
                     int fd __attribute__((unused)), uint32_t events, void *arg)
{
        struct loop_source *source = arg;
        source->call.ready(source->arg, events);
        return 0;
}

int loop_io(struct loop *loop, int fd, uint32_t events, void (*ready)(void *arg, uint32_t events),
            void *arg, struct loop_source **ret, struct err *err)
{
        struct loop_source *source = source_create(loop, arg);
        source->call.ready = ready;
        int r = sd_event_add_io(loop->event, &source->event_source, fd, events, source_io, source);
        if (r >= 0 && events == 0)
                r = sd_event_source_set_enabled(source->event_source, SD_EVENT_OFF);
        return source_finish(source, r, ret, err, "a descriptor");
}

void loop_io_set(struct loop_source *source, uint32_t events)
{
        if (events == 0) {
                sd_event_source_set_enabled(source->event_source, SD_EVENT_OFF);
                return;
        }
        sd_event_source_set_io_events(source->event_source, events);
        sd_event_source_set_enabled(source->event_source, SD_EVENT_ON);
}

static int source_timer(sd_event_source *event_source __attribute__((unused)),
                        uint64_t usec __attribute__((unused)), void *arg)
{
        struct loop_source *source = arg;
        source->call.expired(source->arg);
        return 0;
}

int loop_timer(struct loop *loop, void (*expired)(void *arg), void *arg, struct loop_source **ret,
               struct err *err)
{
        struct loop_source *source = source_create(loop, arg);
        source->call.expired = expired;
        int r = sd_event_add_time(loop->event, &source->event_source, CLOCK_MONOTONIC, UINT64_MAX,
                                  1, source_timer, source);
        if (r >= 0)
                r = sd_event_source_set_enabled(source->event_source, SD_EVENT_OFF);
        return source_finish(source, r, ret, err, "a timer");
}

void loop_timer_arm(struct loop_source *source, int64_t delay_ns)
{
        if (delay_ns < 0)
                delay_ns = 0;
        int64_t delay_us = (delay_ns + NS_PER_US - 1) / NS_PER_US;
        int64_t now_us = clock_monotonic_ns() / NS_PER_US;
        /* Let sd-event bundle wake-ups within one percent, 50 ms at most; its
         * default of 250 ms would be felt. */
        int64_t accuracy_us = delay_us / 100;
        if (accuracy_us > 50000)
                accuracy_us = 50000;
        sd_event_source_set_time_accuracy(source->event_source,
                                          (uint64_t)(accuracy_us > 0 ? accuracy_us : 1));
        sd_event_source_set_time(source->event_source, (uint64_t)(now_us + delay_us));
        sd_event_source_set_enabled(source->event_source, SD_EVENT_ONESHOT);
}

void loop_timer_disarm(struct loop_source *source)
{
        sd_event_source_set_enabled(source->event_source, SD_EVENT_OFF);
}

static int source_signal(sd_event_source *event_source __attribute__((unused)),
                         const struct signalfd_siginfo *info, void *arg)
{
        struct loop_source *source = arg;
        source->call.arrived(source->arg, (int)info->ssi_signo);
        return 0;
}

int loop_signal(struct loop *loop, int signo, void (*arrived)(void *arg, int signo), void *arg,
                struct loop_source **ret, struct err *err)
{
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, signo);
        int r = -pthread_sigmask(SIG_BLOCK, &set, NULL);
        struct loop_source *source = source_create(loop, arg);
        source->call.arrived = arrived;
        if (r >= 0)
                r = sd_event_add_signal(loop->event, &source->event_source, signo, source_signal,
                                        source);
        return source_finish(source, r, ret, err, "a signal");
}

static int source_pidfd(sd_event_source *event_source, int fd __attribute__((unused)),
                        uint32_t events __attribute__((unused)), void *arg)
{
        struct loop_source *source = arg;
        sd_event_source_set_enabled(event_source, SD_EVENT_OFF);
        source->call.expired(source->arg);
        return 0;
}

int loop_pidfd(struct loop *loop, int pidfd, void (*exited)(void *arg), void *arg,
               struct loop_source **ret, struct err *err)
{
        struct loop_source *source = source_create(loop, arg);
        source->call.expired = exited;
        int r = sd_event_add_io(loop->event, &source->event_source, pidfd, EPOLLIN, source_pidfd,
                                source);
        return source_finish(source, r, ret, err, "a process");
}
