/* The clock of a guest that runs stays that of the host.
 *
 * Theory of operation. A guest's kernel derives the time from the host's counter, so it goes on
 * through a pause, and as fast as the host's does. What it does not see is that somebody sets the
 * host's clock, that the host's goes a little slower or faster to follow a server, and that
 * somebody sets the guest's. So the shim compares the two
 *
 *   when the host's clock is set     the timer, on the real time, is cancelled (timerfd_create(2))
 *   when CLOCK_PERIOD_NS are over    the timer
 *   after a pause                    the verb replaces CLOCK_RESUMED in the machine's directory
 *
 * and the agent sets the guest's clock where it is far off, and has it catch up otherwise. While
 * the machine is paused, so is the shim: what came then it sees afterwards. */
#pragma once

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

#define CLOCK_PERIOD_NS (300LL * 1000000000)
#define CLOCK_RESUMED   "resumed"
#define CLOCK_ENTRIES   2

struct clock_watch {
        int timer_fd, nudge_fd; /* the watch's own */
};

/* `directory_fd` is the machine's. */
int clock_watch_open(struct clock_watch *watch, int directory_fd, struct err *err);
void clock_watch_poll(const struct clock_watch *watch, struct pollfd entries[CLOCK_ENTRIES]);
/* It is time to compare. */
bool clock_watch_due(struct clock_watch *watch, const struct pollfd entries[CLOCK_ENTRIES]);
void clock_watch_close(struct clock_watch *watch);

/* Compares and sets, in a process of its own, for a guest may not answer; its pid. */
int clock_compare(int directory_fd, pid_t *ret_pid, struct err *err);
