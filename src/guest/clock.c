#include "guest/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/str.h"
#include "guest/session.h"

#define EVENTS_BYTES 4096

/* From now on, whatever is now. */
static int arm(int fd, struct err *err)
{
        int64_t due_ns = clock_realtime_ns() + CLOCK_PERIOD_NS;
        struct itimerspec due = { .it_value = { .tv_sec = due_ns / NS_PER_S,
                                                .tv_nsec = due_ns % NS_PER_S } };
        if (timerfd_settime(fd, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &due, NULL) < 0)
                return err_set(err, errno, "watch the host's clock");
        return 0;
}

static int open_nudge(int directory_fd, int *ret_fd, struct err *err)
{
        char path[48];
        snprintf(path, sizeof(path), "/proc/self/fd/%d", directory_fd);
        auto_fd fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
        if (fd < 0 || inotify_add_watch(fd, path, IN_MOVED_TO | IN_ONLYDIR) < 0)
                return err_set(err, errno, "watch the machine's directory");
        *ret_fd = take_fd(fd);
        return 0;
}

int clock_watch_open(struct clock_watch *watch, int directory_fd, struct err *err)
{
        auto_fd timer = timerfd_create(CLOCK_REALTIME, TFD_CLOEXEC | TFD_NONBLOCK);
        if (timer < 0)
                return err_set(err, errno, "timerfd");
        int r = arm(timer, err);
        if (r == 0)
                r = open_nudge(directory_fd, &watch->nudge_fd, err);
        if (r == 0)
                watch->timer_fd = take_fd(timer);
        return r;
}

void clock_watch_poll(const struct clock_watch *watch, struct pollfd entries[CLOCK_ENTRIES])
{
        entries[0] = (struct pollfd){ watch->timer_fd, POLLIN, 0 };
        entries[1] = (struct pollfd){ watch->nudge_fd, POLLIN, 0 };
}

/* An expiry, or -ECANCELED for a clock that was set. */
static bool timer_due(int fd)
{
        uint64_t expiries;
        bool due = read(fd, &expiries, sizeof(expiries)) > 0 || errno == ECANCELED;
        (void)arm(fd, NULL);
        return due;
}

static bool was_resumed(int fd)
{
        _Alignas(struct inotify_event) char events[EVENTS_BYTES];
        bool resumed = false;
        ssize_t size;
        while ((size = read(fd, events, sizeof(events))) > 0)
                for (char *at = events; at < events + size;) {
                        const struct inotify_event *event = (const void *)at;
                        resumed |= event->len && streq(event->name, CLOCK_RESUMED);
                        at += sizeof(*event) + event->len;
                }
        return resumed;
}

bool clock_watch_due(struct clock_watch *watch, const struct pollfd entries[CLOCK_ENTRIES])
{
        bool due = entries[0].revents && timer_due(watch->timer_fd);
        return (entries[1].revents && was_resumed(watch->nudge_fd)) || due;
}

void clock_watch_close(struct clock_watch *watch)
{
        close_fd(&watch->timer_fd);
        close_fd(&watch->nudge_fd);
}

int clock_compare(int directory_fd, pid_t *ret_pid, struct err *err)
{
        pid_t pid = fork();
        if (pid < 0)
                return err_set(err, errno, "fork");
        if (pid == 0)
                _exit(agent_set_clock(directory_fd, true, NULL) < 0);
        *ret_pid = pid;
        return 0;
}
