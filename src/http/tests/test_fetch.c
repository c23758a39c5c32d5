/* Transfers against our own server over TCP, scripts for oddities, openssl for TLS. */
#include "base/tests/test.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/str.h"
#include "http/fetch.h"
#include "http/tests/fixture.h"
#include "http/tests/script.h"

static struct fetcher *fetcher;

static int make_fetcher(void **state __attribute__((unused)))
{
        return fetcher_create(&fetcher, NULL);
}

static int drop_fetcher(void **state __attribute__((unused)))
{
        fetcher_destroy(fetcher);
        return 0;
}

/* "http://127.0.0.1:PORT/path" of the fixture's server. */
static char *url_of(const struct fixture *fixture, const char *path)
{
        return xasprintf("http://%s%s", fixture->tcp_url + strlen("tcp://"), path);
}

static void perform(const struct fetch *fetch, struct fetch_result *ret)
{
        struct err err = { 0 };
        if (fetch_perform(fetcher, fetch, ret, &err) < 0)
                fail_msg("%s: %s", fetch->url, err_text(&err));
}

static void small_replies_are_kept(void **state)
{
        struct fetch_result result;
        auto_free char *url = url_of(*state, "/describe?q=1");
        perform(&(struct fetch){ .url = url }, &result);
        assert_int_equal(result.status, 200);
        assert_string_equal(result.body, "GET /describe v0 name=- q=1 all=0");
        assert_string_equal(fetch_header(&result, "content-TYPE"), "text/plain");
        assert_null(fetch_header(&result, "absent"));
        fetch_result_finish(&result);

        auto_free char *nowhere = url_of(*state, "/nowhere");
        perform(&(struct fetch){ .url = nowhere, .write = NULL }, &result);
        assert_int_equal(result.status, 404);
        assert_string_equal(result.body, "{\"message\":\"page not found\"}\n");
        fetch_result_finish(&result);

        auto_free char *ping = url_of(*state, "/_ping");
        perform(&(struct fetch){ .method = "HEAD", .url = ping }, &result);
        assert_int_equal(result.status, 200);
        assert_string_equal(fetch_header(&result, "content-length"), "2");
        assert_int_equal(result.body_size, 0);
        fetch_result_finish(&result);
}

struct sink {
        size_t position;
        int heads, status;
        int fail_after; /* bytes */
        atomic_bool *cancel;
};

static int take_head(void *arg, const struct fetch_result *result,
                     struct err *err __attribute__((unused)))
{
        struct sink *sink = arg;
        sink->heads++;
        sink->status = result->status;
        assert_non_null(result->headers);
        return 0;
}

static int take(void *arg, const void *data, size_t size, struct err *err)
{
        struct sink *sink = arg;
        const char *bytes = data;
        for (size_t i = 0; i < size; i++)
                if (bytes[i] != pattern_at(sink->position + i))
                        return err_plain(err, EBADMSG, "wrong byte at %zu", sink->position + i);
        sink->position += size;
        if (sink->cancel)
                atomic_store(sink->cancel, true);
        if (sink->fail_after && sink->position > (size_t)sink->fail_after)
                return err_plain(err, ENOSPC, "disk full");
        return 0;
}

static void long_replies_are_streamed(void **state)
{
        struct fetch_result result;
        struct sink sink = { 0 };
        auto_free char *url = url_of(*state, "/stream?size=5000000");
        perform(&(struct fetch){ .url = url, .head = take_head, .write = take, .arg = &sink },
                &result);
        assert_int_equal(sink.position, 5000000);
        assert_int_equal(sink.heads, 1);
        assert_int_equal(sink.status, 200);
        assert_int_equal(result.received_bytes, 5000000);
        fetch_result_finish(&result);
}

static void limits_and_failures_of_the_sink_end_the_transfer(void **state)
{
        struct fetch_result result;
        struct err err = { 0 };
        struct sink sink = { 0 };
        auto_free char *url = url_of(*state, "/stream?size=5000000");
        struct fetch fetch = { .url = url, .write = take, .arg = &sink, .size_limit = 100000 };
        assert_int_equal(fetch_perform(fetcher, &fetch, &result, &err), -EFBIG);
        assert_non_null(strstr(err_text(&err), "larger than 100000 bytes"));
        assert_non_null(strstr(err_text(&err), "GET 127.0.0.1:"));
        assert_false(result.transient);

        /* Kept in memory there is a limit even where none is named. */
        fetch = (struct fetch){ .url = url };
        assert_int_equal(fetch_perform(fetcher, &fetch, &result, &err), -EFBIG);

        sink = (struct sink){ .fail_after = 300000 };
        fetch = (struct fetch){ .url = url, .write = take, .arg = &sink };
        assert_int_equal(fetch_perform(fetcher, &fetch, &result, &err), -ENOSPC);
        assert_non_null(strstr(err_text(&err), "disk full"));
}

static void cancelling_ends_the_transfer(void **state)
{
        struct fetch_result result;
        struct err err = { 0 };
        atomic_bool cancel = false;
        struct sink sink = { .cancel = &cancel };
        auto_free char *url = url_of(*state, "/stream?size=500000000");
        struct fetch fetch = { .url = url, .write = take, .arg = &sink, .cancel = &cancel };
        assert_int_equal(fetch_perform(fetcher, &fetch, &result, &err), -ECANCELED);
        assert_true(sink.position < 500000000);

        /* Also while nothing comes at all. */
        auto_free char *never = url_of(*state, "/never");
        fetch = (struct fetch){ .url = never, .cancel = &cancel };
        assert_int_equal(fetch_perform(fetcher, &fetch, &result, &err), -ECANCELED);
}

static void bodies_are_sent_from_memory_and_files(void **state)
{
        struct fixture *fixture = *state;
        struct fetch_result result;
        auto_free char *url = url_of(fixture, "/buffered");
        perform(&(struct fetch){ .method = "POST", .url = url, .body = "hello", .body_size = 5 },
                &result);
        assert_string_equal(result.body, "hello");
        fetch_result_finish(&result);

        perform(&(struct fetch){ .method = "POST", .url = url }, &result);
        assert_int_equal(result.status, 200);
        assert_int_equal(result.body_size, 0);
        fetch_result_finish(&result);

        auto_free char *path = xasprintf("%s/upload", fixture->directory);
        auto_free char *data = xmalloc(1 << 20);
        for (size_t i = 0; i < 1 << 20; i++)
                data[i] = pattern_at(i);
        assert_int_equal(file_replace(AT_FDCWD, path, data, 1 << 20, 0600, false, NULL), 0);
        auto_fd fd = open(path, O_RDONLY | O_CLOEXEC);
        perform(&(struct fetch){ .method = "POST",
                                 .url = url,
                                 .body_fd = fd,
                                 .has_body_fd = true,
                                 .body_offset = 1000,
                                 .body_size = 500000 },
                &result);
        assert_int_equal(result.body_size, 500000);
        assert_memory_equal(result.body, data + 1000, 500000);
        fetch_result_finish(&result);
}

static void connections_are_kept_between_transfers(void **state __attribute__((unused)))
{
        static const struct script_step steps[] = {
                { .wait = "\r\n\r\n",
                  .send = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1",
                  .keep = true },
                { .wait = "\r\n\r\n", .send = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n2" },
        };
        struct script script;
        struct fetch_result result;
        script_start(&script, steps, 2);
        perform(&(struct fetch){ .url = script.url }, &result);
        fetch_result_finish(&result);
        perform(&(struct fetch){ .url = script.url }, &result);
        assert_string_equal(result.body, "2");
        fetch_result_finish(&result);
        script_stop(&script);
        buf_finish(&script.heard);
}

/* One transfer against one scripted reply. */
static int scripted(const char *reply, struct fetch *fetch, struct fetch_result *ret,
                    struct err *err, struct buf *heard)
{
        const struct script_step step = { .wait = "\r\n\r\n", .send = reply };
        struct script script;
        script_start(&script, &step, 1);
        fetch->url = script.url;
        int r = fetch_perform(fetcher, fetch, ret, err);
        script_stop(&script);
        buf_append(heard, script.heard.data, script.heard.size);
        buf_finish(&script.heard);
        fetch->url = NULL;
        return r;
}

static void redirects_are_reported_not_followed(void **state __attribute__((unused)))
{
        struct fetch_result result;
        struct err err = { 0 };
        auto_buf heard = { 0 };
        char *headers[] = { (char *)"Authorization: Bearer secret", NULL };
        struct fetch fetch = { .headers = headers };
        assert_int_equal(scripted("HTTP/1.1 307 Temporary Redirect\r\nLocation: "
                                  "https://cdn.example/blob?sig=1\r\nContent-Length: 0\r\n\r\n",
                                  &fetch, &result, &err, &heard),
                         0);
        assert_int_equal(result.status, 307);
        assert_string_equal(result.location, "https://cdn.example/blob?sig=1");
        assert_non_null(strstr(heard.data, "\r\nAuthorization: Bearer secret\r\n"));
        assert_null(strstr(heard.data, "\r\nExpect:"));
        fetch_result_finish(&result);

        assert_int_equal(scripted("HTTP/1.1 202 Accepted\r\nLocation: ../uploads/7?_state=x\r\n"
                                  "Content-Length: 0\r\n\r\n",
                                  &fetch, &result, &err, &heard),
                         0);
        assert_true(str_starts(result.location, "http://127.0.0.1:"));
        assert_true(str_ends(result.location, "/uploads/7?_state=x"));
        fetch_result_finish(&result);

        char *injected[] = { (char *)"A: b\r\nC: d", NULL };
        fetch = (struct fetch){ .url = "http://127.0.0.1:1", .headers = injected };
        assert_int_equal(fetch_perform(fetcher, &fetch, &result, &err), -EINVAL);
}

static void resuming_checks_what_it_gets(void **state __attribute__((unused)))
{
        static const struct {
                const char *reply;
                int r, status;
        } cases[] = {
                { "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 3-5/6\r\n"
                  "Content-Length: 3\r\n\r\n",
                  0, 206 },
                { "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n", 0, 200 },
                { "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 2-5/6\r\n"
                  "Content-Length: 3\r\n\r\n",
                  -EPROTO, 0 },
                { "HTTP/1.1 206 Partial Content\r\nContent-Length: 3\r\n\r\n", -EPROTO, 0 },
                { "HTTP/1.1 416 Range\r\nContent-Length: 3\r\n\r\n", 0, 416 },
        };
        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                struct fetch_result result;
                struct err err = { 0 };
                auto_buf heard = { 0 };
                auto_buf reply = { 0 };
                bool is_whole = cases[i].status == 200;
                struct sink sink = { .position = is_whole ? 0 : 3 };
                buf_puts(&reply, cases[i].reply);
                for (size_t at = is_whole ? 0 : 3; at < 6; at++)
                        buf_putc(&reply, pattern_at(at));
                struct fetch fetch = {
                        .resume_offset = 3, .head = take_head, .write = take, .arg = &sink
                };
                assert_int_equal(scripted(reply.data, &fetch, &result, &err, &heard), cases[i].r);
                assert_non_null(strstr(heard.data, "\r\nRange: bytes=3-\r\n"));
                assert_int_equal(sink.status, cases[i].status == 416 ? 0 : cases[i].status);
                if (cases[i].r == 0)
                        assert_int_equal(result.status, cases[i].status);
                fetch_result_finish(&result);
        }
}

static void failures_are_classified(void **state __attribute__((unused)))
{
        struct fetch_result result;
        struct err err = { 0 };
        auto_buf heard = { 0 };
        struct fetch fetch = { 0 };
        assert_int_equal(scripted("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", &fetch,
                                  &result, &err, &heard),
                         -EPIPE);
        assert_true(result.transient);
        assert_int_equal(scripted("", &fetch, &result, &err, &heard), -EPIPE);

        auto_buf endless = { 0 };
        buf_puts(&endless, "HTTP/1.1 200 OK\r\n");
        while (endless.size < 2 * FETCH_HEAD_LIMIT_BYTES)
                buf_puts(&endless, "X: 0123456789012345678901234567890123456789\r\n");
        assert_int_equal(scripted(endless.data, &fetch, &result, &err, &heard), -EPROTO);

        fetch.url = "http://127.0.0.1:1/v2/";
        assert_int_equal(fetch_perform(fetcher, &fetch, &result, &err), -ECONNREFUSED);
        assert_true(result.transient);
        assert_true(str_starts(err_text(&err), "GET 127.0.0.1:1: "));
        fetch.url = "http://user:secret@no.such.host.invalid/v2/";
        assert_int_equal(fetch_perform(fetcher, &fetch, &result, &err), -EHOSTUNREACH);
        assert_null(strstr(err_text(&err), "secret"));
        fetch.url = "file:///etc/passwd";
        assert_int_equal(fetch_perform(fetcher, &fetch, &result, &err), -EINVAL);
        assert_false(result.transient);
}

static void silence_is_a_timeout(void **state __attribute__((unused)))
{
        static const struct script_step steps[] = {
                { .wait = "\r\n\r\n",
                  .send = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel",
                  .hold = true },
        };
        struct script script;
        struct fetch_result result;
        struct err err = { 0 };
        script_start(&script, steps, 1);
        struct fetch fetch = { .url = script.url, .stall_timeout_ns = NS_PER_S };
        assert_int_equal(fetch_perform(fetcher, &fetch, &result, &err), -ETIMEDOUT);
        assert_true(result.transient);
        script_stop(&script);
        buf_finish(&script.heard);
}

/* --- TLS --- */

static int run(char *const *argv, int *ret_stdout, pid_t *ret_pid)
{
        int fds[2];
        if (pipe2(fds, O_CLOEXEC) < 0)
                return -errno;
        pid_t pid = fork();
        if (pid == 0) {
                dup2(fds[1], 1);
                dup2(open("/dev/null", O_RDWR | O_CLOEXEC), 2);
                execvp(argv[0], argv);
                _exit(127);
        }
        close(fds[1]);
        *ret_stdout = fds[0];
        *ret_pid = pid;
        return 0;
}

static void certificates_are_verified(void **state)
{
        struct fixture *fixture = *state;
        auto_free char *key = xasprintf("%s/key.pem", fixture->directory);
        auto_free char *cert = xasprintf("%s/cert.pem", fixture->directory);
        char *const make[] = { (char *)"openssl",
                               (char *)"req",
                               (char *)"-x509",
                               (char *)"-newkey",
                               (char *)"rsa:2048",
                               (char *)"-nodes",
                               (char *)"-keyout",
                               key,
                               (char *)"-out",
                               cert,
                               (char *)"-subj",
                               (char *)"/CN=localhost",
                               (char *)"-addext",
                               (char *)"subjectAltName=DNS:localhost",
                               NULL };
        auto_fd out = -1;
        pid_t pid;
        int status;
        assert_int_equal(run(make, &out, &pid), 0);
        waitpid(pid, &status, 0);
        if (WIFEXITED(status) && WEXITSTATUS(status) == 127) {
                print_message("the openssl program is not installed\n");
                skip();
        }
        assert_int_equal(status, 0);
        close_fd(&out);

        char *const serve[] = { (char *)"openssl", (char *)"s_server",
                                (char *)"-accept", (char *)"127.0.0.1:0",
                                (char *)"-key",    key,
                                (char *)"-cert",   cert,
                                (char *)"-www",    NULL };
        assert_int_equal(run(serve, &out, &pid), 0);
        auto_buf said = { 0 };
        while (!strstr(buf_text(&said), "ACCEPT 127.0.0.1:") ||
               !strchr(strstr(said.data, "ACCEPT"), '\n')) {
                ssize_t got = read(out, buf_reserve(&said, 256), 256);
                assert_true(got > 0);
                buf_commit(&said, (size_t)got);
        }
        unsigned port = (unsigned)strtoul(strstr(said.data, "ACCEPT 127.0.0.1:") + 17, NULL, 10);
        auto_free char *url = xasprintf("https://localhost:%u/", port);
        auto_free char *wrong = xasprintf("https://127.0.0.1:%u/", port);

        struct fetch_result result;
        struct err err = { 0 };
        struct fetch fetch = { .url = url };
        assert_int_equal(fetch_perform(fetcher, &fetch, &result, &err), -EPERM);
        assert_non_null(strstr(err_text(&err), "certificate"));
        assert_false(result.transient);
        fetch.ca_file = cert;
        assert_int_equal(fetch_perform(fetcher, &fetch, &result, &err), 0);
        assert_int_equal(result.status, 200);
        fetch_result_finish(&result);
        fetch.url = wrong; /* trusted, but of another name */
        assert_int_equal(fetch_perform(fetcher, &fetch, &result, &err), -EPERM);
        fetch.ca_file = NULL;
        fetch.insecure_tls = true;
        assert_int_equal(fetch_perform(fetcher, &fetch, &result, &err), 0);
        fetch_result_finish(&result);
        fetch.ca_file = key; /* no certificate in it */
        fetch.insecure_tls = false;
        fetch.url = url;
        assert_int_equal(fetch_perform(fetcher, &fetch, &result, &err), -EPERM);
        kill(pid, SIGTERM);
        waitpid(pid, NULL, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void)
{
        /* The machine's proxy is no part of this. */
        unsetenv("http_proxy");
        unsetenv("https_proxy");
        unsetenv("all_proxy");
        const struct CMUnitTest tests[] = {
                TEST(small_replies_are_kept),
                TEST(long_replies_are_streamed),
                TEST(limits_and_failures_of_the_sink_end_the_transfer),
                TEST(cancelling_ends_the_transfer),
                TEST(bodies_are_sent_from_memory_and_files),
                cmocka_unit_test(connections_are_kept_between_transfers),
                cmocka_unit_test(redirects_are_reported_not_followed),
                cmocka_unit_test(resuming_checks_what_it_gets),
                cmocka_unit_test(failures_are_classified),
                cmocka_unit_test(silence_is_a_timeout),
                TEST(certificates_are_verified),
        };
        return cmocka_run_group_tests_name("fetch", tests, make_fetcher, drop_fetcher);
}
