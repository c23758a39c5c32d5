#include "base/table.h"

#include <stdio.h>

#include "base/tests/test.h"

static int values[1000];

static void keeps_what_was_put(void **state)
{
        (void)state;
        struct table table = { 0 };
        char key[16];
        assert_null(table_get(&table, "none"));
        assert_null(table_remove(&table, "none"));
        for (int i = 0; i < 1000; i++) {
                snprintf(key, sizeof(key), "key-%d", i);
                assert_null(table_put(&table, key, &values[i]));
        }
        assert_ptr_equal(table_put(&table, "key-5", &values[6]), &values[5]);
        assert_int_equal(table.length, 1000);
        for (int i = 0; i < 1000; i += 2) {
                snprintf(key, sizeof(key), "key-%d", i);
                assert_ptr_equal(table_remove(&table, key), &values[i]);
        }
        for (int i = 0; i < 1000; i++) {
                snprintf(key, sizeof(key), "key-%d", i);
                void *expected = i % 2 == 0 ? NULL : i == 5 ? &values[6] : &values[i];
                assert_ptr_equal(table_get(&table, key), expected);
        }
        size_t cursor = 0, seen = 0;
        while (table_next(&table, &cursor))
                seen++;
        assert_int_equal(seen, 500);
        table_finish(&table);
        assert_int_equal(table.length, 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = { cmocka_unit_test(keeps_what_was_put) };
        return cmocka_run_group_tests_name("base-table", tests, NULL, NULL);
}
