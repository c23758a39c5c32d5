#include "base/utf8.h"

#include <string.h>

#include "base/auto.h"
#include "base/str.h"
#include "base/tests/test.h"

static void characters_have_lengths(void **state)
{
        (void)state;
        static const struct {
                const char *text;
                size_t length;
        } rows[] = {
                { "a", 1 },
                { "\x7f", 1 },
                { "\xc2\x80", 2 },
                { "\xdf\xbf", 2 },
                { "\xe0\xa0\x80", 3 },
                { "\xed\x9f\xbf", 3 },
                { "\xef\xbf\xbf", 3 },
                { "\xf0\x90\x80\x80", 4 },
                { "\xf4\x8f\xbf\xbf", 4 },
                { "\x80", 0 },             /* no first byte */
                { "\xc1\xbf", 0 },         /* could be shorter */
                { "\xe0\x9f\xbf", 0 },     /* likewise */
                { "\xf0\x8f\xbf\xbf", 0 }, /* likewise */
                { "\xed\xa0\x80", 0 },     /* a surrogate */
                { "\xf4\x90\x80\x80", 0 }, /* beyond the last */
                { "\xf5\x80\x80\x80", 0 },
                { "\xe2\x82", 0 }, /* cut */
                { "\xe2\x82z", 0 },
        };
        for (size_t i = 0; i < ELEMENTS(rows); i++)
                assert_int_equal(utf8_length(rows[i].text, strlen(rows[i].text)), rows[i].length);
}

static void what_is_none_is_replaced(void **state)
{
        (void)state;
        auto_free char *text = utf8_clean("a\xff\xe2\x82\xac\0b\xe2\x82", 9);
        assert_string_equal(text, "a\xef\xbf\xbd\xe2\x82\xac\xef\xbf\xbd"
                                  "b\xef\xbf\xbd\xef\xbf\xbd");
        auto_free char *none = utf8_clean("", 0);
        assert_string_equal(none, "");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(characters_have_lengths),
                cmocka_unit_test(what_is_none_is_replaced),
        };
        return cmocka_run_group_tests_name("base-utf8", tests, NULL, NULL);
}
