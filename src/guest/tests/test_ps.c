#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/auto.h"
#include "base/str.h"
#include "guest/ps.h"

#define NOW_NS 1800000000000000000 /* a morning in January 2027 */

static char *table(const char *options, struct err *err)
{
        struct agent_process processes[] = {
                { .pid = 12,
                  .parent = 1,
                  .uid = 1000,
                  .threads = 3,
                  .terminal = 0x8802,
                  .state = "R",
                  .name = "busy",
                  .command = "busy --loop",
                  .started_ms = 60000,
                  .cpu_ms = 3725000,
                  .virtual_kib = 4096,
                  .resident_kib = 512 },
                { .pid = 1,
                  .threads = 1,
                  .state = "S",
                  .name = "init",
                  .command = "",
                  .started_ms = 1000 },
        };
        struct agent_reply reply = { .processes = processes,
                                     .processes_length = 2,
                                     .uptime_ms = 7510000,
                                     .memory_kib = 1024 };
        struct ps_columns *columns;
        struct buf text = { 0 };
        auto_strv words = options ? str_split(options, ' ') : NULL;
        if (ps_parse(words, &columns, err) < 0)
                return NULL;
        ps_print(columns, &reply, NOW_NS, &text);
        ps_columns_free(columns);
        return buf_take(&text);
}

static void assert_table(const char *options, const char *expected)
{
        struct err err = { 0 };
        auto_free char *text = table(options, &err);
        assert_non_null(text);
        assert_string_equal(text, expected);
}

static void forms_are_those_of_ps(void **state)
{
        (void)state;
        setenv("TZ", "UTC", 1);
        static const char full[] = "UID  PID PPID  C STIME TTY       TIME CMD\n"
                                   "root   1    0  0 05:54 ?     00:00:00 [init]\n"
                                   "1000  12    1 50 05:55 pts/2 01:02:05 busy --loop\n";
        assert_table(NULL, full);
        assert_table("-ef", full);
        assert_table("-e -f", full);
        assert_table("-A", "PID TTY       TIME CMD\n"
                           "  1 ?     00:00:00 init\n"
                           " 12 pts/2 01:02:05 busy\n");
        assert_table("aux", "USER PID %CPU %MEM  VSZ RSS TTY   STAT START     TIME COMMAND\n"
                            "root   1  0.0  0.0    0   0 ?     S    05:54 00:00:00 [init]\n"
                            "1000  12 50.0 50.0 4096 512 pts/2 R    05:55 01:02:05 busy --loop\n");
}

static void columns_are_chosen(void **state)
{
        (void)state;
        static const char chosen[] = "PID COMMAND  ELAPSED NLWP\n"
                                     "  1 init    02:05:09    1\n"
                                     " 12 busy    02:04:10    3\n";
        assert_table("-eo pid,comm,etime,nlwp", chosen);
        assert_table("-o pid,comm -o etime -onlwp", chosen);
        assert_table("o pid,comm,etime,nlwp", chosen);
}

static void what_is_unknown_is_named(void **state)
{
        (void)state;
        struct err err = { 0 };
        assert_null(table("-eo pid,wchan", &err));
        assert_non_null(strstr(err_text(&err), "column 'wchan' is not known"));
        assert_non_null(strstr(err_text(&err), "pid ppid user"));
        assert_null(table("--forest", &err));
        assert_non_null(strstr(err_text(&err), "option '--forest' is not known"));
        assert_null(table("-eo -user", &err));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(forms_are_those_of_ps),
                cmocka_unit_test(columns_are_chosen),
                cmocka_unit_test(what_is_unknown_is_named),
        };
        return cmocka_run_group_tests_name("guest-ps", tests, NULL, NULL);
}
