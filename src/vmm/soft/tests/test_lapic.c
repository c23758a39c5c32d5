/* The local APIC model, without a processor. */
#include "vmm/soft/lapic.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define VECTOR    0x40u
#define PERIODIC  (1u << 17)
#define SVR_ON    0x1ffu
#define DIVIDE_BY 0xbu /* one: a count is a nanosecond */

static void make(struct lapic *l, uint32_t mode, uint32_t count, int64_t now)
{
        lapic_reset(l, 0);
        lapic_write(l, LAPIC_SVR, SVR_ON, now);
        lapic_write(l, LAPIC_TIMER_DIVIDE, DIVIDE_BY, now);
        lapic_write(l, LAPIC_LVT_TIMER, VECTOR | mode, now);
        lapic_write(l, LAPIC_TIMER_INITIAL, count, now);
}

static void a_periodic_count_wraps_before_anybody_fires_it(void **state)
{
        (void)state;
        struct lapic l;
        make(&l, PERIODIC, 1000, 5000);
        assert_int_equal(lapic_read(&l, LAPIC_TIMER_CURRENT, 5400), 600);
        assert_int_equal(lapic_read(&l, LAPIC_TIMER_CURRENT, 6000), 1000);
        assert_int_equal(lapic_read(&l, LAPIC_TIMER_CURRENT, 8300), 700);
}

static void what_ended_in_one_shot_mode_stays_ended(void **state)
{
        (void)state;
        struct lapic l;
        make(&l, 0, 1000, 5000);
        assert_int_equal(lapic_read(&l, LAPIC_TIMER_CURRENT, 6500), 0);
        lapic_write(&l, LAPIC_LVT_TIMER, VECTOR | PERIODIC, 6500);
        assert_int_equal(lapic_acknowledge(&l), VECTOR);
        assert_int_equal(lapic_read(&l, LAPIC_TIMER_CURRENT, 6600), 0);
        assert_int_equal(l.expiry_ns, 0);
}

static void x2apic_registers_and_bits_that_are_not_there(void **state)
{
        (void)state;
        struct lapic l;
        uint64_t value;
        struct lapic_request request;
        make(&l, 0, 0, 0);
        assert_true(lapic_set_base(&l, l.base | LAPIC_BASE_X2));
        assert_true(lapic_msr_read(&l, LAPIC_LVT_LINT0, 0, &value));
        assert_false(lapic_msr_read(&l, LAPIC_LVT_CMCI, 0, &value));
        assert_false(lapic_msr_write(&l, LAPIC_LVT_CMCI, 0, 0, &request));
        assert_false(lapic_msr_write(&l, LAPIC_SELF_IPI, 0x100 | VECTOR, 0, &request));
        assert_false(lapic_pending(&l));
        assert_true(lapic_msr_write(&l, LAPIC_SELF_IPI, VECTOR, 0, &request));
        assert_int_equal(lapic_acknowledge(&l), VECTOR);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_periodic_count_wraps_before_anybody_fires_it),
                cmocka_unit_test(what_ended_in_one_shot_mode_stays_ended),
                cmocka_unit_test(x2apic_registers_and_bits_that_are_not_there),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
