/* A rate limit: two token buckets, of operations and of bytes.
 *
 * A bucket holds what one second allows, so that a burst of that much goes through
 * at once. A request may start when no bucket is in debt; its whole cost is then
 * taken, so that a request larger than a bucket also gets its turn and the long-run
 * rate is exact.
 *
 * Belongs to one thread.
 */
#pragma once

#include <stdint.h>

struct throttle_bucket {
        uint64_t per_s; /* 0: no limit */
        int64_t paid_until_ns;
};

struct throttle {
        struct throttle_bucket operations, bytes;
};

void throttle_init(struct throttle *throttle, uint64_t operations_per_s, uint64_t bytes_per_s);
/* 0: a request may start; else the time at which one may. */
int64_t throttle_until(const struct throttle *throttle, int64_t now_ns);
void throttle_take(struct throttle *throttle, int64_t now_ns, uint64_t bytes);
