#include "base/tests/test.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "api/transfer.h"
#include "base/str.h"
#include "http/client.h"
#include "http/listen.h"
#include "image/image.h"
#include "loop/loop.h"

#define BARS        20000
#define DEADLINE_US (20 * 1000000)
#define STEP_US     1000

/* The server's loop runs on a thread of its own; assertions stay on cmocka's. */
struct fixture {
        char directory[64], path[96], url[112];
        struct api api;
        struct http_server *server;
        struct http_client *client;
        pthread_t thread;
        atomic_int finished, cancelled;
};
static struct fixture *current;

static void report(struct transfer *transfer, const char *id, const char *status, uint64_t bytes)
{
        struct image_event event = {
                .id = id, .status = status, .current = bytes, .total = bytes ? BARS : 0
        };
        transfer_event(transfer, &event);
}

static void run_good(struct transfer *transfer)
{
        report(transfer, "", "Pulling from x", 0);
        report(transfer, "aa", "Downloading", 5);
        report(transfer, "aa", "Pull complete", 0);
}

static void done_good(struct transfer *transfer)
{
        struct json_object *record = json_object_new_object();
        put_string(record, "stream", "done/here");
        transfer_record(transfer, record);
}

static void run_nothing(struct transfer *transfer)
{
        (void)transfer;
}

static void run_early(struct transfer *transfer)
{
        transfer->r = err_plain(&transfer->err, ENOENT, "No such image: x");
}

static void run_late(struct transfer *transfer)
{
        report(transfer, "", "Pulling from x", 0);
        transfer->r = err_plain(&transfer->err, EIO, "it broke");
}

static void run_bars(struct transfer *transfer)
{
        for (uint64_t i = 1; i <= BARS; i++)
                report(transfer, "aa", "Downloading", i);
        report(transfer, "aa", "Pull complete", 0);
}

static void run_until_cancelled(struct transfer *transfer)
{
        report(transfer, "", "Waiting", 0);
        for (int us = 0; us < DEADLINE_US && !transfer->cancelled; us += STEP_US)
                usleep(STEP_US);
        current->cancelled = transfer->cancelled;
}

static void finish(struct transfer *transfer)
{
        (void)transfer;
        current->finished++;
}

struct work {
        void (*run)(struct transfer *);
        void (*done)(struct transfer *);
        bool quiet;
};

static void begin(struct http_request *request, void *arg)
{
        const struct work *work = http_request_route(request)->data;
        struct transfer *transfer = new0(struct transfer);
        transfer->run = work->run;
        transfer->done = work->done;
        transfer->quiet = work->quiet;
        transfer->finish = finish;
        transfer_submit(arg, request, transfer);
}

static const struct work good = { run_good, done_good, false }, quiet = { run_good, NULL, true },
                         nothing = { run_nothing, NULL, false }, early = { run_early, NULL, false },
                         late = { run_late, NULL, false }, bars = { run_bars, NULL, false },
                         waits = { run_until_cancelled, NULL, false };

static const struct http_route routes[] = {
        { "POST", "/good", begin, HTTP_BODY_NONE, &good },
        { "POST", "/quiet", begin, HTTP_BODY_NONE, &quiet },
        { "POST", "/nothing", begin, HTTP_BODY_NONE, &nothing },
        { "POST", "/early", begin, HTTP_BODY_NONE, &early },
        { "POST", "/late", begin, HTTP_BODY_NONE, &late },
        { "POST", "/bars", begin, HTTP_BODY_NONE, &bars },
        { "POST", "/waits", begin, HTTP_BODY_NONE, &waits },
};

static void *serve(void *arg)
{
        loop_run(((struct fixture *)arg)->api.loop);
        return NULL;
}

static void stop(void *arg)
{
        loop_exit(arg, 0);
}

static int setup(void **state)
{
        struct fixture *f = new0(struct fixture);
        struct err err = { 0 };
        int fd;
        strcpy(f->directory, "/tmp/isle-transfer-XXXXXX");
        assert_non_null(mkdtemp(f->directory));
        snprintf(f->path, sizeof(f->path), "%s/s", f->directory);
        snprintf(f->url, sizeof(f->url), "unix://%s", f->path);
        assert_int_equal(loop_create(&f->api.loop, &err), 0);
        assert_int_equal(http_server_create(f->api.loop, routes, ELEMENTS(routes), &f->api,
                                            &f->server, &err),
                         0);
        assert_int_equal(http_listen_unix(f->path, 0600, (gid_t)-1, &fd, &err), 0);
        assert_int_equal(http_server_listen(f->server, fd, &err), 0);
        assert_int_equal(http_client_create(f->url, &f->client, &err), 0);
        assert_int_equal(pthread_create(&f->thread, NULL, serve, f), 0);
        *state = current = f;
        return 0;
}

static int teardown(void **state)
{
        struct fixture *f = *state;
        http_client_destroy(f->client);
        loop_post(f->api.loop, stop, f->api.loop);
        pthread_join(f->thread, NULL);
        http_server_destroy(f->server);
        loop_destroy(f->api.loop);
        unlink(f->path);
        rmdir(f->directory);
        free(f);
        return 0;
}

static void expect(struct fixture *f, const char *target, int status, const char *body)
{
        struct http_response response = { 0 };
        struct err err = { 0 };
        if (http_call(f->client, "POST", target, NULL, NULL, 0, &response, &err) < 0)
                fail_msg("%s: %s", target, err_text(&err));
        assert_int_equal(response.status, status);
        assert_string_equal(response.body, body);
        assert_string_equal(http_response_header(&response, "Content-Type"), "application/json");
        http_response_finish(&response);
}

static void test_records_arrive_in_order(void **state)
{
        expect(*state, "/good", 200,
               "{\"status\":\"Pulling from x\"}\r\n"
               "{\"status\":\"Downloading\",\"progressDetail\":{\"current\":5,\"total\":20000},"
               "\"id\":\"aa\"}\r\n"
               "{\"status\":\"Pull complete\",\"progressDetail\":{},\"id\":\"aa\"}\r\n"
               "{\"stream\":\"done/here\"}\r\n");
        expect(*state, "/nothing", 200, "");
}

static void test_quiet_has_no_bars(void **state)
{
        expect(*state, "/quiet", 200,
               "{\"status\":\"Pulling from x\"}\r\n"
               "{\"status\":\"Pull complete\",\"progressDetail\":{},\"id\":\"aa\"}\r\n");
}

static void test_failure_before_a_record_has_its_status(void **state)
{
        expect(*state, "/early", 404, "{\"message\":\"No such image: x\"}\n");
}

static void test_failure_after_a_record_is_a_record(void **state)
{
        expect(*state, "/late", 200,
               "{\"status\":\"Pulling from x\"}\r\n"
               "{\"errorDetail\":{\"message\":\"it broke\"},\"error\":\"it broke\"}\r\n");
}

static void await(const atomic_int *counter, int wanted)
{
        for (int us = 0; us < DEADLINE_US && *counter < wanted; us += STEP_US)
                usleep(STEP_US);
        assert_true(*counter >= wanted);
}

static void test_client_that_goes_cancels(void **state)
{
        struct fixture *f = *state;
        struct http_exchange *exchange;
        struct err err = { 0 };
        assert_int_equal(
                http_exchange_begin(f->client, "POST", "/waits", NULL, NULL, 0, &exchange, &err),
                0);
        assert_int_equal(http_exchange_status(exchange, &err), 200);
        http_exchange_end(exchange);
        await(&f->finished, 1);
        assert_int_equal(f->cancelled, 1);
}

static void test_client_that_reads_late_misses_bars_only(void **state)
{
        struct fixture *f = *state;
        struct http_exchange *exchange;
        struct err err = { 0 };
        auto_buf body = { 0 };
        char piece[65536];
        ssize_t got;
        assert_int_equal(
                http_exchange_begin(f->client, "POST", "/bars", NULL, NULL, 0, &exchange, &err), 0);
        await(&f->finished, 1); /* before anything is read */
        assert_int_equal(http_exchange_status(exchange, &err), 200);
        while ((got = http_exchange_read(exchange, piece, sizeof(piece), &err)) > 0)
                buf_append(&body, piece, (size_t)got);
        assert_int_equal(got, 0);
        http_exchange_end(exchange);
        assert_true(body.size < (2u << 20));
        assert_non_null(strstr(buf_text(&body), "Pull complete"));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_records_arrive_in_order, setup, teardown),
                cmocka_unit_test_setup_teardown(test_quiet_has_no_bars, setup, teardown),
                cmocka_unit_test_setup_teardown(test_failure_before_a_record_has_its_status, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(test_failure_after_a_record_is_a_record, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(test_client_that_goes_cancels, setup, teardown),
                cmocka_unit_test_setup_teardown(test_client_that_reads_late_misses_bars_only, setup,
                                                teardown),
        };
        return cmocka_run_group_tests_name("api-transfer", tests, NULL, NULL);
}
