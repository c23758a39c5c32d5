#include "base/tests/test.h"

#include <errno.h>

#include "base/auto.h"
#include "base/rand.h"
#include "base/str.h"
#include "http/wire.h"

static int parse(const char *text, struct wire_head *head, char **ret_copy)
{
        *ret_copy = xstrdup(text);
        return wire_parse_request(*ret_copy, strlen(text), head);
}

static void request_is_parsed(void **state __attribute__((unused)))
{
        struct wire_head head;
        auto_free char *text = NULL;
        assert_int_equal(parse("POST /v1.44/x?a=b HTTP/1.1\r\nHost: d\r\nX-Empty:\r\n"
                               "content-LENGTH:  12 \t\r\nConnection: keep-alive, Upgrade\r\n"
                               "Upgrade: tcp\r\nExpect: 100-Continue\r\n\r\n",
                               &head, &text),
                         0);
        assert_string_equal(head.method, "POST");
        assert_string_equal(head.target, "/v1.44/x?a=b");
        assert_string_equal(wire_field(&head, "HOST"), "d");
        assert_string_equal(wire_field(&head, "x-empty"), "");
        assert_null(wire_field(&head, "absent"));
        assert_int_equal(head.framing, WIRE_LENGTH);
        assert_int_equal(head.content_length, 12);
        assert_true(head.upgrade);
        assert_true(head.expect_continue);
        assert_false(head.close);
}

static void malformed_requests_are_refused(void **state __attribute__((unused)))
{
        static const char *const bad[] = {
                "",
                "\r\n\r\n",
                "GET\r\n\r\n",
                "GET /\r\n\r\n",
                "GET / HTTP/2.0\r\n\r\n",
                "GET / HTTP/1.10\r\n\r\n",
                "GET / HTTP/1.1 \r\n\r\n",
                "GET  / HTTP/1.1\r\n\r\n",
                "GET x HTTP/1.1\r\n\r\n",
                "GET http://h/ HTTP/1.1\r\n\r\n",
                "G{T / HTTP/1.1\r\n\r\n",
                "GET /\x01 HTTP/1.1\r\n\r\n",
                "GET / HTTP/1.1\nHost: d\r\n\r\n",
                "GET / HTTP/1.1\r\nHost : d\r\n\r\n",
                "GET / HTTP/1.1\r\n Host: d\r\n\r\n",
                "GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n",
                "GET / HTTP/1.1\r\nNoColon\r\n\r\n",
                "GET / HTTP/1.1\r\n: empty\r\n\r\n",
                "GET / HTTP/1.1\r\nA: b\rc\r\n\r\n",
                "GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
                "GET / HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
                "GET / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n",
                "GET / HTTP/1.1\r\nContent-Length: 0x1\r\n\r\n",
                "GET / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
                "GET / HTTP/1.1\r\nContent-Length: 9223372036854775808\r\n\r\n",
                "GET / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
                "GET / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
                "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n",
                "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
                "GET / HTTP/1.1\r\n\r\nrest\r\n\r\n",
        };
        for (size_t i = 0; i < ELEMENTS(bad); i++) {
                struct wire_head head;
                auto_free char *text = NULL;
                if (parse(bad[i], &head, &text) != -EBADMSG)
                        fail_msg("accepted: %s", bad[i]);
        }
}

static void too_many_fields_are_refused(void **state __attribute__((unused)))
{
        struct wire_head head;
        auto_buf text = { 0 };
        buf_puts(&text, "GET / HTTP/1.1\r\n");
        for (int i = 0; i < WIRE_FIELDS_LIMIT; i++)
                buf_printf(&text, "A%d: b\r\n", i);
        auto_buf more = { 0 };
        buf_printf(&more, "%sA: b\r\n\r\n", text.data);
        buf_puts(&text, "\r\n");
        assert_int_equal(wire_parse_request(text.data, text.size, &head), 0);
        assert_int_equal(head.length, WIRE_FIELDS_LIMIT);
        assert_int_equal(wire_parse_request(more.data, more.size, &head), -E2BIG);
}

static void embedded_nul_is_refused(void **state __attribute__((unused)))
{
        struct wire_head head;
        char text[] = "GET / HTTP/1.1\r\nA: b\0c\r\n\r\n";
        assert_int_equal(wire_parse_request(text, sizeof(text) - 1, &head), -EBADMSG);
}

static void connection_persistence_follows_the_version(void **state __attribute__((unused)))
{
        static const struct {
                const char *text;
                bool close;
        } cases[] = {
                { "GET / HTTP/1.1\r\n\r\n", false },
                { "GET / HTTP/1.1\r\nConnection: close\r\n\r\n", true },
                { "GET / HTTP/1.1\r\nConnection: x, CLOSE\r\n\r\n", true },
                { "GET / HTTP/1.0\r\n\r\n", true },
                { "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", false },
        };
        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                struct wire_head head;
                auto_free char *text = NULL;
                assert_int_equal(parse(cases[i].text, &head, &text), 0);
                assert_int_equal(head.close, cases[i].close);
        }
}

static void reply_framing_follows_status_and_fields(void **state __attribute__((unused)))
{
        static const struct {
                const char *text;
                bool to_head;
                int status;
                enum wire_framing framing;
        } cases[] = {
                { "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", false, 200, WIRE_LENGTH },
                { "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true, 200, WIRE_NONE },
                { "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false, 200, WIRE_NONE },
                { "HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n", false, 200, WIRE_CHUNKED },
                { "HTTP/1.1 200 OK\r\n\r\n", false, 200, WIRE_CLOSE },
                { "HTTP/1.1 204 No Content\r\n\r\n", false, 204, WIRE_NONE },
                { "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", false, 304, WIRE_NONE },
                { "HTTP/1.1 101 UPGRADED\r\n\r\n", false, 101, WIRE_NONE },
        };
        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                struct wire_head head;
                auto_free char *text = xstrdup(cases[i].text);
                assert_int_equal(
                        wire_parse_reply(text, strlen(cases[i].text), cases[i].to_head, &head), 0);
                assert_int_equal(head.status, cases[i].status);
                assert_int_equal(head.framing, cases[i].framing);
        }
        static const char *const bad[] = {
                "SSH-2.0-x\r\n\r\n",        "HTTP/1.1\r\n\r\n",        "HTTP/1.1 20 OK\r\n\r\n",
                "HTTP/1.1 2000 OK\r\n\r\n", "HTTP/1.1 099 OK\r\n\r\n", "HTTP/1.1 200OK\r\n\r\n",
        };
        for (size_t i = 0; i < ELEMENTS(bad); i++) {
                struct wire_head head;
                auto_free char *text = xstrdup(bad[i]);
                assert_int_equal(wire_parse_reply(text, strlen(bad[i]), false, &head), -EBADMSG);
        }
}

static void head_is_found_however_it_arrives(void **state __attribute__((unused)))
{
        static const char text[] = "GET / HTTP/1.1\r\nA: b\r\n\r\nbody";
        size_t end = sizeof(text) - 1 - strlen("body");
        size_t scanned = 0;
        for (size_t size = 0; size <= sizeof(text) - 1; size++)
                assert_int_equal(wire_head_size(text, size, &scanned), size < end ? 0 : end);
}

/* Feeds `text` in pieces of `step`; the body into `out`. Returns bytes used or -EBADMSG. */
static ssize_t feed(struct wire_chunks *chunks, const char *text, size_t size, size_t step,
                    struct buf *out)
{
        size_t offset = 0;
        while (offset < size && !chunks->done) {
                const char *data;
                size_t data_size;
                size_t piece = size - offset < step ? size - offset : step;
                ssize_t used = wire_chunks_feed(chunks, text + offset, piece, &data, &data_size);
                if (used < 0)
                        return used;
                assert_true(used > 0);
                if (data_size > 0)
                        buf_append(out, data, data_size);
                offset += (size_t)used;
        }
        return (ssize_t)offset;
}

static void chunks_are_decoded_however_they_arrive(void **state __attribute__((unused)))
{
        static const char text[] = "5\r\nhello\r\n0007;ext=\"v\"\r\n, world\r\n"
                                   "0 \r\nTrailer: x\r\nOther: y\r\n\r\nnext";
        for (size_t step = 1; step < sizeof(text); step++) {
                struct wire_chunks chunks = { 0 };
                auto_buf out = { 0 };
                assert_int_equal(feed(&chunks, text, sizeof(text) - 1, step, &out),
                                 sizeof(text) - 1 - strlen("next"));
                assert_true(chunks.done);
                assert_string_equal(buf_text(&out), "hello, world");
        }
}

static void malformed_chunks_are_refused(void **state __attribute__((unused)))
{
        static const char *const bad[] = {
                "\r\n",    "x\r\n",     "-1\r\n",    "1\n",
                "1\r\nab", "1\r\na\rx", "0\r\nx\ny", "1234567890abcdef0\r\n",
                "0x1\r\n", "1\r\r\n",   "0\r\n\rx",
        };
        for (size_t i = 0; i < ELEMENTS(bad); i++) {
                struct wire_chunks chunks = { 0 };
                auto_buf out = { 0 };
                if (feed(&chunks, bad[i], strlen(bad[i]), 64, &out) != -EBADMSG)
                        fail_msg("accepted: %s", bad[i]);
        }
}

static void endless_trailers_are_refused(void **state __attribute__((unused)))
{
        struct wire_chunks chunks = { 0 };
        auto_buf out = { 0 };
        auto_buf text = { 0 };
        buf_puts(&text, "0\r\n");
        for (int i = 0; i < 1000; i++)
                buf_puts(&text, "Trailer: xxxxxx\r\n");
        assert_int_equal(feed(&chunks, text.data, text.size, 4096, &out), -EBADMSG);
}

static void percent_encoding_goes_both_ways(void **state __attribute__((unused)))
{
        char text[] = "a%2Fb+c%20%C3%a9";
        assert_int_equal(wire_percent_decode(text, true), 0);
        assert_string_equal(text, "a/b c \xc3\xa9");
        static const char *const bad[] = { "%", "%2", "%zz", "%2g", "a%00b" };
        for (size_t i = 0; i < ELEMENTS(bad); i++) {
                auto_free char *copy = xstrdup(bad[i]);
                assert_int_equal(wire_percent_decode(copy, false), -EINVAL);
        }
        auto_buf out = { 0 };
        wire_percent_encode(&out, "a/b c&=%\xc3\xa9", "/");
        assert_string_equal(buf_text(&out), "a/b%20c%26%3D%25%C3%A9");
        assert_int_equal(wire_percent_decode(out.data, false), 0);
        assert_string_equal(out.data, "a/b c&=%\xc3\xa9");
}

static void tokens_are_found_in_lists(void **state __attribute__((unused)))
{
        assert_true(wire_has_token("a, Upgrade ,b", "upgrade"));
        assert_true(wire_has_token("upgrade", "Upgrade"));
        assert_false(wire_has_token("upgraded, x", "upgrade"));
        assert_false(wire_has_token("", "upgrade"));
        assert_false(wire_has_token(NULL, "upgrade"));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(request_is_parsed),
                cmocka_unit_test(malformed_requests_are_refused),
                cmocka_unit_test(too_many_fields_are_refused),
                cmocka_unit_test(embedded_nul_is_refused),
                cmocka_unit_test(connection_persistence_follows_the_version),
                cmocka_unit_test(reply_framing_follows_status_and_fields),
                cmocka_unit_test(head_is_found_however_it_arrives),
                cmocka_unit_test(chunks_are_decoded_however_they_arrive),
                cmocka_unit_test(malformed_chunks_are_refused),
                cmocka_unit_test(endless_trailers_are_refused),
                cmocka_unit_test(percent_encoding_goes_both_ways),
                cmocka_unit_test(tokens_are_found_in_lists),
        };
        return cmocka_run_group_tests_name("wire", tests, NULL, NULL);
}
