#include <errno.h>
#include <stdlib.h>
#include <sys/timex.h>
#include <time.h>

#include "agent/agent.h"
#include "base/clock.h"

/* The kernel makes up for that in forty seconds. */
#define GENTLE_MAX_NS (20 * NS_PER_MS)

static int step(int64_t shift_ns, struct err *err)
{
        int64_t wanted_ns;
        if (__builtin_add_overflow(clock_realtime_ns(), shift_ns, &wanted_ns) || wanted_ns < 0)
                return err_plain(err, ERANGE, "set the clock: it cannot go by %jd ns",
                                 (intmax_t)shift_ns);
        struct timespec wanted = { .tv_sec = wanted_ns / NS_PER_S,
                                   .tv_nsec = wanted_ns % NS_PER_S };
        return clock_settime(CLOCK_REALTIME, &wanted) < 0 ? err_set(err, errno, "set the clock")
                                                          : 0;
}

int agent_move_clock(int64_t shift_ns, bool gently, struct err *err)
{
        if (shift_ns == 0)
                return 0;
        if (!gently || shift_ns > GENTLE_MAX_NS || shift_ns < -GENTLE_MAX_NS)
                return step(shift_ns, err);
        struct timex change = { .modes = ADJ_OFFSET_SINGLESHOT,
                                .offset = (long)(shift_ns / NS_PER_US) };
        return adjtimex(&change) < 0 ? err_set(err, errno, "adjust the clock") : 0;
}
