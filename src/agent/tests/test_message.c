#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agent/message.h"
#include "base/auto.h"
#include "base/str.h"

#define KEY64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static const char *refusal(const char *line)
{
        static struct err err;
        auto_agent_request request = { 0 };
        err = (struct err){ 0 };
        assert_true(agent_request_parse(line, strlen(line), &request, &err) < 0);
        return err_text(&err);
}

static void requests_are_read_as_written(void **state)
{
        (void)state;
        char *argv[] = { "exec", "--detach", "c", NULL };
        struct agent_request request = { .op = AGENT_OP_LAUNCH,
                                         .key = "k1",
                                         .argv = argv,
                                         .process = "{\"cwd\":\"/\"}",
                                         .terminal = true,
                                         .rows = 30 };
        auto_agent_request again = { 0 };
        auto_buf line = { 0 };
        agent_request_put(&request, &line);
        assert_int_equal(line.data[line.size - 1], '\n');
        assert_null(memchr(line.data, '\n', line.size - 1));
        assert_int_equal(agent_request_parse(line.data, line.size - 1, &again, NULL), 0);
        assert_int_equal(again.op, AGENT_OP_LAUNCH);
        assert_string_equal(again.key, "k1");
        assert_string_equal(again.argv[2], "c");
        assert_string_equal(again.process, request.process);
        assert_true(again.terminal);
        assert_int_equal(again.rows, 30);
}

static void what_is_out_of_range_is_refused(void **state)
{
        (void)state;
        assert_non_null(strstr(refusal("{\"op\":\"stream\",\"key\":\"../x\"}"), "key '../x'"));
        assert_non_null(strstr(refusal("{\"op\":\"launch\",\"argv\":[\"a\"]}"), "key ''"));
        assert_non_null(strstr(refusal("{\"op\":\"stream\",\"key\":\"a\",\"fd\":3}"), "fd 3"));
        assert_non_null(strstr(refusal("{\"op\":\"call\"}"), "argv"));
        assert_non_null(strstr(refusal("{\"op\":\"signal\",\"signal\":0}"), "signal 0"));
        assert_non_null(strstr(refusal("{\"op\":\"signal\",\"signal\":65}"), "signal 65"));
        assert_non_null(strstr(refusal("{\"op\":\"resize\",\"rows\":70000}"), "70000"));
        assert_non_null(strstr(refusal("{\"op\":\"cpus\",\"count\":0}"), "count 0"));
        assert_non_null(strstr(refusal("{\"op\":\"network\"}"), "key ''"));
        assert_non_null(strstr(refusal("{\"op\":\"halt\"}"), "op"));
        assert_non_null(strstr(refusal("{\"op\":\"extract\",\"path\":\"/\"}"), "container"));
        assert_non_null(strstr(refusal("{\"op\":\"extract\",\"path\":\"/\",\"container\":\"c\","
                                       "\"owner\":[1]}"),
                               "owner"));
        assert_non_null(strstr(refusal("{\"op\":\"stream\",\"key\":\"" KEY64 "5\"}"), KEY64 "5"));
        auto_agent_reply reply = { 0 };
        const char *exit = "{\"exit\":256}";
        assert_int_equal(agent_reply_parse(exit, strlen(exit), &reply, NULL), -EPROTO);
}

static void the_longest_key_is_one(void **state)
{
        (void)state;
        static const char line[] = "{\"op\":\"stream\",\"key\":\"" KEY64 "\"}";
        auto_agent_request request = { 0 };
        assert_int_equal(agent_request_parse(line, sizeof(line) - 1, &request, NULL), 0);
        assert_string_equal(request.key, KEY64);
}

static void a_nul_is_no_end_of_a_line(void **state)
{
        static const char sent[] = "{\"exit\":0}\0what follows\n";
        (void)state;
        auto_buf in = { 0 };
        auto_free char *line = NULL;
        auto_agent_reply reply = { 0 };
        size_t size;
        memcpy(buf_reserve(&in, sizeof(sent) - 1), sent, sizeof(sent) - 1);
        buf_commit(&in, sizeof(sent) - 1);
        assert_int_equal(message_take_line(&in, &line, &size, NULL), 1);
        assert_int_equal(size, sizeof(sent) - 2);
        assert_memory_equal(line, sent, size);
        assert_true(agent_reply_parse(line, size, &reply, NULL) < 0);
}

static void lines_come_one_by_one(void **state)
{
        (void)state;
        auto_buf in = { 0 };
        char *line;
        size_t size;
        buf_puts(&in, "one\ntw");
        assert_int_equal(message_take_line(&in, &line, &size, NULL), 1);
        assert_string_equal(line, "one");
        assert_int_equal(size, 3);
        free(line);
        assert_int_equal(message_take_line(&in, &line, &size, NULL), 0);
        buf_puts(&in, "o\n");
        assert_int_equal(message_take_line(&in, &line, &size, NULL), 1);
        assert_string_equal(line, "two");
        free(line);
        assert_int_equal(in.size, 0);
}

static void a_line_without_end_is_not_waited_for(void **state)
{
        (void)state;
        auto_buf in = { 0 };
        char *line;
        size_t size;
        memset(buf_reserve(&in, MESSAGE_SIZE_MAX), 'x', MESSAGE_SIZE_MAX);
        buf_commit(&in, MESSAGE_SIZE_MAX);
        assert_int_equal(message_take_line(&in, &line, &size, NULL), 0);
        buf_putc(&in, 'x');
        assert_int_equal(message_take_line(&in, &line, &size, NULL), -EMSGSIZE);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(requests_are_read_as_written),
                cmocka_unit_test(what_is_out_of_range_is_refused),
                cmocka_unit_test(the_longest_key_is_one),
                cmocka_unit_test(a_nul_is_no_end_of_a_line),
                cmocka_unit_test(lines_come_one_by_one),
                cmocka_unit_test(a_line_without_end_is_not_waited_for),
        };
        return cmocka_run_group_tests_name("agent-message", tests, NULL, NULL);
}
