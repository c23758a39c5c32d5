#include "sys/caps.h"

#include <errno.h>
#include <linux/capability.h>
#include <string.h>

#include "base/tests/test.h"

static void names_go_both_ways(void **state)
{
        (void)state;
        for (int cap = 0; cap <= CAP_LAST_CAP; cap++) {
                int back;
                assert_non_null(caps_name(cap));
                assert_int_equal(caps_parse(caps_name(cap), &back), 0);
                assert_int_equal(back, cap);
        }
        assert_null(caps_name(-1));
        assert_null(caps_name(64));
        int cap;
        assert_int_equal(caps_parse("net_raw", &cap), 0);
        assert_int_equal(cap, CAP_NET_RAW);
        assert_int_equal(caps_parse("cap_Net_Raw", &cap), 0);
        assert_int_equal(caps_parse("CAP_", &cap), -EINVAL);
        assert_int_equal(caps_parse("", &cap), -EINVAL);
}

static void note(void *arg, const char *name)
{
        strcat(arg, name);
        strcat(arg, ";");
}

static void masks_leave_out_what_is_unknown_and_tell(void **state)
{
        (void)state;
        char *good[] = { "CAP_CHOWN", "CAP_KILL", NULL }, *bad[] = { "CAP_CHOWN", "CAP_FLY", NULL };
        char told[64] = "";
        assert_true(caps_mask(good, note, told) == (1ull << CAP_CHOWN | 1ull << CAP_KILL));
        assert_string_equal(told, "");
        assert_true(caps_mask(bad, note, told) == 1ull << CAP_CHOWN);
        assert_string_equal(told, "CAP_FLY;");
        assert_true(caps_mask(bad, NULL, NULL) == 1ull << CAP_CHOWN);
        assert_true(caps_mask(NULL, note, told) == 0);
}

static void what_we_have_is_within_bounds(void **state)
{
        (void)state;
        struct caps_sets sets;
        assert_int_equal(caps_get(&sets, NULL), 0);
        assert_true((sets.effective & ~sets.permitted) == 0);
        assert_true((sets.bounding >> (caps_last() + 1)) == 0);
        assert_in_range(caps_last(), CAP_AUDIT_READ, 63);
}

static void what_is_permitted_is_raised_again(void **state)
{
        (void)state;
        struct caps_sets before, lowered, after;
        assert_int_equal(caps_get(&before, NULL), 0);
        lowered = before;
        lowered.effective = 0;
        assert_int_equal(caps_set(&lowered, NULL), 0);
        assert_int_equal(caps_raise_permitted(NULL), 0);
        assert_int_equal(caps_get(&after, NULL), 0);
        assert_true(after.effective == before.permitted);
        assert_true(after.inheritable == before.inheritable);
        assert_int_equal(caps_set(&before, NULL), 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(names_go_both_ways),
                cmocka_unit_test(masks_leave_out_what_is_unknown_and_tell),
                cmocka_unit_test(what_we_have_is_within_bounds),
                cmocka_unit_test(what_is_permitted_is_raised_again),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
