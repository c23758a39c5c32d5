/* The client against servers that do odd things; test_server.c has it against ours. */
#include "base/tests/test.h"

#include <stdbool.h>

#include "base/auto.h"
#include "base/str.h"
#include "http/client.h"
#include "http/tests/script.h"

#define GET_END "\r\n\r\n"

struct outcome {
        int r;
        struct err err;
        struct http_response response;
};

/* One GET against one scripted reply. */
static struct outcome get(const char *reply, const char *method)
{
        const struct script_step step = { .wait = GET_END, .send = reply };
        struct script script;
        struct outcome outcome = { 0 };
        struct http_client *client;
        script_start(&script, &step, 1);
        assert_int_equal(http_client_create(script.url, &client, &outcome.err), 0);
        outcome.r = http_call(client, method, "/x", NULL, NULL, 0, &outcome.response, &outcome.err);
        http_client_destroy(client);
        script_stop(&script);
        buf_finish(&script.heard);
        return outcome;
}

static void replies_of_every_framing_are_read(void **state __attribute__((unused)))
{
        static const struct {
                const char *reply, *method, *body;
        } cases[] = {
                { "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloEXTRA", "GET", "hello" },
                { "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                  "2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nT: v\r\n\r\n",
                  "GET", "hello" },
                { "HTTP/1.1 200 OK\r\n\r\nhello until the end", "GET", "hello until the end" },
                { "HTTP/1.0 200 OK\r\n\r\nold", "GET", "old" },
                { "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "HEAD", "" },
                { "HTTP/1.1 204 No Content\r\n\r\n", "GET", "" },
                { "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nA: b\r\n\r\n"
                  "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n!",
                  "GET", "!" },
        };
        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                struct outcome outcome = get(cases[i].reply, cases[i].method);
                if (outcome.r < 0)
                        fail_msg("case %zu: %s", i, err_text(&outcome.err));
                assert_string_equal(outcome.response.body, cases[i].body);
                assert_int_equal(outcome.response.size, strlen(cases[i].body));
                http_response_finish(&outcome.response);
        }
}

static void broken_replies_are_told_apart(void **state __attribute__((unused)))
{
        static const struct {
                const char *reply;
                int code;
                const char *story;
        } cases[] = {
                { "", EPIPE, "without an answer" },
                { "HTTP/1.1 200 OK\r\nContent-Le", EPIPE, "without an answer" },
                { "SSH-2.0-OpenSSH\r\n\r\n", EBADMSG, "does not speak HTTP" },
                { "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", EPIPE, "cut short" },
                { "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe", EPIPE,
                  "cut short" },
                { "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", EBADMSG,
                  "malformed chunk" },
        };
        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                struct outcome outcome = get(cases[i].reply, "GET");
                assert_int_equal(outcome.r, -cases[i].code);
                if (!strstr(err_text(&outcome.err), cases[i].story))
                        fail_msg("'%s' does not say '%s'", err_text(&outcome.err), cases[i].story);
        }
}

static void endless_head_is_refused(void **state __attribute__((unused)))
{
        auto_buf reply = { 0 };
        buf_puts(&reply, "HTTP/1.1 200 OK\r\nX: ");
        while (reply.size < 2 * HTTP_CLIENT_HEAD_LIMIT_BYTES)
                buf_puts(&reply, "0123456789");
        struct outcome outcome = get(reply.data, "GET");
        assert_int_equal(outcome.r, -EBADMSG);
        assert_non_null(strstr(err_text(&outcome.err), "endless header"));
}

static void requests_are_well_formed(void **state __attribute__((unused)))
{
        static const struct script_step steps[] = {
                { .wait = "body", .send = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" },
        };
        struct script script;
        struct http_client *client;
        struct http_response response;
        struct err err = { 0 };
        script_start(&script, steps, 1);
        assert_int_equal(http_client_create(script.url, &client, &err), 0);
        assert_int_equal(
                http_call(client, "PUT", "/a?b=c", "text/plain", "body", 4, &response, &err), 0);
        http_response_finish(&response);
        script_stop(&script);
        auto_free char *wanted = xasprintf("PUT /a?b=c HTTP/1.1\r\nHost: %s\r\n"
                                           "Content-Type: text/plain\r\nContent-Length: 4\r\n\r\n"
                                           "body",
                                           script.url + strlen("http://"));
        assert_string_equal(script.heard.data, wanted);
        buf_finish(&script.heard);

        struct http_exchange *exchange;
        char *const bad[] = { (char *)"A: b\r\nInjected: c", NULL };
        assert_int_equal(http_exchange_begin(client, "GET", "/", bad, NULL, 0, &exchange, &err),
                         -EINVAL);
        assert_int_equal(http_exchange_begin(client, "GET", "/a b", NULL, NULL, 0, &exchange, &err),
                         -EINVAL);
        assert_int_equal(http_exchange_begin(client, "G T", "/", NULL, NULL, 0, &exchange, &err),
                         -EINVAL);
        http_client_destroy(client);
}

static void call_ok(struct http_client *client, const char *body)
{
        struct http_response response;
        struct err err = { 0 };
        if (http_call(client, "GET", "/", NULL, NULL, 0, &response, &err) < 0)
                fail_msg("%s", err_text(&err));
        assert_string_equal(response.body, body);
        http_response_finish(&response);
}

static void connection_is_used_again_and_replaced_when_stale(void **state __attribute__((unused)))
{
        static const struct script_step steps[] = {
                { .wait = GET_END,
                  .send = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1",
                  .keep = true },
                { .wait = GET_END,
                  .send = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n2",
                  .keep = true },
                /* Takes the request, and closes without a word. */
                { .wait = GET_END },
                { .wait = GET_END, .send = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n3" },
                { .wait = GET_END,
                  .send = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\n4",
                  .keep = true },
        };
        struct script script;
        struct http_client *client;
        struct err err = { 0 };
        script_start(&script, steps, ELEMENTS(steps));
        assert_int_equal(http_client_create(script.url, &client, &err), 0);
        call_ok(client, "1");
        call_ok(client, "2");
        call_ok(client, "3");
        call_ok(client, "4");
        http_client_destroy(client);
        script_stop(&script);
        assert_int_equal(atomic_load(&script.played), ELEMENTS(steps));
        buf_finish(&script.heard);
}

static void hijack_keeps_what_came_early(void **state __attribute__((unused)))
{
        static const struct script_step steps[] = {
                { .wait = "Upgrade: tcp\r\n",
                  .send = "HTTP/1.1 101 UPGRADED\r\nContent-Type: x\r\n\r\nearly" },
                { .wait = GET_END,
                  .send = "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno" },
        };
        struct script script;
        struct http_client *client;
        struct http_exchange *exchange;
        struct err err = { 0 };
        auto_buf early = { 0 };
        auto_fd fd = -1;
        script_start(&script, steps, 2);
        assert_int_equal(http_client_create(script.url, &client, &err), 0);
        assert_int_equal(http_exchange_begin(client, "POST", "/attach", http_upgrade_headers, NULL,
                                             0, &exchange, &err),
                         0);
        assert_int_equal(http_exchange_hijack(exchange, &fd, &early, &err), 0);
        http_exchange_end(exchange);
        char rest[16];
        ssize_t got;
        while ((got = read(fd, rest, sizeof(rest))) > 0)
                buf_append(&early, rest, (size_t)got);
        assert_string_equal(buf_text(&early), "early");

        assert_int_equal(http_exchange_begin(client, "POST", "/attach", http_upgrade_headers, NULL,
                                             0, &exchange, &err),
                         0);
        assert_int_equal(http_exchange_hijack(exchange, &fd, &early, &err), -EPROTO);
        /* The answer is still there to be read. */
        assert_int_equal(http_exchange_read(exchange, rest, sizeof(rest), &err), 2);
        assert_memory_equal(rest, "no", 2);
        http_exchange_end(exchange);
        http_client_destroy(client);
        script_stop(&script);
        buf_finish(&script.heard);
}

static void refusal_during_an_upload_is_read(void **state __attribute__((unused)))
{
        static const struct script_step steps[] = {
                { .wait = "first", .send = "HTTP/1.1 507 Full\r\nContent-Length: 4\r\n\r\nfull" },
        };
        struct script script;
        struct http_client *client;
        struct http_exchange *exchange;
        struct err err = { 0 };
        script_start(&script, steps, 1);
        assert_int_equal(http_client_create(script.url, &client, &err), 0);
        assert_int_equal(http_exchange_begin(client, "POST", "/load", NULL, NULL, HTTP_CHUNKED,
                                             &exchange, &err),
                         0);
        assert_int_equal(http_exchange_write(exchange, "first", 5, &err), 0);
        assert_int_equal(http_exchange_status(exchange, &err), 507);
        char data[16];
        assert_int_equal(http_exchange_read(exchange, data, sizeof(data), &err), 4);
        assert_int_equal(http_exchange_read(exchange, data, sizeof(data), &err), 0);
        http_exchange_end(exchange);
        http_client_destroy(client);
        script_stop(&script);
        buf_finish(&script.heard);
}

static void bad_addresses_are_explained(void **state __attribute__((unused)))
{
        struct http_client *client;
        struct err err = { 0 };
        static const char *const bad[] = { "",           "unix://", "/run/x.sock", "tcp://",
                                           "tcp://host", "tcp://:", "ssh://host" };
        for (size_t i = 0; i < ELEMENTS(bad); i++)
                assert_int_equal(http_client_create(bad[i], &client, &err), -EINVAL);

        struct http_response response;
        assert_int_equal(http_client_create("unix:///nonexistent/isle.sock", &client, &err), 0);
        assert_int_equal(http_call(client, "GET", "/", NULL, NULL, 0, &response, &err), -ENOENT);
        assert_string_equal(err_text(&err),
                            "cannot connect to unix:///nonexistent/isle.sock: No such file or "
                            "directory. Is the daemon (isled) running?");
        http_client_destroy(client);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(replies_of_every_framing_are_read),
                cmocka_unit_test(broken_replies_are_told_apart),
                cmocka_unit_test(endless_head_is_refused),
                cmocka_unit_test(requests_are_well_formed),
                cmocka_unit_test(connection_is_used_again_and_replaced_when_stale),
                cmocka_unit_test(hijack_keeps_what_came_early),
                cmocka_unit_test(refusal_during_an_upload_is_read),
                cmocka_unit_test(bad_addresses_are_explained),
        };
        return cmocka_run_group_tests_name("client", tests, NULL, NULL);
}
