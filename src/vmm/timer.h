/* A timer that any thread may set and whose expiry runs on the machine's loop
 * (a timerfd watched by it). Creation and destruction belong to the loop's
 * thread. The monotonic clock is used throughout. */
#pragma once

#include <stdint.h>

#include "base/err.h"
#include "loop/loop.h"

struct timer;

int timer_create_on(struct loop *loop, void (*expired)(void *arg), void *arg, struct timer **ret,
                    struct err *err);
void timer_destroy(struct timer *timer);

/* THREAD-SAFE. Fires once at `deadline_ns` (monotonic), at once when it is past;
 * 0 disarms. A callback already on its way may still come. */
void timer_arm(struct timer *timer, int64_t deadline_ns);
