/* Where a request's body goes. */
#include <fcntl.h>

#include "base/auto.h"
#include "base/str.h"
#include "http/connection.h"

static enum http_body body_kind(const struct http_request *request)
{
        return request->match.route ? request->match.route->body : HTTP_BODY_NONE;
}

void body_start(struct http_request *request)
{
        request->body_remaining = request->head.content_length;
        request->body_done = request->head.framing == WIRE_NONE;
}

static bool body_too_large(const struct http_request *request)
{
        return body_kind(request) != HTTP_BODY_PIPE &&
               request->head.content_length > HTTP_BODY_LIMIT_BYTES;
}

static void refuse_too_large(struct http_request *request)
{
        request->begun = true;
        buf_finish(&request->body);
        request->last = true;
        http_reply_error(request, 413, "request body is larger than %u MiB",
                         HTTP_BODY_LIMIT_BYTES >> 20);
}

/* --- the pipe --- */

static void pipe_ready(void *arg, uint32_t events __attribute__((unused)))
{
        struct http_request *request = arg;
        connection_run(request->connection);
}

/* Writes what is pending. */
static void pipe_flush(struct http_request *request)
{
        struct buf *pending = &request->body;
        while (pending->size > 0 && !request->pipe_closed) {
                ssize_t written = write(request->pipe_write, pending->data, pending->size);
                if (written >= 0)
                        buf_consume(pending, (size_t)written);
                else if (errno == EAGAIN)
                        break;
                else if (errno != EINTR)
                        request->pipe_closed = true; /* the reader has had enough */
        }
        if (request->pipe_closed)
                buf_finish(pending);
        if (pending->size == 0 && (request->body_done || request->pipe_closed)) {
                loop_source_destroy(take_ptr(request->pipe_source));
                close_fd(&request->pipe_write);
        } else if (request->pipe_source) {
                loop_io_set(request->pipe_source, pending->size > 0 ? EPOLLOUT : 0);
        }
}

static int pipe_open(struct http_request *request)
{
        int fds[2];
        if (pipe2(fds, O_CLOEXEC) < 0)
                return -errno;
        request->pipe_read = fds[0];
        request->pipe_write = fds[1];
        fcntl(fds[1], F_SETPIPE_SZ, (int)PIPE_SIZE_BYTES); /* only for speed */
        if (fcntl(fds[1], F_SETFL, O_NONBLOCK) < 0)
                return -errno;
        return loop_io(request->connection->server->loop, fds[1], 0, pipe_ready, request,
                       &request->pipe_source, NULL);
}

/* Takes a run of body bytes; the pipe's reader is not waited for. */
static void pipe_write_run(struct http_request *request, const char *data, size_t size)
{
        if (request->body.size == 0 && !request->pipe_closed) {
                ssize_t written = write(request->pipe_write, data, size);
                if (written > 0) {
                        data += written;
                        size -= (size_t)written;
                } else if (written < 0 && errno != EAGAIN && errno != EINTR) {
                        request->pipe_closed = true;
                }
        }
        if (size > 0 && !request->pipe_closed)
                buf_append(&request->body, data, size);
}

/* --- taking it in --- */

static void take_run(struct http_request *request, const char *data, size_t size)
{
        switch (body_kind(request)) {
        case HTTP_BODY_PIPE:
                pipe_write_run(request, data, size);
                return;
        case HTTP_BODY_BUFFERED:
                if (!request->replied)
                        buf_append(&request->body, data, size);
                return;
        case HTTP_BODY_NONE:
                return;
        }
}

/* Decodes a run of body bytes at `offset` of the input; the bytes used, or -EBADMSG. */
static ssize_t decode_run(struct http_request *request, size_t offset, const char **ret_data,
                          size_t *ret_size)
{
        const struct buf *in = &request->connection->in;
        size_t size = in->size - offset;

        if (request->head.framing == WIRE_CHUNKED) {
                ssize_t used = wire_chunks_feed(&request->chunks, in->data + offset, size, ret_data,
                                                ret_size);
                request->body_done = request->chunks.done;
                return used;
        }
        if (size > request->body_remaining)
                size = (size_t)request->body_remaining;
        request->body_remaining -= size;
        request->body_done = request->body_remaining == 0;
        *ret_data = in->data + offset;
        *ret_size = size;
        return (ssize_t)size;
}

static void malformed(struct http_request *request)
{
        request->begun = true;
        request->last = true;
        if (request->replied)
                request->connection->broken = true;
        else
                http_reply_error(request, 400, "malformed chunked body");
}

static void take_input(struct http_request *request)
{
        struct buf *in = &request->connection->in;
        size_t offset = 0;

        while (body_wants_input(request) && offset < in->size) {
                const char *data;
                size_t size;
                ssize_t used = decode_run(request, offset, &data, &size);
                if (used < 0) {
                        malformed(request);
                        break;
                }
                offset += (size_t)used;
                request->body_received += size;
                if (size > 0)
                        take_run(request, data, size);
                if (request->body_received > HTTP_BODY_LIMIT_BYTES &&
                    body_kind(request) != HTTP_BODY_PIPE) {
                        refuse_too_large(request);
                        break;
                }
        }
        buf_consume(in, offset);
}

static void body_begin(struct http_request *request)
{
        const struct http_route *route = request->match.route;
        request->begun = true;
        if (route->body == HTTP_BODY_PIPE && pipe_open(request) < 0) {
                http_reply_error(request, 500, "no pipe for the request body: %s", strerror(errno));
                return;
        }
        route->begin(request, request->connection->server->arg);
}

/* Asks for the body where the client waits to be asked. */
static void send_continue(struct http_request *request)
{
        if (!request->head.expect_continue || request->body_done || request->replied ||
            !request->match.route)
                return;
        request->head.expect_continue = false;
        if (request->connection->in.size == 0)
                buf_puts(&request->connection->out, "HTTP/1.1 100 Continue\r\n\r\n");
}

bool body_wants_input(const struct http_request *request)
{
        if (request->body_done || request->finished)
                return false;
        if (body_kind(request) != HTTP_BODY_PIPE)
                return !request->replied;
        return request->begun && request->body.size == 0 && !request->pipe_closed;
}

void body_feed(struct http_request *request)
{
        if (!request->begun && request->match.route && body_too_large(request))
                refuse_too_large(request);
        if (!request->begun && body_kind(request) == HTTP_BODY_PIPE)
                body_begin(request);
        if (request->pipe_write >= 0)
                pipe_flush(request);
        send_continue(request);
        take_input(request);
        if (request->pipe_write >= 0)
                pipe_flush(request);
        if (request->begun)
                return;
        if (request->body_done && request->match.route)
                body_begin(request);
        else if (!request->match.route)
                request_refuse(request); /* without waiting for what nobody wants */
}

void body_end(struct http_request *request)
{
        /* The pipe's reader sees an end of file and must ask whether it is the true one. */
        loop_source_destroy(take_ptr(request->pipe_source));
        close_fd(&request->pipe_write);
        request->pipe_closed = true;
}

void body_finish(struct http_request *request)
{
        loop_source_destroy(take_ptr(request->pipe_source));
        close_fd(&request->pipe_write);
        close_fd(&request->pipe_read);
        buf_finish(&request->body);
}

/* --- what handlers ask --- */

const char *http_request_body(const struct http_request *request, size_t *ret_size)
{
        bool is_buffered = body_kind(request) == HTTP_BODY_BUFFERED;
        if (ret_size)
                *ret_size = is_buffered ? request->body.size : 0;
        return is_buffered ? buf_text(&request->body) : "";
}

int http_request_body_fd(struct http_request *request)
{
        return take_fd(request->pipe_read);
}

bool http_request_body_complete(const struct http_request *request)
{
        return request->body_done && request->body.size == 0 && !request->pipe_closed;
}
