/* Time: clocks in nanoseconds, and RFC 3339 text as the Docker and OCI APIs
 * write it (UTC, nanoseconds, "2026-01-02T03:04:05.000000006Z"). */
#pragma once

#include <stdint.h>

#define NS_PER_S  1000000000LL
#define NS_PER_MS 1000000LL
#define NS_PER_US 1000LL

#define CLOCK_TEXT_SIZE 40 /* enough for clock_format(), NUL included */

/* Since an arbitrary start; never goes back. For intervals and timers. */
int64_t clock_monotonic_ns(void);
/* Since 1970-01-01 UTC. For what people read. */
int64_t clock_realtime_ns(void);

void clock_format(int64_t realtime_ns, char text[CLOCK_TEXT_SIZE]);

/* Parses RFC 3339 with optional fraction and any offset. Returns 0, -EINVAL, or -ERANGE
 * beyond the years that 64 bits of nanoseconds hold (1677 to 2262). */
int clock_parse(const char *text, int64_t *ret_realtime_ns);
/* seconds and ns in one number; -ERANGE as above. */
int clock_join(int64_t seconds, int64_t ns, int64_t *ret_ns);
