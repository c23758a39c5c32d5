#include "base/buf.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "base/tests/test.h"

static void grows_and_stays_terminated(void **state)
{
        (void)state;
        auto_buf buf = { 0 };
        assert_string_equal(buf_text(&buf), "");
        for (int i = 0; i < 1000; i++)
                assert_int_equal(buf_printf(&buf, "%d,", i), 0);
        assert_int_equal(buf.size, strlen(buf_text(&buf)));
        assert_memory_equal(buf.data, "0,1,2,", 6);
        buf_consume(&buf, 2);
        assert_memory_equal(buf.data, "1,2,", 4);
        buf_consume(&buf, buf.size + 1);
        assert_int_equal(buf.size, 0);
}

static void a_limit_refuses_and_changes_nothing(void **state)
{
        (void)state;
        auto_buf buf = { .limit_bytes = 8 };
        assert_int_equal(buf_puts(&buf, "12345678"), 0);
        assert_int_equal(buf_putc(&buf, '9'), -ENOBUFS);
        assert_int_equal(buf_printf(&buf, "%s", "x"), -ENOBUFS);
        assert_null(buf_reserve(&buf, SIZE_MAX));
        assert_string_equal(buf_text(&buf), "12345678");
        buf_reset(&buf);
        assert_int_equal(buf_puts(&buf, "again"), 0);
        buf_finish(&buf);
        assert_int_equal(buf.limit_bytes, 8);
}

static void take_hands_the_text_over(void **state)
{
        (void)state;
        auto_buf buf = { 0 };
        auto_free char *empty = buf_take(&buf);
        assert_string_equal(empty, "");
        buf_puts(&buf, "text");
        auto_free char *text = buf_take(&buf);
        assert_string_equal(text, "text");
        assert_int_equal(buf.size, 0);
        assert_null(buf.data);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(grows_and_stays_terminated),
                cmocka_unit_test(a_limit_refuses_and_changes_nothing),
                cmocka_unit_test(take_hands_the_text_over),
        };
        return cmocka_run_group_tests_name("base-buf", tests, NULL, NULL);
}
