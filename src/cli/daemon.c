#include "cli/daemon.h"

#include <errno.h>
#include <json-c/json_object.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"
#include "cli/field.h"
#include "codec/json.h"

#define LINE_LIMIT_BYTES  (4u << 20)
#define READ_SIZE         32768
#define PARALLEL_REQUESTS 32

/* --- targets --- */

static void put_encoded(struct buf *target, const char *text, const char *plain)
{
        for (; *text; text++) {
                unsigned char c = (unsigned char)*text;
                bool keep = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
                            (c >= 'A' && c <= 'Z') || strchr(plain, c);
                buf_printf(target, keep ? "%c" : "%%%02X", c);
        }
}

static void put_path(struct buf *target, const char *format, va_list ap)
{
        for (const char *at = format; *at; at++) {
                if (at[0] == '%' && at[1] == 's') {
                        put_encoded(target, va_arg(ap, const char *), "-_.~/:@");
                        at++;
                } else {
                        buf_putc(target, *at);
                }
        }
}

void target_set(struct buf *target, const char *format, ...)
{
        va_list ap;
        buf_reset(target);
        buf_puts(target, "/v" DAEMON_API_VERSION);
        va_start(ap, format);
        put_path(target, format, ap);
        va_end(ap);
}

void target_set_own(struct buf *target, const char *format, ...)
{
        va_list ap;
        buf_reset(target);
        va_start(ap, format);
        put_path(target, format, ap);
        va_end(ap);
}

void target_add(struct buf *target, const char *name, const char *value)
{
        buf_printf(target, "%c%s=", strchr(buf_text(target), '?') ? '&' : '?', name);
        put_encoded(target, value, "-_.~");
}

void target_add_flag(struct buf *target, const char *name, bool yes)
{
        if (yes)
                target_add(target, name, "1");
}

int target_add_filters(struct buf *target, char *const *filters, struct err *err)
{
        auto_json object = json_object_new_object();
        for (; *filters; filters++) {
                const char *equals = strchr(*filters, '=');
                if (!equals)
                        return err_plain(err, EINVAL,
                                         "bad format of filter '%s' (expected "
                                         "name=value)",
                                         *filters);
                auto_free char *key = xstrndup(*filters, (size_t)(equals - *filters));
                struct json_object *values = NULL;
                if (!json_object_object_get_ex(object, key, &values)) {
                        values = json_object_new_object();
                        json_object_object_add(object, key, values);
                }
                json_object_object_add(values, equals + 1, json_object_new_boolean(true));
        }
        if (json_object_object_length(object) > 0)
                target_add(target, "filters",
                           json_object_to_json_string_ext(object,
                                                          JSON_C_TO_STRING_PLAIN |
                                                                  JSON_C_TO_STRING_NOSLASHESCAPE));
        return 0;
}

/* --- calls --- */

/* Words a failure to connect as people look it up. */
static int explain_connection(const struct cli *cli, int r, struct err *err)
{
        if (r == -ECONNREFUSED || r == -ENOENT || r == -ENOTDIR || r == -ETIMEDOUT ||
            r == -EHOSTUNREACH || r == -ENETUNREACH)
                return err_plain(err, -r,
                                 "Cannot connect to the Isle daemon at %s. Is isled running?",
                                 cli->host);
        if (r == -EACCES || r == -EPERM)
                return err_plain(err, -r,
                                 "permission denied while trying to connect to the Isle daemon "
                                 "socket at %s (run as root, or as a member of the socket's group)",
                                 cli->host);
        return r;
}

/* The reply of a bad status, as an error. */
static int refuse(struct cli *cli, int status, const char *body, size_t size, struct err *err)
{
        auto_json json = NULL;
        const char *message = "";
        if (json_parse(body, size, &json, NULL) == 0)
                message = field_text(json, "message");
        auto_free char *plain = xstrndup(body, size < 512 ? size : 512);
        for (size_t end = strlen(plain); end && strchr("\r\n", plain[end - 1]);)
                plain[--end] = '\0';
        if (!*message)
                message = *plain ? plain : NULL;
        int code = status == 404 ? ENOENT : status == 409 ? EEXIST : EREMOTEIO;
        cli->http_status = status;
        if (!message)
                return err_plain(err, code, DAEMON_ERROR "HTTP status %d without explanation",
                                 status);
        return err_plain(err, code, DAEMON_ERROR "%s", message);
}

static int need_client(struct cli *cli, struct err *err)
{
        return cli->client ? 0 : http_client_create(cli->host, &cli->client, err);
}

static const char *body_text(struct json_object *body)
{
        return body ? json_object_to_json_string_ext(body, JSON_C_TO_STRING_PLAIN |
                                                                   JSON_C_TO_STRING_NOSLASHESCAPE)
                    : NULL;
}

int daemon_call(struct cli *cli, const char *method, const struct buf *target,
                struct json_object *body, struct json_object **ret, struct err *err)
{
        struct http_response response = { 0 };
        const char *text = body_text(body);
        int r = need_client(cli, err);
        if (r < 0)
                return r;
        r = http_call(cli->client, method, buf_text(target), text ? "application/json" : NULL, text,
                      text ? strlen(text) : 0, &response, err);
        if (r < 0)
                return explain_connection(cli, r, err);
        cli->http_status = response.status;
        if (response.status >= 400) {
                r = refuse(cli, response.status, response.body, response.size, err);
        } else if (ret) {
                struct json_object *json = NULL;
                if (response.size)
                        r = json_parse(response.body, response.size, &json, err);
                if (r < 0)
                        err_wrap(err, "read the daemon's reply to %s %s", method, buf_text(target));
                else
                        *ret = json;
        }
        http_response_finish(&response);
        return r;
}

int daemon_send(struct cli *cli, const char *method, const struct buf *target, char *const *headers,
                struct json_object *body, struct http_exchange **ret, struct err *err)
{
        auto_strv all = strv_copy(headers);
        const char *text = body_text(body);
        int r = need_client(cli, err);
        if (r < 0)
                return r;
        if (text)
                strv_push(&all, "Content-Type: application/json");
        r = http_exchange_begin(cli->client, method, buf_text(target), all, text,
                                text ? strlen(text) : 0, ret, err);
        return r < 0 ? explain_connection(cli, r, err) : 0;
}

int daemon_begin(struct cli *cli, const char *method, const struct buf *target,
                 char *const *headers, struct json_object *body, struct http_exchange **ret,
                 struct err *err)
{
        auto_exchange exchange = NULL;
        int r = daemon_send(cli, method, target, headers, body, &exchange, err);
        if (r == 0)
                r = daemon_check(cli, exchange, err);
        if (r == 0)
                *ret = take_ptr(exchange);
        return r;
}

int daemon_upload(struct cli *cli, const char *method, const struct buf *target,
                  char *const *headers, struct http_exchange **ret, struct err *err)
{
        int r = need_client(cli, err);
        if (r < 0)
                return r;
        r = http_exchange_begin(cli->client, method, buf_text(target), headers, NULL, HTTP_CHUNKED,
                                ret, err);
        return r < 0 ? explain_connection(cli, r, err) : 0;
}

/* At most `limit_bytes` of the body. */
static int read_body(struct http_exchange *exchange, size_t limit_bytes, struct buf *out,
                     struct err *err)
{
        out->limit_bytes = limit_bytes;
        for (;;) {
                char *room = buf_reserve(out, READ_SIZE);
                if (!room)
                        return err_plain(err, EFBIG, "the daemon's reply is too large");
                ssize_t n = http_exchange_read(exchange, room, READ_SIZE, err);
                if (n <= 0)
                        return (int)n;
                buf_commit(out, (size_t)n);
        }
}

int daemon_check(struct cli *cli, struct http_exchange *exchange, struct err *err)
{
        int status = http_exchange_status(exchange, err);
        if (status < 0)
                return status;
        cli->http_status = status;
        if (status < 400)
                return 0;
        auto_buf body = { 0 };
        int r = read_body(exchange, 1u << 20, &body, err);
        return r < 0 ? r : refuse(cli, status, buf_text(&body), body.size, err);
}

int daemon_read_json(struct http_exchange *exchange, struct json_object **ret, struct err *err)
{
        auto_buf body = { 0 };
        int r = read_body(exchange, JSON_TEXT_SIZE_MAX, &body, err);
        if (r < 0)
                return r;
        *ret = NULL;
        return body.size ? json_parse(body.data, body.size, ret, err) : 0;
}

int daemon_copy_body(struct http_exchange *exchange, int fd, struct err *err)
{
        char chunk[READ_SIZE];
        for (;;) {
                ssize_t n = http_exchange_read(exchange, chunk, sizeof(chunk), err);
                if (n <= 0)
                        return (int)n;
                int r = io_write_full(fd, chunk, (size_t)n);
                if (r < 0)
                        return err_set(err, -r, "write output");
        }
}

/* --- lines --- */

void daemon_lines_finish(struct daemon_lines *lines)
{
        buf_finish(&lines->pending);
}

bool daemon_line_ready(const struct daemon_lines *lines)
{
        return lines->pending.size && memchr(lines->pending.data, '\n', lines->pending.size);
}

/* Parses the first `size` bytes, a line; 1 for a message, 0 for a blank line. */
static int take_line(struct daemon_lines *lines, size_t size, struct json_object **ret,
                     struct err *err)
{
        size_t used = size < lines->pending.size ? size + 1 : size;
        size_t blanks = strspn(lines->pending.data, " \t\r");
        int r = 0;
        if (blanks < size) {
                r = json_parse(lines->pending.data, size, ret, err);
                r = r < 0 ? r : 1;
        }
        buf_consume(&lines->pending, used);
        return r;
}

int daemon_next(struct daemon_lines *lines, struct json_object **ret, struct err *err)
{
        lines->pending.limit_bytes = LINE_LIMIT_BYTES;
        for (bool ended = false;;) {
                const char *end = daemon_line_ready(lines)
                                          ? memchr(lines->pending.data, '\n', lines->pending.size)
                                          : NULL;
                if (!end && ended && !lines->pending.size)
                        return 0;
                if (end || ended) {
                        size_t size = end ? (size_t)(end - lines->pending.data)
                                          : lines->pending.size;
                        int r = take_line(lines, size, ret, err);
                        if (r != 0)
                                return r;
                        continue;
                }
                char *room = buf_reserve(&lines->pending, READ_SIZE);
                if (!room)
                        return err_plain(err, EFBIG, "a message of the daemon is too long");
                ssize_t n = http_exchange_read(lines->exchange, room, READ_SIZE, err);
                if (n < 0)
                        return (int)n;
                buf_commit(&lines->pending, (size_t)n);
                ended = n == 0;
        }
}

/* --- many --- */

struct request {
        struct http_exchange *exchange;
        struct err err;
        int r;
};

static void each_send(struct cli *cli, const char *method, const char *format, const char *query,
                      const char *name, struct request *request)
{
        auto_buf target = { 0 };
        target_set(&target, format, name);
        if (query)
                buf_puts(&target, query);
        request->r = daemon_send(cli, method, &target, NULL, NULL, &request->exchange,
                                 &request->err);
}

static bool each_finish(struct cli *cli, const char *name, struct request *request)
{
        if (request->r == 0)
                request->r = daemon_check(cli, request->exchange, &request->err);
        if (request->r < 0)
                fprintf(stderr, "%s\n", err_text(&request->err));
        else
                puts(name);
        fflush(stdout);
        http_exchange_end(request->exchange);
        return request->r == 0;
}

int daemon_each(struct cli *cli, const char *method, const char *format, const char *query,
                char *const *names, char ***failed)
{
        size_t total = strv_length(names);
        int status = 0;
        for (size_t at = 0; at < total; at += PARALLEL_REQUESTS) {
                struct request requests[PARALLEL_REQUESTS] = { 0 };
                size_t length = total - at < PARALLEL_REQUESTS ? total - at : PARALLEL_REQUESTS;
                for (size_t i = 0; i < length; i++)
                        each_send(cli, method, format, query, names[at + i], &requests[i]);
                for (size_t i = 0; i < length; i++) {
                        if (each_finish(cli, names[at + i], &requests[i]))
                                continue;
                        status = 1;
                        if (failed)
                                strv_push(failed, names[at + i]);
                }
        }
        return status;
}
