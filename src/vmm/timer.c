#include "vmm/timer.h"

#include <sys/timerfd.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/str.h"

struct timer {
        int fd;
        struct loop_source *source;
        void (*expired)(void *arg);
        void *arg;
};

static void ready(void *arg, uint32_t events)
{
        struct timer *t = arg;
        (void)events;
        uint64_t count;
        if (read(t->fd, &count, sizeof(count)) == sizeof(count))
                t->expired(t->arg);
}

int timer_create_on(struct loop *loop, void (*expired)(void *arg), void *arg, struct timer **ret,
                    struct err *err)
{
        struct timer *t = new0(struct timer);
        t->expired = expired;
        t->arg = arg;
        t->fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
        int r = t->fd < 0 ? err_set(err, errno, "timerfd") : 0;
        if (r == 0)
                r = loop_io(loop, t->fd, EPOLLIN, ready, t, &t->source, err);
        if (r < 0) {
                timer_destroy(t);
                return r;
        }
        *ret = t;
        return 0;
}

void timer_destroy(struct timer *t)
{
        if (!t)
                return;
        loop_source_destroy(t->source);
        if (t->fd >= 0)
                close_fd(&t->fd);
        free(t);
}

void timer_arm(struct timer *t, int64_t deadline_ns)
{
        struct itimerspec when = { .it_value = { deadline_ns / NS_PER_S, deadline_ns % NS_PER_S } };
        if (deadline_ns < 0)
                when.it_value = (struct timespec){ 0, 1 };
        timerfd_settime(t->fd, TFD_TIMER_ABSTIME, &when, NULL);
}
