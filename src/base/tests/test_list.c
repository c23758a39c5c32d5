#include "base/list.h"

#include "base/tests/test.h"

struct item {
        int value;
        struct list siblings;
};

static void members_stay_in_order(void **state)
{
        (void)state;
        struct list head;
        struct item items[5];
        list_init(&head);
        assert_true(list_empty(&head));
        for (int i = 0; i < 5; i++) {
                items[i].value = i;
                list_append(&head, &items[i].siblings);
        }
        list_for_each_safe (struct item, item, &head, siblings)
                if (item->value % 2)
                        list_remove(&item->siblings);
        int expected = 0;
        list_for_each (struct item, item, &head, siblings) {
                assert_int_equal(item->value, expected);
                expected += 2;
        }
        assert_int_equal(expected, 6);
        list_remove(&items[1].siblings); /* again: harmless */
        list_insert_before(&items[0].siblings, &items[1].siblings);
        assert_ptr_equal(head.next, &items[1].siblings);
}

int main(void)
{
        const struct CMUnitTest tests[] = { cmocka_unit_test(members_stay_in_order) };
        return cmocka_run_group_tests_name("base-list", tests, NULL, NULL);
}
