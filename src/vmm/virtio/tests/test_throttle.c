#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "vmm/virtio/throttle.h"

/* Requests of `bytes` each as fast as they may go, for `seconds`. */
static unsigned done_in(struct throttle *t, int64_t seconds, uint64_t bytes)
{
        int64_t now = 5 * NS_PER_S, end = now + seconds * NS_PER_S;
        unsigned done = 0;
        while (now < end) {
                int64_t until = throttle_until(t, now);
                if (until) {
                        assert_true(until > now);
                        now = until;
                        continue;
                }
                throttle_take(t, now, bytes);
                done++;
        }
        return done;
}

static void rate_is_kept_after_one_burst(void **state)
{
        (void)state;
        struct throttle t;
        throttle_init(&t, 100, 0);
        assert_in_range(done_in(&t, 10, 1), 1099, 1102);
        throttle_init(&t, 0, 1 << 20);
        assert_in_range(done_in(&t, 10, 4096), 256 * 11 - 1, 256 * 11 + 2);
}

static void tighter_bucket_decides(void **state)
{
        (void)state;
        struct throttle t;
        throttle_init(&t, 1000000, 1 << 20);
        assert_in_range(done_in(&t, 4, 1 << 16), 16 * 5 - 1, 16 * 5 + 2);
}

static void request_larger_than_a_bucket_gets_its_turn(void **state)
{
        (void)state;
        struct throttle t;
        throttle_init(&t, 0, 1000);
        assert_int_equal(throttle_until(&t, 0), 0);
        throttle_take(&t, 0, 10000);
        assert_int_equal(throttle_until(&t, 0), 9 * NS_PER_S);
        assert_int_equal(throttle_until(&t, 9 * NS_PER_S), 0);
}

static void no_limit_never_waits(void **state)
{
        (void)state;
        struct throttle t;
        throttle_init(&t, 0, 0);
        for (unsigned i = 0; i < 100; i++) {
                throttle_take(&t, 1, UINT64_MAX);
                assert_int_equal(throttle_until(&t, 1), 0);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(rate_is_kept_after_one_burst),
                cmocka_unit_test(tighter_bucket_decides),
                cmocka_unit_test(request_larger_than_a_bucket_gets_its_turn),
                cmocka_unit_test(no_limit_never_waits),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
