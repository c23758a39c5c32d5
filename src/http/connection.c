#include "http/connection.h"

#include <sys/socket.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/str.h"

size_t connection_queued(const struct connection *connection)
{
        return connection->out.size - connection->out_sent;
}

void connection_set_deadline(struct connection *connection, int64_t delay_ns)
{
        struct http_server *server = connection->server;
        if (delay_ns == 0) {
                connection->deadline_ns = 0;
                return;
        }
        connection->deadline_ns = clock_monotonic_ns() + delay_ns;
        if (server->sweep_at_ns == 0 || connection->deadline_ns < server->sweep_at_ns) {
                server->sweep_at_ns = connection->deadline_ns;
                loop_timer_arm(server->sweep, delay_ns);
        }
}

/* --- input --- */

static bool wants_input(const struct connection *connection)
{
        if (connection->broken || connection->peer_end)
                return false;
        if (connection->request)
                return body_wants_input(connection->request);
        return true;
}

/* Keeps the descriptors of a message; the kernel drops those that there is no room for. */
static void keep_fds(struct connection *connection, struct msghdr *message)
{
        for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
                if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
                        continue;
                for (size_t at = 0; at + sizeof(int) <= c->cmsg_len - CMSG_LEN(0);
                     at += sizeof(int)) {
                        int fd;
                        memcpy(&fd, CMSG_DATA(c) + at, sizeof(fd));
                        if (connection->fds_length < HTTP_FDS_LIMIT)
                                connection->fds[connection->fds_length++] = fd;
                        else
                                close(fd);
                }
        }
}

static ssize_t receive_bytes(struct connection *connection, void *room, size_t size)
{
        union {
                struct cmsghdr header;
                char bytes[CMSG_SPACE(HTTP_FDS_LIMIT * sizeof(int))];
        } control;
        struct iovec where = { room, size };
        struct msghdr message = { .msg_iov = &where,
                                  .msg_iovlen = 1,
                                  .msg_control = &control,
                                  .msg_controllen = sizeof(control) };
        if (!connection->server->takes_fds)
                return recv(connection->fd, room, size, 0);
        ssize_t got = recvmsg(connection->fd, &message, MSG_CMSG_CLOEXEC);
        if (got >= 0)
                keep_fds(connection, &message);
        return got;
}

static void receive(struct connection *connection)
{
        /* Heads are small; the memory of large buffers is mapped and unmapped each time. */
        size_t size = connection->request ? READ_SIZE_BYTES : HEAD_READ_SIZE_BYTES;
        void *room = buf_reserve(&connection->in, size);
        ssize_t got = receive_bytes(connection, room, size);
        if (got > 0)
                buf_commit(&connection->in, (size_t)got);
        else if (got == 0)
                connection->peer_end = connection->peer_shut = true;
        else if (errno != EAGAIN && errno != EINTR)
                connection->broken = true;
}

/* An answer where there is no request to answer. */
static void refuse(struct connection *connection, int status, const char *message)
{
        auto_free char *body = xasprintf("{\"message\":\"%s\"}\n", message);
        buf_printf(&connection->out,
                   "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\n"
                   "Content-Length: %zu\r\nConnection: close\r\n\r\n%s",
                   status, wire_reason(status), strlen(body), body);
        connection->closing = true;
}

/* Takes a head off the input. Returns whether there is a request now. */
static bool take_head(struct connection *connection)
{
        struct buf *in = &connection->in;
        /* Empty lines before a request are overlooked (RFC 9112 section 2.2). */
        size_t skip = 0;
        while (in->size - skip >= 2 && memcmp(in->data + skip, "\r\n", 2) == 0)
                skip += 2;
        if (skip > 0) {
                buf_consume(in, skip);
                connection->scanned = 0;
        }
        if (in->size == 0)
                return false;

        size_t size = wire_head_size(in->data, in->size, &connection->scanned);
        if (size > HTTP_HEAD_LIMIT_BYTES || (size == 0 && in->size > HTTP_HEAD_LIMIT_BYTES)) {
                refuse(connection, 431, "request head too large");
                return false;
        }
        if (size == 0)
                return false;
        int r = request_create(connection, in->data, size, &connection->request);
        if (r < 0) {
                refuse(connection, r == -E2BIG ? 431 : 400,
                       r == -E2BIG ? "too many header fields" : "malformed HTTP request");
                return false;
        }
        buf_consume(in, size);
        connection->scanned = 0;
        connection->head_started = false;
        body_start(connection->request);
        request_route(connection->request);
        return true;
}

/* --- output --- */

static void queue_release(struct buf *queue)
{
        if (queue->capacity > KEPT_CAPACITY_BYTES)
                buf_finish(queue);
        else
                buf_reset(queue);
}

static void flush(struct connection *connection)
{
        while (connection_queued(connection) > 0 && !connection->broken) {
                ssize_t sent = send(connection->fd, connection->out.data + connection->out_sent,
                                    connection_queued(connection), MSG_NOSIGNAL | MSG_DONTWAIT);
                if (sent >= 0) {
                        connection->out_sent += (size_t)sent;
                } else if (errno == EAGAIN) {
                        /* Keep the queue from growing at its dead end. */
                        if (connection->out_sent > connection->out.size / 2) {
                                buf_consume(&connection->out, connection->out_sent);
                                connection->out_sent = 0;
                        }
                        return;
                } else if (errno != EINTR) {
                        connection->broken = true;
                }
        }
        connection->out_sent = 0;
        queue_release(&connection->out);
}

void connection_kick(struct connection *connection, bool now)
{
        if (connection->running)
                return; /* connection_run() flushes and arms */
        if (now)
                flush(connection);
        uint32_t events = connection->events | EPOLLOUT;
        if (events != connection->events) {
                connection->events = events;
                loop_io_set(connection->source, events);
        }
}

/* --- moving on --- */

static void connection_free(struct connection *connection)
{
        connection->server->connections_length--;
        list_remove(&connection->node);
        loop_source_destroy(connection->source);
        close_fd(&connection->fd);
        while (connection->fds_length)
                close(connection->fds[--connection->fds_length]);
        buf_finish(&connection->in);
        buf_finish(&connection->out);
        free(connection);
}

void connection_abort(struct connection *connection)
{
        if (connection->request)
                request_close(take_ptr(connection->request), true);
        connection_free(connection);
}

/* Gives the socket away. Frees the connection. */
static void hand_over(struct connection *connection)
{
        struct http_request *request = take_ptr(connection->request);
        loop_source_destroy(take_ptr(connection->source));
        void (*opened)(void *, int, const void *, size_t) = request->opened;
        request->opened = NULL;
        opened(request->opened_arg, take_fd(connection->fd), buf_text(&connection->in),
               connection->in.size);
        request_close(request, false);
        connection_free(connection);
}

static void start_lingering(struct connection *connection)
{
        if (shutdown(connection->fd, SHUT_WR) < 0 || connection->peer_end)
                connection->broken = true;
        connection->lingering = true;
        connection_set_deadline(connection, LINGER_TIMEOUT_NS);
}

/* Nothing is being answered: the next head, or the way to the end. Returns whether
 * there is a request now. */
static bool between_requests(struct connection *connection)
{
        if (connection->lingering) {
                connection->lingered_bytes += connection->in.size;
                buf_reset(&connection->in);
                if (connection->peer_end || connection->lingered_bytes > LINGER_LIMIT_BYTES)
                        connection->broken = true;
                return false;
        }
        if (!connection->closing && take_head(connection))
                return true;
        if (connection->closing) {
                flush(connection);
                if (connection_queued(connection) == 0)
                        start_lingering(connection);
                return false;
        }
        if (connection->peer_end) {
                connection->broken = true;
        } else if (connection->in.size == 0) {
                buf_finish(&connection->in);
                connection_set_deadline(connection, IDLE_TIMEOUT_NS);
        } else if (!connection->head_started) {
                connection->head_started = true; /* counts from its first byte */
                connection_set_deadline(connection, HEAD_TIMEOUT_NS);
        }
        return false;
}

/* The reply is queued and sent whole. */
static bool is_over(const struct connection *connection)
{
        return connection->request->finished && connection_queued(connection) == 0;
}

/* Tells the producer that its queue has run empty. */
static void report_drain(struct connection *connection)
{
        struct http_request *request = connection->request;
        if (!request->drain_owed || connection_queued(connection) > 0 || request->finished)
                return;
        request->drain_owed = false;
        if (request->drained)
                request->drained(request->drained_arg);
}

/* The client has gone, or its going is as good as that. */
static bool is_abandoned(const struct connection *connection)
{
        const struct http_request *request = connection->request;
        if (!connection->peer_shut || request->finished)
                return false;
        if (!request->body_done)
                return connection->peer_end;
        return !request->head.upgrade;
}

/* Goes on until something must be waited for. Returns false where the connection was
 * freed. */
static bool advance(struct connection *connection)
{
        while (!connection->broken) {
                if (!connection->request && !between_requests(connection))
                        return true;
                body_feed(connection->request);
                if (connection->peer_end && !connection->request->body_done)
                        body_end(connection->request);
                connection_set_deadline(connection, wants_input(connection) ? BODY_TIMEOUT_NS : 0);
                flush(connection);
                if (connection_queued(connection) == 0)
                        reply_pump(connection->request);
                if (!is_over(connection)) {
                        report_drain(connection);
                        if (is_abandoned(connection))
                                connection->broken = true;
                        return true;
                }
                if (connection->broken)
                        return true;
                if (connection->request->upgrading) {
                        hand_over(connection);
                        return false;
                }
                connection->closing |= connection->request->last || !connection->request->body_done;
                request_close(take_ptr(connection->request), false);
        }
        return true;
}

static void arm(struct connection *connection)
{
        const struct http_request *request = connection->request;
        uint32_t events = connection->peer_shut ? 0 : EPOLLRDHUP;
        if (wants_input(connection))
                events |= EPOLLIN;
        if (connection_queued(connection) > 0 ||
            (request && (request->finished || (request->file >= 0 && request->file_is_regular))))
                events |= EPOLLOUT;
        if (events == connection->events)
                return;
        connection->events = events;
        /* Not 0, which would silence EPOLLHUP as well. */
        loop_io_set(connection->source, events ? events : EPOLLPRI);
}

void connection_run(struct connection *connection)
{
        connection->running = true;
        if (!advance(connection))
                return;
        connection->running = false;
        if (connection->broken)
                connection_abort(connection);
        else
                arm(connection);
}

static void connection_ready(void *arg, uint32_t events)
{
        struct connection *connection = arg;
        if (events & EPOLLRDHUP)
                connection->peer_shut = true;
        if ((events & (EPOLLIN | EPOLLHUP)) && wants_input(connection))
                receive(connection);
        if (events & (EPOLLHUP | EPOLLERR)) {
                /* Gone for good. What it still asked for is begun, and aborted. */
                connection->peer_shut = connection->peer_end = true;
                connection->running = true;
                if (!connection->request && connection->in.size > 0 && !connection->closing &&
                    take_head(connection))
                        body_feed(connection->request);
                connection_abort(connection);
                return;
        }
        connection_run(connection);
}

int connection_create(struct http_server *server, int fd, struct err *err)
{
        struct connection *connection = new0(struct connection);
        list_init(&connection->node);
        connection->server = server;
        connection->fd = fd;
        connection->events = EPOLLIN | EPOLLRDHUP;
        int r = loop_io(server->loop, fd, connection->events, connection_ready, connection,
                        &connection->source, err);
        if (r < 0) {
                close_fd(&connection->fd);
                free(connection);
                return r;
        }
        list_append(&server->connections, &connection->node);
        server->connections_length++;
        connection_set_deadline(connection, HEAD_TIMEOUT_NS);
        return 0;
}
