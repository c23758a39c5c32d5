/* Long bodies both ways, and connections that stop being HTTP. */
#include "base/tests/test.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <time.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/str.h"
#include "http/tests/fixture.h"

#define LONG_BODY_BYTES (8u << 20)

static struct http_exchange *get(struct fixture *fixture, const char *target)
{
        struct http_exchange *exchange;
        struct err err = { 0 };
        if (http_exchange_begin(fixture->client, "GET", target, NULL, NULL, 0, &exchange, &err) < 0)
                fail_msg("%s", err_text(&err));
        assert_int_equal(http_exchange_status(exchange, &err), 200);
        return exchange;
}

/* Reads `size` pattern bytes and then the end. */
static void expect_pattern(struct http_exchange *exchange, size_t size)
{
        struct err err = { 0 };
        char data[10007];
        size_t position = 0;
        ssize_t got;
        while ((got = http_exchange_read(exchange, data, sizeof(data), &err)) > 0) {
                for (ssize_t i = 0; i < got; i++)
                        if (data[i] != pattern_at(position + (size_t)i))
                                fail_msg("wrong byte at %zu", position + (size_t)i);
                position += (size_t)got;
        }
        if (got < 0)
                fail_msg("after %zu bytes: %s", position, err_text(&err));
        assert_int_equal(position, size);
}

/* Until a counter that stands still shows that its producer is held up. */
static size_t await_standstill(const atomic_size_t *counter)
{
        size_t before, now = atomic_load(counter);
        int64_t deadline_ns = clock_monotonic_ns() + FIXTURE_DEADLINE_S * NS_PER_S;
        do {
                before = now;
                nanosleep(&(struct timespec){ .tv_nsec = 100 * NS_PER_MS }, NULL);
                now = atomic_load(counter);
        } while ((now != before || now == 0) && clock_monotonic_ns() < deadline_ns);
        return now;
}

static void stream_is_chunked_and_its_producer_held_back(void **state)
{
        struct fixture *fixture = *state;
        auto_free char *target = xasprintf("/stream?size=%u", LONG_BODY_BYTES);
        struct http_exchange *exchange = get(fixture, target);
        assert_string_equal(http_exchange_header(exchange, "transfer-encoding"), "chunked");
        await_standstill(&fixture->queued_max);
        /* A client that does not read delays nobody. */
        struct http_response response;
        assert_int_equal(
                http_call(fixture->client, "GET", "/_ping", NULL, NULL, 0, &response, NULL), 0);
        http_response_finish(&response);
        expect_pattern(exchange, LONG_BODY_BYTES);
        assert_true(atomic_load(&fixture->queued_max) < 256u << 10);
        http_exchange_end(exchange);
}

static void pipe_is_streamed_and_its_writer_held_back(void **state)
{
        struct fixture *fixture = *state;
        auto_free char *target = xasprintf("/pipe?size=%u", LONG_BODY_BYTES);
        struct http_exchange *exchange = get(fixture, target);
        assert_true(await_standstill(&fixture->writer_wrote) < LONG_BODY_BYTES / 2);
        expect_pattern(exchange, LONG_BODY_BYTES);
        http_exchange_end(exchange);
}

static void file_is_sent_with_its_length(void **state)
{
        struct fixture *fixture = *state;
        auto_free char *path = xasprintf("%s/file", fixture->directory);
        auto_free char *data = xmalloc(LONG_BODY_BYTES);
        for (size_t i = 0; i < LONG_BODY_BYTES; i++)
                data[i] = pattern_at(i);
        for (int empty = 0; empty < 2; empty++) {
                size_t size = empty ? 0 : LONG_BODY_BYTES;
                assert_int_equal(file_replace(AT_FDCWD, path, data, size, 0600, false, NULL), 0);
                struct http_exchange *exchange = get(fixture, "/file");
                auto_free char *length = xasprintf("%zu", size);
                assert_string_equal(http_exchange_header(exchange, "content-length"), length);
                expect_pattern(exchange, size);
                http_exchange_end(exchange);
        }
}

static void reader_that_leaves_ends_the_stream(void **state)
{
        struct fixture *fixture = *state;
        struct http_exchange *exchange = get(fixture, "/stream?size=1000000000");
        char data[100];
        assert_true(http_exchange_read(exchange, data, sizeof(data), NULL) > 0);
        http_exchange_end(exchange);
        fixture_await(&fixture->closed, 1);
        assert_int_equal(atomic_load(&fixture->aborted), 1);

        exchange = get(fixture, "/pipe?size=1000000000");
        http_exchange_end(exchange);
        fixture_await(&fixture->closed, 2);
}

static void long_upload_passes_through_a_pipe(void **state)
{
        struct fixture *fixture = *state;
        struct err err = { 0 };
        auto_free char *data = xmalloc(LONG_BODY_BYTES);
        for (size_t i = 0; i < LONG_BODY_BYTES; i++)
                data[i] = pattern_at(i);
        /* The echo would fill up if we did not read: a child sends, we receive. */
        for (int chunked = 0; chunked < 2; chunked++) {
                auto_fd fd = raw_connect(fixture);
                pid_t pid = fork();
                if (pid == 0) {
                        auto_free char *head = xasprintf(
                                chunked ? "POST /pipe HTTP/1.1\r\nTransfer-Encoding: "
                                          "chunked\r\n\r\n"
                                          "%x\r\n"
                                        : "POST /pipe HTTP/1.1\r\nContent-Length: %u\r\n\r\n",
                                LONG_BODY_BYTES);
                        bool is_bad = io_write_full(fd, head, strlen(head)) < 0 ||
                                      io_write_full(fd, data, LONG_BODY_BYTES) < 0 ||
                                      (chunked && io_write_full(fd, "\r\n0\r\n\r\n", 7) < 0);
                        _exit(is_bad);
                }
                auto_buf reply = { 0 };
                raw_receive(fd, &reply, "\r\n0\r\n\r\n");
                assert_true(reply.size > LONG_BODY_BYTES);
                assert_non_null(strstr(reply.data, " 200 OK"));
        }
        (void)err;
}

static void reply_starts_while_the_body_is_still_coming(void **state)
{
        struct fixture *fixture = *state;
        struct http_exchange *exchange;
        struct err err = { 0 };
        char data[64];
        assert_int_equal(http_exchange_begin(fixture->client, "POST", "/progress", NULL, NULL,
                                             HTTP_CHUNKED, &exchange, &err),
                         0);
        assert_int_equal(http_exchange_status(exchange, &err), 200);
        assert_int_equal(http_exchange_read(exchange, data, sizeof(data), &err), 6);
        assert_memory_equal(data, "start\n", 6);
        assert_int_equal(http_exchange_write(exchange, "0123456789", 10, &err), 0);
        assert_int_equal(http_exchange_write_end(exchange, &err), 0);
        assert_int_equal(http_exchange_read(exchange, data, sizeof(data), &err), 7);
        assert_memory_equal(data, "end 10\n", 7);
        assert_int_equal(http_exchange_read(exchange, data, sizeof(data), &err), 0);
        http_exchange_end(exchange);
        fixture_await(&fixture->closed, 1);
        assert_int_equal(atomic_load(&fixture->body_complete), 1);
}

static void upload_cut_short_is_told_apart(void **state)
{
        struct fixture *fixture = *state;
        auto_buf reply = { 0 };
        int fd = raw_connect(fixture);
        raw_send(fd, "POST /progress HTTP/1.1\r\nContent-Length: 100\r\n\r\npart");
        raw_receive(fd, &reply, "start");
        close(fd);
        fixture_await(&fixture->closed, 1);
        assert_int_equal(atomic_load(&fixture->body_complete), 0);
        assert_int_equal(atomic_load(&fixture->aborted), 1);
}

static void refusal_reaches_a_client_that_is_still_sending(void **state)
{
        struct fixture *fixture = *state;
        struct http_exchange *exchange;
        struct err err = { 0 };
        assert_int_equal(http_exchange_begin(fixture->client, "POST", "/refuse", NULL, NULL,
                                             HTTP_CHUNKED, &exchange, &err),
                         0);
        auto_free char *block = xcalloc(1, 1 << 20);
        int r = 0;
        for (int i = 0; i < 8 && r == 0; i++)
                r = http_exchange_write(exchange, block, 1 << 20, &err);
        assert_int_equal(http_exchange_status(exchange, &err), 507);
        char data[100] = { 0 };
        assert_true(http_exchange_read(exchange, data, sizeof(data) - 1, &err) > 0);
        assert_string_equal(data, "{\"message\":\"disk \\\"full\\\"\"}\n");
        http_exchange_end(exchange);
}

static void hijack(struct fixture *fixture, char *const *headers, int status, int *ret_fd)
{
        struct http_exchange *exchange;
        struct err err = { 0 };
        auto_buf early = { 0 };
        assert_int_equal(http_exchange_begin(fixture->client, "POST", "/attach", headers, NULL, 0,
                                             &exchange, &err),
                         0);
        assert_int_equal(http_exchange_status(exchange, &err), status);
        assert_string_equal(http_exchange_header(exchange, "content-type"),
                            "application/vnd.docker.raw-stream");
        assert_int_equal(http_exchange_hijack(exchange, ret_fd, &early, &err), 0);
        assert_int_equal(early.size, 0);
        http_exchange_end(exchange);
        struct timeval patience = { .tv_sec = FIXTURE_DEADLINE_S };
        setsockopt(*ret_fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
}

static void connection_is_handed_to_another_process(void **state)
{
        struct fixture *fixture = *state;
        for (int asked = 0; asked < 2; asked++) {
                int raw;
                hijack(fixture, asked ? http_upgrade_headers : NULL, asked ? 101 : 200, &raw);
                auto_fd fd = raw;
                /* The server has let go of it, and it still works both ways. */
                fixture_await(&fixture->closed, asked + 1);
                auto_buf said = { 0 };
                raw_send(fd, "hello");
                raw_receive(fd, &said, "HELLO");
                shutdown(fd, SHUT_WR);
                raw_receive(fd, &said, NULL);
                assert_string_equal(said.data, "HELLObye");
        }
}

static void upgrade_is_answered_as_docker_does_and_keeps_early_bytes(void **state)
{
        struct fixture *fixture = *state;
        auto_buf reply = { 0 };
        auto_fd fd = raw_connect(fixture);
        raw_send(fd, "POST /v1.44/attach HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\n"
                     "Upgrade: tcp\r\nContent-Length: 0\r\n\r\nearly ");
        shutdown(fd, SHUT_WR); /* a client whose input was at its end already */
        raw_receive(fd, &reply, NULL);
        assert_true(str_starts(reply.data, "HTTP/1.1 101 UPGRADED\r\n"));
        assert_non_null(strstr(reply.data, "\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"));
        assert_null(strstr(reply.data, "Content-Length"));
        assert_true(str_ends(reply.data, "\r\n\r\nearly bye"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(stream_is_chunked_and_its_producer_held_back),
                TEST(pipe_is_streamed_and_its_writer_held_back),
                TEST(file_is_sent_with_its_length),
                TEST(reader_that_leaves_ends_the_stream),
                TEST(long_upload_passes_through_a_pipe),
                TEST(reply_starts_while_the_body_is_still_coming),
                TEST(upload_cut_short_is_told_apart),
                TEST(refusal_reaches_a_client_that_is_still_sending),
                TEST(connection_is_handed_to_another_process),
                TEST(upgrade_is_answered_as_docker_does_and_keeps_early_bytes),
        };
        return cmocka_run_group_tests_name("stream", tests, NULL, NULL);
}
