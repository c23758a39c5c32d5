#include "vmm/virtio/throttle.h"

#include "base/clock.h"

/* As a clock that runs ahead by what was taken and not yet earned (a virtual
 * scheduling algorithm, ITU-T I.371): no rounding adds up, nothing is refilled. */

void throttle_init(struct throttle *t, uint64_t operations_per_s, uint64_t bytes_per_s)
{
        *t = (struct throttle){ .operations = { operations_per_s, 0 },
                                .bytes = { bytes_per_s, 0 } };
}

static int64_t bucket_until(const struct throttle_bucket *b, int64_t now_ns)
{
        int64_t free_ns = b->paid_until_ns - NS_PER_S;
        return b->per_s && free_ns > now_ns ? free_ns : 0;
}

int64_t throttle_until(const struct throttle *t, int64_t now_ns)
{
        int64_t a = bucket_until(&t->operations, now_ns), b = bucket_until(&t->bytes, now_ns);
        return a > b ? a : b;
}

static void bucket_take(struct throttle_bucket *b, int64_t now_ns, uint64_t cost)
{
        if (!b->per_s)
                return;
        if (b->paid_until_ns < now_ns)
                b->paid_until_ns = now_ns;
        b->paid_until_ns += (int64_t)((__uint128_t)cost * NS_PER_S / b->per_s);
}

void throttle_take(struct throttle *t, int64_t now_ns, uint64_t bytes)
{
        bucket_take(&t->operations, now_ns, 1);
        bucket_take(&t->bytes, now_ns, bytes);
}
