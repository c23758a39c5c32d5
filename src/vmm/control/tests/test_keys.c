#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "vmm/control/keys.h"

static void expect(const char *chord, const char *codes, size_t length)
{
        uint8_t got[KEYS_CODES];
        size_t n;
        struct err err = { 0 };
        assert_int_equal(keys_codes(chord, got, &n, &err), 0);
        assert_int_equal(n, length);
        assert_memory_equal(got, codes, length);
}

static void chords_press_in_order_and_let_go_backwards(void **state)
{
        (void)state;
        expect("a", "\x1e\x9e", 2);
        expect("0", "\x0b\x8b", 2);
        expect("m", "\x32\xb2", 2);
        expect("f1", "\x3b\xbb", 2);
        expect("f10", "\x44\xc4", 2);
        expect("f12", "\x58\xd8", 2);
        expect("ctrl-alt-delete", "\x1d\x38\xe0\x53\xe0\xd3\xb8\x9d", 8);
}

static void longest_chord_fits(void **state)
{
        (void)state;
        uint8_t got[KEYS_CODES];
        size_t n;
        struct err err = { 0 };
        assert_int_equal(keys_codes("up-up-up-up-up-up", got, &n, &err), 0);
        assert_true(n <= KEYS_CODES);
}

static void what_is_no_key_is_named(void **state)
{
        (void)state;
        static const char *const bad[] = { "",    "any", "ctrl--a",       "f0",
                                           "f13", "A",   "a-b-c-d-e-f-g", "f00000000001x" };
        for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
                uint8_t got[KEYS_CODES];
                size_t n;
                struct err err = { 0 };
                assert_int_equal(keys_codes(bad[i], got, &n, &err), -EINVAL);
                assert_true(err.text[0]);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(chords_press_in_order_and_let_go_backwards),
                cmocka_unit_test(longest_chord_fits),
                cmocka_unit_test(what_is_no_key_is_named),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
