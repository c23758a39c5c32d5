#include <fcntl.h>
#include <json-c/json.h>
#include <stdarg.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <time.h>

#include "base/auto.h"
#include "base/str.h"
#include "http/connection.h"

#define CHUNK_HEAD_SIZE 8 /* six hexadecimal digits, CR LF */

/* --- the head --- */

static const char *date_text(struct http_server *server)
{
        struct timespec now;
        clock_gettime(CLOCK_REALTIME_COARSE, &now);
        if (now.tv_sec != server->date_s) {
                struct tm tm;
                gmtime_r(&now.tv_sec, &tm);
                strftime(server->date, sizeof(server->date), "%a, %d %b %Y %H:%M:%S GMT", &tm);
                server->date_s = now.tv_sec;
        }
        return server->date;
}

void http_reply_header(struct http_request *request, const char *name, const char *value)
{
        if (request->replied || !wire_is_token(name))
                return;
        buf_printf(&request->fields, "%s: ", name);
        /* A value that carries somebody's text must not become a header of its own. */
        for (; *value; value++)
                buf_putc(&request->fields, (unsigned char)*value < 0x20 ? ' ' : *value);
        buf_puts(&request->fields, "\r\n");
}

static bool may_reply(const struct http_request *request)
{
        return !request->replied && !request->aborted;
}

/* Queues the status line and all fields but those of framing. */
static void queue_head(struct http_request *request, int status, const char *content_type)
{
        struct buf *out = &request->connection->out;
        request->replied = true;
        request->bodiless = streq(request->head.method, "HEAD") || status == 204 || status == 304;
        buf_printf(out, "HTTP/1.1 %d %s\r\nDate: %s\r\n", status, wire_reason(status),
                   date_text(request->connection->server));
        buf_append(out, request->fields.data, request->fields.size);
        if (content_type)
                buf_printf(out, "Content-Type: %s\r\n", content_type);
}

static void queue_head_end(struct http_request *request)
{
        buf_puts(&request->connection->out, request->last ? "Connection: close\r\n\r\n" : "\r\n");
}

static void queue_length(struct http_request *request, int status, uint64_t length)
{
        if (status != 204 && status != 304)
                buf_printf(&request->connection->out, "Content-Length: %llu\r\n",
                           (unsigned long long)length);
}

/* Head of a body whose length is not known. */
static void queue_stream_head(struct http_request *request, int status, const char *content_type)
{
        queue_head(request, status, content_type);
        if (request->head.http10)
                request->last = true; /* it ends with the connection */
        else if (status != 204 && status != 304)
                buf_puts(&request->connection->out, "Transfer-Encoding: chunked\r\n");
        request->chunked = !request->head.http10;
        queue_head_end(request);
}

/* --- whole replies --- */

void http_reply(struct http_request *request, int status, const char *content_type,
                const void *data, size_t size)
{
        if (!may_reply(request))
                return;
        if (!request->body_done)
                request->last = true;
        queue_head(request, status, content_type);
        queue_length(request, status, size);
        queue_head_end(request);
        if (!request->bodiless && size > 0)
                buf_append(&request->connection->out, data, size);
        request->finished = true;
        connection_kick(request->connection, true);
}

void http_reply_json(struct http_request *request, int status, struct json_object *object)
{
        size_t size;
        const char *text = json_object_to_json_string_length(
                object, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE, &size);
        auto_buf line = { 0 };
        buf_append(&line, text, size);
        buf_putc(&line, '\n'); /* as docker's encoder ends it */
        http_reply(request, status, "application/json", line.data, line.size);
        json_object_put(object);
}

void http_reply_error(struct http_request *request, int status, const char *format, ...)
{
        va_list ap;
        va_start(ap, format);
        auto_free char *text = xvasprintf(format, ap);
        va_end(ap);
        struct json_object *object = json_object_new_object();
        json_object_object_add(object, "message", json_object_new_string(text));
        http_reply_json(request, status, object);
}

/* --- streams --- */

/* Queues body bytes, as a chunk where chunks are spoken. */
static void queue_body(struct http_request *request, const void *data, size_t size)
{
        struct buf *out = &request->connection->out;
        if (request->bodiless || size == 0)
                return;
        if (request->chunked)
                buf_printf(out, "%zx\r\n", size);
        buf_append(out, data, size);
        if (request->chunked)
                buf_puts(out, "\r\n");
}

static void queue_body_end(struct http_request *request)
{
        if (request->chunked && !request->bodiless)
                buf_puts(&request->connection->out, "0\r\n\r\n");
        request->finished = true;
}

void http_stream_begin(struct http_request *request, int status, const char *content_type)
{
        if (!may_reply(request))
                return;
        queue_stream_head(request, status, content_type);
        request->drain_owed = true;
        connection_kick(request->connection, false);
}

size_t http_stream_write(struct http_request *request, const void *data, size_t size)
{
        struct connection *connection = request->connection;
        if (!request->replied || request->finished || request->aborted || connection->broken)
                return 0;
        queue_body(request, data, size);
        request->drain_owed = true;
        size_t queued = connection_queued(connection);
        if (queued > OUT_LIMIT_BYTES)
                connection->broken = true;
        /* Small writes are sent together, in the loop's next round. */
        connection_kick(connection, queued >= FLUSH_SIZE_BYTES);
        return connection->broken ? 0 : connection_queued(connection);
}

void http_stream_on_drain(struct http_request *request, void (*drained)(void *arg), void *arg)
{
        request->drained = drained;
        request->drained_arg = arg;
}

void http_stream_end(struct http_request *request)
{
        if (!request->replied || request->finished || request->aborted)
                return;
        queue_body_end(request);
        connection_kick(request->connection, true);
}

void http_stream_abort(struct http_request *request)
{
        if (request->finished || request->aborted)
                return;
        request->connection->broken = true;
        connection_kick(request->connection, false);
}

/* --- files and pipes --- */

static void file_ready(void *arg, uint32_t events __attribute__((unused)))
{
        struct http_request *request = arg;
        struct connection *connection = request->connection;
        char *chunk = buf_reserve(&connection->out, CHUNK_HEAD_SIZE + READ_SIZE_BYTES + 2);
        ssize_t got = read(request->file, chunk + CHUNK_HEAD_SIZE, READ_SIZE_BYTES);

        if (got > 0 && request->bodiless) {
                /* Read on: the writer at the other end should not get a broken pipe. */
        } else if (got > 0 && request->chunked) {
                char head[CHUNK_HEAD_SIZE + 1];
                snprintf(head, sizeof(head), "%06x\r\n", (unsigned)got & 0xffffff);
                memcpy(chunk, head, CHUNK_HEAD_SIZE);
                memcpy(chunk + CHUNK_HEAD_SIZE + got, "\r\n", 2);
                buf_commit(&connection->out, CHUNK_HEAD_SIZE + (size_t)got + 2);
        } else if (got > 0) {
                memmove(chunk, chunk + CHUNK_HEAD_SIZE, (size_t)got);
                buf_commit(&connection->out, (size_t)got);
        } else if (got == 0) {
                reply_finish(request);
                queue_body_end(request);
        } else if (errno != EAGAIN && errno != EINTR) {
                connection->broken = true;
        }
        if (request->file_source && connection_queued(connection) > 0)
                loop_io_set(request->file_source, 0);
        connection_run(connection);
}

static void pump_regular(struct http_request *request)
{
        while (request->file_remaining > 0) {
                size_t size = request->file_remaining < SENDFILE_SIZE_BYTES
                                      ? (size_t)request->file_remaining
                                      : SENDFILE_SIZE_BYTES;
                ssize_t sent = sendfile(request->connection->fd, request->file, NULL, size);
                if (sent < 0 && errno == EINTR)
                        continue;
                if (sent < 0 && errno == EAGAIN)
                        return;
                if (sent <= 0) { /* it has shrunk, or cannot be read */
                        request->connection->broken = true;
                        return;
                }
                request->file_remaining -= (uint64_t)sent;
                if (request->file_remaining > 0)
                        return; /* EPOLLOUT brings us back; others first */
        }
        reply_finish(request);
        request->finished = true;
}

void reply_pump(struct http_request *request)
{
        if (request->file < 0)
                return;
        if (request->file_is_regular)
                pump_regular(request);
        else
                loop_io_set(request->file_source, EPOLLIN);
}

void reply_finish(struct http_request *request)
{
        loop_source_destroy(take_ptr(request->file_source));
        close_fd(&request->file);
}

static void begin_regular(struct http_request *request, int status, const char *content_type,
                          const struct stat *st)
{
        off_t position = lseek(request->file, 0, SEEK_CUR);
        if (position < 0)
                position = 0;
        request->file_is_regular = true;
        request->file_remaining = st->st_size > position ? (uint64_t)(st->st_size - position) : 0;
        queue_head(request, status, content_type);
        queue_length(request, status, request->file_remaining);
        queue_head_end(request);
        if (request->bodiless)
                request->file_remaining = 0;
}

void http_reply_fd(struct http_request *request, int status, const char *content_type, int fd)
{
        struct connection *connection = request->connection;
        struct stat st;
        if (!may_reply(request)) {
                close(fd);
                return;
        }
        request->file = fd;
        if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode)) {
                begin_regular(request, status, content_type, &st);
        } else {
                struct err err = { 0 };
                int flags = fcntl(fd, F_GETFL);
                if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ||
                    loop_io(connection->server->loop, fd, 0, file_ready, request,
                            &request->file_source, &err) < 0) {
                        close_fd(&request->file);
                        http_reply_error(request, 500, "cannot stream the reply: %s",
                                         err.code ? err_text(&err) : strerror(errno));
                        return;
                }
                queue_stream_head(request, status, content_type);
        }
        connection_kick(connection, true);
}

/* --- upgrade --- */

void http_upgrade(struct http_request *request, const char *content_type,
                  void (*opened)(void *arg, int fd, const void *early, size_t early_size),
                  void *arg)
{
        if (!may_reply(request)) {
                opened(arg, -1, "", 0);
                return;
        }
        if (request->head.upgrade) {
                http_reply_header(request, "Connection", "Upgrade");
                http_reply_header(request, "Upgrade", wire_field(&request->head, "Upgrade"));
                request->last = false;
        } else {
                request->last = true;
        }
        queue_head(request, request->head.upgrade ? 101 : 200, content_type);
        queue_head_end(request);
        request->opened = opened;
        request->opened_arg = arg;
        request->upgrading = true;
        request->finished = true;
        connection_kick(request->connection, true);
}
