#include "base/tests/test.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/str.h"
#include "http/listen.h"
#include "http/tests/fixture.h"

static void assert_contains(const struct buf *text, const char *part)
{
        if (!strstr(buf_text(text), part))
                fail_msg("no '%s' in '%s'", part, buf_text(text));
}

static void call(struct fixture *fixture, const char *method, const char *target, const char *body,
                 struct http_response *ret)
{
        struct err err = { 0 };
        if (http_call(fixture->client, method, target, body ? "text/plain" : NULL, body,
                      body ? strlen(body) : 0, ret, &err) < 0)
                fail_msg("%s %s: %s", method, target, err_text(&err));
}

static void expect(struct fixture *fixture, const char *method, const char *target,
                   const char *body, int status, const char *reply)
{
        struct http_response response;
        call(fixture, method, target, body, &response);
        assert_int_equal(response.status, status);
        assert_string_equal(response.body, reply);
        http_response_finish(&response);
}

static void requests_reach_their_routes(void **state)
{
        struct fixture *fixture = *state;
        expect(fixture, "GET", "/_ping", NULL, 200, "OK");
        expect(fixture, "GET", "/v1.44/describe?q=a%20b&all=1&q=&x&q=c+d", NULL, 200,
               "GET /describe v44 name=- q=a b q= q=c d all=1 self=1");
        expect(fixture, "GET", "/describe/lib/busybox:1%2F2/json?all=0", NULL, 200,
               "GET /describe/lib/busybox:1/2/json v0 name=lib/busybox:1/2 all=0 self=1");
        expect(fixture, "POST", "/buffered", "body", 200, "body");
        expect(fixture, "POST", "/none", "thrown away", 204, "");
        expect(fixture, "POST", "/pipe", "piped", 200, "piped");
}

static void header_values_cannot_break_out(void **state)
{
        struct http_response response;
        call(*state, "GET", "/describe", NULL, &response);
        assert_string_equal(http_response_header(&response, "x-header"), "a  b");
        http_response_finish(&response);
}

static void errors_are_json(void **state)
{
        struct fixture *fixture = *state;
        struct http_response response;
        expect(fixture, "GET", "/nowhere", NULL, 404, "{\"message\":\"page not found\"}\n");
        expect(fixture, "POST", "/nowhere", "body", 404, "{\"message\":\"page not found\"}\n");
        expect(fixture, "GET", "/describe?q=%zz", NULL, 400,
               "{\"message\":\"bad percent-escape in the request path\"}\n");
        call(fixture, "DELETE", "/_ping", NULL, &response);
        assert_int_equal(response.status, 405);
        assert_string_equal(http_response_header(&response, "allow"), "GET, HEAD");
        http_response_finish(&response);
        assert_int_equal(atomic_load(&fixture->begun), 0);
}

static void malformed_requests_get_an_answer(void **state)
{
        auto_buf reply = { 0 };
        raw_exchange(*state, "rubbish\r\n\r\n", &reply);
        assert_contains(&reply, "HTTP/1.1 400 ");
        assert_contains(&reply, "\r\nConnection: close\r\n");
        buf_reset(&reply);
        raw_exchange(*state, "POST /buffered HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                     &reply);
        assert_contains(&reply, "HTTP/1.1 400 ");
        assert_contains(&reply, "malformed chunked body");
}

static void endless_head_is_refused(void **state)
{
        auto_fd fd = raw_connect(*state);
        auto_buf reply = { 0 };
        auto_buf head = { 0 };
        buf_puts(&head, "GET /_ping HTTP/1.1\r\nX: ");
        while (head.size <= HTTP_HEAD_LIMIT_BYTES)
                buf_puts(&head, "0123456789");
        raw_send(fd, head.data);
        raw_receive(fd, &reply, NULL);
        assert_contains(&reply, "HTTP/1.1 431 ");
}

static void head_may_arrive_byte_by_byte(void **state)
{
        auto_fd fd = raw_connect(*state);
        auto_buf reply = { 0 };
        for (const char *p = "\r\nPOST /buffered HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"; *p; p++)
                raw_send(fd, (char[]){ *p, '\0' });
        raw_receive(fd, &reply, "abc");
        assert_contains(&reply, "HTTP/1.1 200 OK\r\n");
        assert_contains(&reply, "\r\nContent-Length: 3\r\n");
}

static void pipelined_requests_are_answered_in_order(void **state)
{
        auto_buf reply = { 0 };
        raw_exchange(
                *state,
                "POST /buffered HTTP/1.1\r\nContent-Length: 1\r\n\r\n1"
                "POST /buffered HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n2\r\n0\r\n\r\n"
                "POST /none HTTP/1.1\r\nContent-Length: 4\r\n\r\nGET "
                "GET /_ping HTTP/1.1\r\nConnection: close\r\n\r\n"
                "GET /never HTTP/1.1\r\n\r\n",
                &reply);
        const char *at = buf_text(&reply);
        static const char *const order[] = { "\r\n\r\n1HTTP", "\r\n\r\n2HTTP", " 204 No Content",
                                             "\r\n\r\nOK" };
        for (size_t i = 0; i < ELEMENTS(order); i++) {
                at = strstr(at, order[i]);
                assert_non_null(at);
        }
        assert_int_equal(atomic_load(&((struct fixture *)*state)->begun), 4);
}

static void connections_are_kept(void **state)
{
        auto_fd fd = raw_connect(*state);
        for (int i = 0; i < 3; i++) {
                auto_buf reply = { 0 };
                raw_send(fd, "GET /_ping HTTP/1.1\r\n\r\n");
                raw_receive(fd, &reply, "OK");
                raw_receive(fd, &reply, "\r\n\r\nOK");
        }
}

static void http_1_0_gets_no_chunks(void **state)
{
        auto_buf reply = { 0 };
        raw_exchange(*state, "GET /stream?size=5 HTTP/1.0\r\n\r\n", &reply);
        assert_null(strstr(reply.data, "chunked"));
        char body[6] = { 0 };
        for (size_t i = 0; i < 5; i++)
                body[i] = pattern_at(i);
        assert_true(str_ends(reply.data, body));
        assert_contains(&reply, "\r\nConnection: close\r\n");
}

static void head_method_gets_no_body(void **state)
{
        static const char *const targets[] = { "/_ping", "/stream?size=100", "/pipe?size=100000",
                                               "/nowhere" };
        for (size_t i = 0; i < ELEMENTS(targets); i++) {
                auto_buf reply = { 0 };
                auto_free char *text = xasprintf("HEAD %s HTTP/1.1\r\nConnection: close\r\n\r\n",
                                                 targets[i]);
                raw_exchange(*state, text, &reply);
                assert_true(str_ends(reply.data, "\r\n\r\n"));
                assert_int_equal(strstr(reply.data, "\r\n\r\n") + 4 - reply.data, reply.size);
        }
}

static void bodies_beyond_the_limit_are_refused(void **state)
{
        struct fixture *fixture = *state;
        auto_buf reply = { 0 };
        raw_exchange(fixture, "POST /buffered HTTP/1.1\r\nContent-Length: 8388609\r\n\r\n", &reply);
        assert_contains(&reply, "HTTP/1.1 413 ");

        /* A chunked one is cut where it crosses the limit, long before its end. */
        struct http_exchange *exchange;
        struct err err = { 0 };
        assert_int_equal(http_exchange_begin(fixture->client, "POST", "/none", NULL, NULL,
                                             HTTP_CHUNKED, &exchange, &err),
                         0);
        auto_free char *block = xcalloc(1, 1 << 20);
        int r = 0;
        for (int i = 0; i < 100 && r == 0; i++)
                r = http_exchange_write(exchange, block, 1 << 20, &err);
        assert_int_equal(http_exchange_status(exchange, &err), 413);
        http_exchange_end(exchange);
        assert_int_equal(atomic_load(&fixture->begun), 0);
}

static void buffered_body_up_to_the_limit_is_taken(void **state)
{
        struct fixture *fixture = *state;
        struct http_response response;
        struct err err = { 0 };
        auto_free char *body = xmalloc(HTTP_BODY_LIMIT_BYTES);
        memset(body, 'x', HTTP_BODY_LIMIT_BYTES);
        assert_int_equal(http_call(fixture->client, "POST", "/buffered", NULL, body,
                                   HTTP_BODY_LIMIT_BYTES, &response, &err),
                         0);
        assert_int_equal(response.status, 200);
        assert_int_equal(response.size, HTTP_BODY_LIMIT_BYTES);
        http_response_finish(&response);
}

static void expectation_is_answered_before_the_body(void **state)
{
        auto_fd fd = raw_connect(*state);
        auto_buf reply = { 0 };
        raw_send(fd, "POST /buffered HTTP/1.1\r\nContent-Length: 2\r\n"
                     "Expect: 100-continue\r\n\r\n");
        raw_receive(fd, &reply, "HTTP/1.1 100 Continue\r\n\r\n");
        raw_send(fd, "ok");
        raw_receive(fd, &reply, "\r\n\r\nok");
}

static void idle_hang_up_is_noticed_while_a_reply_is_pending(void **state)
{
        struct fixture *fixture = *state;
        int fd = raw_connect(fixture);
        raw_send(fd, "GET /never HTTP/1.1\r\n\r\n");
        fixture_await(&fixture->begun, 1);
        assert_int_equal(atomic_load(&fixture->closed), 0);
        close(fd);
        fixture_await(&fixture->closed, 1);

        /* As in dockerd, the end of the sending side will do. */
        fd = raw_connect(fixture);
        raw_send(fd, "GET /never HTTP/1.1\r\n\r\n");
        fixture_await(&fixture->begun, 2);
        shutdown(fd, SHUT_WR);
        fixture_await(&fixture->closed, 2);
        close(fd);
}

static void half_closed_client_may_wait_for_its_upgrade(void **state)
{
        struct fixture *fixture = *state;
        int fd = raw_connect(fixture);
        raw_send(fd, "POST /never-attach HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n");
        fixture_await(&fixture->begun, 1);
        shutdown(fd, SHUT_WR);
        expect(fixture, "GET", "/_ping", NULL, 200, "OK"); /* the loop has been round */
        expect(fixture, "GET", "/_ping", NULL, 200, "OK");
        fixture_await(&fixture->closed, 2); /* the two pings */
        assert_int_equal(atomic_load(&fixture->closed), 2);
        close(fd);
        fixture_await(&fixture->closed, 3);
}

static void request_of_a_client_that_left_at_once_is_begun(void **state)
{
        struct fixture *fixture = *state;
        int fd = raw_connect(fixture);
        raw_send(fd, "POST /none HTTP/1.1\r\n\r\n");
        close(fd);
        fixture_await(&fixture->closed, 1);
}

static void server_goes_down_with_requests_open(void **state)
{
        struct fixture *fixture = *state;
        auto_fd fd = raw_connect(fixture);
        raw_send(fd, "GET /never HTTP/1.1\r\n\r\n");
        fixture_await(&fixture->begun, 1);
        /* The teardown checks that it was closed. */
}

static void latency_is_far_below_a_millisecond(void **state)
{
        struct fixture *fixture = *state;
        int64_t best_ns = INT64_MAX;
        for (int i = 0; i < 200; i++) {
                int64_t start_ns = clock_monotonic_ns();
                auto_buf reply = { 0 };
                auto_fd fd = raw_connect(fixture);
                raw_send(fd, "GET /_ping HTTP/1.1\r\n\r\n");
                raw_receive(fd, &reply, "\r\n\r\nOK");
                int64_t took_ns = clock_monotonic_ns() - start_ns;
                if (took_ns < best_ns)
                        best_ns = took_ns;
        }
        assert_true(best_ns < NS_PER_MS);
}

static void tcp_is_served_too(void **state)
{
        struct fixture *fixture = *state;
        struct err err = { 0 };
        struct http_client *client;
        struct http_response response;
        assert_int_equal(http_client_create(fixture->tcp_url, &client, &err), 0);
        assert_int_equal(http_call(client, "GET", "/describe", NULL, NULL, 0, &response, &err), 0);
        assert_string_equal(response.body, "GET /describe v0 name=- all=0");
        http_response_finish(&response);
        http_client_destroy(client);
}

static void socket_paths_are_looked_at_before_use(void **state)
{
        struct fixture *fixture = *state;
        struct err err = { 0 };
        int fd;
        assert_int_equal(http_listen_unix(fixture->path, 0600, (gid_t)-1, &fd, &err), -EADDRINUSE);
        assert_non_null(strstr(err_text(&err), fixture->path));

        auto_free char *stale = xasprintf("%s/stale", fixture->directory);
        for (int i = 0; i < 2; i++) { /* the second finds the first one's corpse */
                assert_int_equal(http_listen_unix(stale, 0640, (gid_t)-1, &fd, &err), 0);
                struct stat st;
                assert_int_equal(stat(stale, &st), 0);
                assert_int_equal(st.st_mode & 07777, 0640);
                close(fd);
        }
        assert_int_equal(unlink(stale), 0);
        auto_fd file = open(stale, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
        assert_true(file >= 0);
        assert_int_equal(http_listen_unix(stale, 0600, (gid_t)-1, &fd, &err), -EEXIST);
        assert_int_equal(http_listen("ftp://x", (gid_t)-1, &fd, &err), -EINVAL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(requests_reach_their_routes),
                TEST(header_values_cannot_break_out),
                TEST(errors_are_json),
                TEST(malformed_requests_get_an_answer),
                TEST(endless_head_is_refused),
                TEST(head_may_arrive_byte_by_byte),
                TEST(pipelined_requests_are_answered_in_order),
                TEST(connections_are_kept),
                TEST(http_1_0_gets_no_chunks),
                TEST(head_method_gets_no_body),
                TEST(bodies_beyond_the_limit_are_refused),
                TEST(buffered_body_up_to_the_limit_is_taken),
                TEST(expectation_is_answered_before_the_body),
                TEST(idle_hang_up_is_noticed_while_a_reply_is_pending),
                TEST(half_closed_client_may_wait_for_its_upgrade),
                TEST(request_of_a_client_that_left_at_once_is_begun),
                TEST(server_goes_down_with_requests_open),
                TEST(latency_is_far_below_a_millisecond),
                TEST(tcp_is_served_too),
                TEST(socket_paths_are_looked_at_before_use),
        };
        return cmocka_run_group_tests_name("server", tests, NULL, NULL);
}
