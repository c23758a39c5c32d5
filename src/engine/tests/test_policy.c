/* Names, restart policies, labels, filters of events, users, ps(1). */
#include <errno.h>
#include <string.h>

#include "base/auto.h"
#include "base/str.h"
#include "base/tests/test.h"
#include "engine/events.h"
#include "engine/filter.h"
#include "engine/names.h"
#include "engine/restart.h"
#include "engine/top.h"
#include "engine/users.h"

static void names_are_dockers(void **state)
{
        (void)state;
        static const char *const good[] = { "ab", "A1", "a_b.c-d", "0x" };
        static const char *const bad[] = { "", "a", "-ab", "_ab", "a b", "a/b", "\xc3\xa9xx" };
        struct err err;
        for (size_t i = 0; i < ELEMENTS(good); i++)
                assert_int_equal(name_check(good[i], &err), 0);
        for (size_t i = 0; i < ELEMENTS(bad); i++) {
                assert_false(name_is_valid(bad[i]));
                assert_int_equal(name_check(bad[i], &err), -EINVAL);
        }
        auto_free char *first = name_draw(0), *later = name_draw(3);
        assert_true(name_is_valid(first));
        assert_true(name_is_valid(later));
        assert_non_null(strchr(first, '_'));
}

static void restart_policies_decide(void **state)
{
        (void)state;
        struct restart_policy no = { .name = (char *)"no" };
        struct restart_policy none = { .name = NULL };
        struct restart_policy always = { .name = (char *)"always" };
        struct restart_policy unless = { .name = (char *)"unless-stopped" };
        struct restart_policy failure = { .name = (char *)"on-failure", .maximum_retry_count = 2 };
        assert_false(restart_wanted(&no, 1, false, 0));
        assert_false(restart_wanted(&none, 1, false, 0));
        assert_true(restart_wanted(&always, 0, false, 1000));
        assert_false(restart_wanted(&always, 0, true, 0));
        assert_true(restart_wanted(&unless, 0, false, 0));
        assert_true(restart_wanted(&failure, 1, false, 1));
        assert_false(restart_wanted(&failure, 1, false, 2));
        assert_false(restart_wanted(&failure, 0, false, 0));

        assert_true(restart_at_boot(&always, 0, true, false)); /* even where stopped */
        assert_false(restart_at_boot(&unless, 0, true, false));
        assert_true(restart_at_boot(&unless, 0, false, false));
        assert_false(restart_at_boot(&failure, 1, false, false));
        assert_true(restart_at_boot(&failure, 1, false, true));
}

static void delays_double_and_end(void **state)
{
        (void)state;
        int64_t delay = restart_delay(0, 0);
        assert_int_equal(delay, RESTART_DELAY_MIN_NS);
        assert_int_equal(restart_delay(delay, 0), 2 * RESTART_DELAY_MIN_NS);
        for (int i = 0; i < 40; i++)
                delay = restart_delay(delay, 0);
        assert_int_equal(delay, RESTART_DELAY_MAX_NS);
        assert_int_equal(restart_delay(delay, RESTART_RESET_NS), RESTART_DELAY_MIN_NS);
}

static void labels_match_by_key_or_pair(void **state)
{
        (void)state;
        char *labels[] = { (char *)"a=1", (char *)"b=", NULL };
        assert_true(label_matches(labels, "a"));
        assert_true(label_matches(labels, "a=1"));
        assert_false(label_matches(labels, "a=2"));
        assert_true(label_matches(labels, "b="));
        assert_false(label_matches(labels, "c"));
        assert_false(label_matches(NULL, "a"));
}

static void event_filters_have_two_encodings(void **state)
{
        (void)state;
        static const char *const same[] = {
                "{\"type\":[\"container\"],\"event\":[\"die\",\"start\"]}",
                "{\"type\":{\"container\":true},\"event\":{\"die\":true,\"start\":true}}",
        };
        struct engine_event die = { .type = "container", .action = "die", .id = "abc" };
        struct engine_event pull = { .type = "image", .action = "pull", .id = "x" };
        for (size_t i = 0; i < ELEMENTS(same); i++) {
                struct event_filter filter;
                assert_int_equal(event_filter_parse(same[i], &filter, NULL), 0);
                assert_true(event_filter_matches(&filter, &die));
                assert_false(event_filter_matches(&filter, &pull));
                event_filter_finish(&filter);
        }
        struct event_filter all;
        assert_int_equal(event_filter_parse("", &all, NULL), 0);
        assert_true(event_filter_matches(&all, &pull));
        event_filter_finish(&all);
        struct err err;
        assert_true(event_filter_parse("{\"colour\":[\"x\"]}", &all, &err) < 0);
        assert_non_null(strstr(err_text(&err), "colour"));
        assert_true(event_filter_parse("[1", &all, &err) < 0);
}

static const char passwd[] = "root:x:0:0:root:/root:/bin/sh\nbroken\n"
                             "www:x:33:34:w:/var/www:/bin/false\n";
static const char group[] = "root:x:0:\nwww:x:34:\nextra:x:50:www,other\nodd:x:notanumber:www\n";

static void users_are_those_of_the_image(void **state)
{
        (void)state;
        struct user_found user;
        struct err err;
        assert_int_equal(user_resolve("www", passwd, group, NULL, &user, &err), 0);
        assert_int_equal(user.uid, 33);
        assert_int_equal(user.gid, 34);
        assert_string_equal(user.home, "/var/www");
        bool extra = false;
        for (size_t i = 0; i < user.groups_length; i++)
                extra = extra || user.groups[i] == 50;
        assert_true(extra);
        user_found_finish(&user);

        assert_int_equal(user_resolve("1000:extra", passwd, group, NULL, &user, &err), 0);
        assert_int_equal(user.uid, 1000);
        assert_int_equal(user.gid, 50);
        assert_string_equal(user.home, "/");
        user_found_finish(&user);

        assert_true(user_resolve("nobody", passwd, group, NULL, &user, &err) < 0);
        assert_non_null(strstr(err_text(&err), "nobody"));
        assert_true(user_resolve("root:none", passwd, group, NULL, &user, &err) < 0);
        assert_true(user_resolve("4294967296", passwd, group, NULL, &user, &err) < 0);
}

static void only_the_instances_processes_are_shown(void **state)
{
        (void)state;
        static const char output[] = "UID          PID CMD\nroot           1 /sbin/init\n"
                                     "root          42 sh -c  a b\n";
        pid_t pids[] = { 42 };
        struct instance_top top;
        struct err err;
        assert_int_equal(top_parse(output, pids, 1, &top, &err), 0);
        assert_int_equal(strv_length(top.titles), 3);
        assert_string_equal(top.titles[2], "CMD");
        assert_non_null(top.rows[0]);
        assert_null(top.rows[1]);
        assert_string_equal(top.rows[0][1], "42");
        assert_non_null(strstr(top.rows[0][2], "sh -c"));
        instance_top_finish(&top);
        assert_true(top_parse("UID CMD\nroot x\n", pids, 1, &top, &err) < 0); /* no PID */
        assert_true(top_parse("", pids, 1, &top, &err) < 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(names_are_dockers),
                cmocka_unit_test(restart_policies_decide),
                cmocka_unit_test(delays_double_and_end),
                cmocka_unit_test(labels_match_by_key_or_pair),
                cmocka_unit_test(event_filters_have_two_encodings),
                cmocka_unit_test(users_are_those_of_the_image),
                cmocka_unit_test(only_the_instances_processes_are_shown),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
