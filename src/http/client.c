#include "http/client.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/auto.h"
#include "base/str.h"
#include "http/wire.h"

#define READ_SIZE_BYTES (32u << 10)

struct http_client {
        char *url;
        char *path;            /* Unix: of the socket */
        char *host, *port;     /* TCP */
        int idle_fd;           /* connection to use again, or -1 */
        const int *passed_fds; /* go with the next request */
        unsigned passed_length;
};

struct http_exchange {
        struct http_client *client; /* where the connection goes back to */
        int fd;
        bool reused;  /* the connection had served before: it may be stale */
        bool to_head; /* the request is HEAD */
        bool sending; /* a chunked body is not ended yet */
        bool got_head;
        bool at_end;   /* the body is read */
        char *request; /* kept for a repeat on a stale connection */
        size_t request_size;

        struct buf in; /* received, not consumed; after the head */
        char *head_text;
        struct wire_head head;
        uint64_t remaining; /* WIRE_LENGTH */
        struct wire_chunks chunks;
};

char *const http_upgrade_headers[] = { (char *)"Connection: Upgrade", (char *)"Upgrade: tcp",
                                       NULL };

/* --- client and connection --- */

void http_client_pass_fds(struct http_client *client, const int *fds, unsigned length)
{
        client->passed_fds = fds;
        client->passed_length = length;
}

/* "host:port", "[v6]:port" */
static int split_host_port(const char *text, char **ret_host, char **ret_port)
{
        const char *colon = strrchr(text, ':');
        if (!colon || colon == text || !colon[1])
                return -EINVAL;
        size_t length = (size_t)(colon - text);
        if (text[0] == '[' && text[length - 1] == ']') {
                text++;
                length -= 2;
        }
        *ret_host = xstrndup(text, length);
        *ret_port = xstrndup(colon + 1, strcspn(colon + 1, "/"));
        return 0;
}

int http_client_create(const char *url, struct http_client **ret, struct err *err)
{
        auto_free char *path = NULL;
        auto_free char *host = NULL;
        auto_free char *port = NULL;
        const char *rest;

        if ((rest = str_after(url, "unix://"))) {
                path = xstrdup(rest);
                if (!*path)
                        return err_plain(err, EINVAL, "'%s' names no socket; write unix:///PATH",
                                         url);
                if (strlen(path) >= sizeof(((struct sockaddr_un *)NULL)->sun_path))
                        return err_plain(err, ENAMETOOLONG, "socket path '%s' is too long", path);
        } else if ((rest = str_after(url, "tcp://")) || (rest = str_after(url, "http://"))) {
                if (split_host_port(rest, &host, &port) < 0)
                        return err_plain(err, EINVAL, "'%s' is not tcp://HOST:PORT", url);
        } else {
                return err_plain(err, EINVAL,
                                 "'%s' is no address of a daemon; write unix:///PATH or "
                                 "tcp://HOST:PORT",
                                 url);
        }
        struct http_client *client = new0(struct http_client);
        client->url = xstrdup(url);
        client->path = take_ptr(path);
        client->host = take_ptr(host);
        client->port = take_ptr(port);
        client->idle_fd = -1;
        *ret = client;
        return 0;
}

void http_client_destroy(struct http_client *client)
{
        if (!client)
                return;
        close_fd(&client->idle_fd);
        free(client->url);
        free(client->path);
        free(client->host);
        free(client->port);
        free(client);
}

static int connect_error(const struct http_client *client, int code, struct err *err)
{
        const char *remedy = "";
        if (code == ENOENT || code == ECONNREFUSED)
                remedy = ". Is the daemon (isled) running?";
        else if (code == EACCES)
                remedy = ". Are you root, or in the socket's group?";
        return err_plain(err, code, "cannot connect to %s: %s%s", client->url, strerror(code),
                         remedy);
}

static int connect_unix(const struct http_client *client, int *ret_fd, struct err *err)
{
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        strcpy(address.sun_path, client->path); /* its length was checked */
        auto_fd fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return err_set(err, errno, "create socket");
        if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
                return connect_error(client, errno, err);
        *ret_fd = take_fd(fd);
        return 0;
}

static int connect_tcp(const struct http_client *client, int *ret_fd, struct err *err)
{
        struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
        struct addrinfo *found;
        int r = getaddrinfo(client->host, client->port, &hints, &found);
        if (r != 0)
                return err_plain(err, EHOSTUNREACH, "cannot resolve %s: %s", client->host,
                                 gai_strerror(r));
        int code = EHOSTUNREACH;
        auto_fd fd = -1;
        for (struct addrinfo *at = found; at; at = at->ai_next) {
                fd = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
                if (fd >= 0 && connect(fd, at->ai_addr, at->ai_addrlen) == 0)
                        break;
                code = errno;
                close_fd(&fd);
        }
        freeaddrinfo(found);
        if (fd < 0)
                return connect_error(client, code, err);
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
        *ret_fd = take_fd(fd);
        return 0;
}

/* The server has closed it, or says things nobody asked for. */
static bool is_stale(int fd)
{
        struct pollfd poll_fd = { .fd = fd, .events = POLLIN | POLLRDHUP };
        int ready;
        do {
                ready = poll(&poll_fd, 1, 0);
        } while (ready < 0 && errno == EINTR);
        return ready != 0;
}

static int client_connect(struct http_client *client, int *ret_fd, bool *ret_reused,
                          struct err *err)
{
        *ret_reused = false;
        if (client->idle_fd >= 0) {
                auto_fd fd = take_fd(client->idle_fd);
                if (!is_stale(fd)) {
                        *ret_fd = take_fd(fd);
                        *ret_reused = true;
                        return 0;
                }
        }
        return client->path ? connect_unix(client, ret_fd, err) : connect_tcp(client, ret_fd, err);
}

/* --- sending --- */

static int send_all(int fd, const char *data, size_t size)
{
        while (size > 0) {
                ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
                if (sent < 0 && errno == EINTR)
                        continue;
                if (sent < 0)
                        return errno == ECONNRESET ? -EPIPE : -errno;
                data += sent;
                size -= (size_t)sent;
        }
        return 0;
}

/* The first byte carries the descriptors that are to be passed. */
static int send_request(struct http_client *client, int fd, const struct buf *request)
{
        size_t size = client->passed_length * sizeof(int);
        union {
                struct cmsghdr header;
                char bytes[CMSG_SPACE(HTTP_CLIENT_FDS_LIMIT * sizeof(int))];
        } control = { .header = { .cmsg_len = CMSG_LEN(size),
                                  .cmsg_level = SOL_SOCKET,
                                  .cmsg_type = SCM_RIGHTS } };
        struct iovec first = { request->data, 1 };
        const struct msghdr message = { .msg_iov = &first,
                                        .msg_iovlen = 1,
                                        .msg_control = &control,
                                        .msg_controllen = CMSG_SPACE(size) };
        if (!size)
                return send_all(fd, request->data, request->size);
        memcpy(CMSG_DATA(&control.header), client->passed_fds, size);
        client->passed_length = 0;
        ssize_t sent;
        do
                sent = sendmsg(fd, &message, MSG_NOSIGNAL);
        while (sent < 0 && errno == EINTR);
        return sent < 0 ? -errno : send_all(fd, request->data + 1, request->size - 1);
}

/* Builds head and body; a target or header that would break the framing is refused. */
static int build_request(struct buf *out, const struct http_client *client, const char *method,
                         const char *target, char *const *headers, const void *body, size_t size,
                         struct err *err)
{
        if (!wire_is_token(method) || target[0] != '/' || strpbrk(target, " \t") ||
            !wire_is_value(target))
                return err_plain(err, EINVAL, "'%s %s' is no HTTP request", method, target);
        buf_printf(out, "%s %s HTTP/1.1\r\n", method, target);
        if (client->path)
                buf_puts(out, "Host: isle\r\n");
        else
                buf_printf(out, strchr(client->host, ':') ? "Host: [%s]:%s\r\n" : "Host: %s:%s\r\n",
                           client->host, client->port);
        for (char *const *header = headers; header && *header; header++) {
                if (!wire_is_value(*header))
                        return err_plain(err, EINVAL, "control character in header '%.*s'",
                                         (int)strcspn(*header, ":"), *header);
                buf_printf(out, "%s\r\n", *header);
        }
        if (size == HTTP_CHUNKED)
                buf_puts(out, "Transfer-Encoding: chunked\r\n");
        else if (size > 0 || streq(method, "POST") || streq(method, "PUT"))
                buf_printf(out, "Content-Length: %zu\r\n", size);
        buf_puts(out, "\r\n");
        if (size != HTTP_CHUNKED)
                buf_append(out, body, size);
        return 0;
}

int http_exchange_begin(struct http_client *client, const char *method, const char *target,
                        char *const *headers, const void *body, size_t size,
                        struct http_exchange **ret, struct err *err)
{
        auto_buf request = { 0 };
        int r = build_request(&request, client, method, target, headers, body, size, err);
        if (r < 0)
                return r;
        auto_fd fd = -1;
        bool reused;
        r = client_connect(client, &fd, &reused, err);
        if (r < 0)
                return r;
        r = send_request(client, fd, &request);
        /* A server may refuse a body before it has read it: its answer says why. */
        if (r < 0 && r != -EPIPE)
                return err_set(err, -r, "send request to %s", client->url);

        struct http_exchange *exchange = new0(struct http_exchange);
        exchange->client = client;
        exchange->fd = take_fd(fd);
        exchange->reused = reused;
        exchange->to_head = streq(method, "HEAD");
        exchange->sending = size == HTTP_CHUNKED;
        exchange->request_size = request.size;
        exchange->request = buf_take(&request);
        *ret = exchange;
        return 0;
}

int http_exchange_write(struct http_exchange *exchange, const void *data, size_t size,
                        struct err *err)
{
        char line[32];
        if (!exchange->sending)
                return err_plain(err, EINVAL, "the request body has ended already");
        if (size == 0)
                return 0;         /* an empty chunk would be the end */
        exchange->reused = false; /* what follows could not be repeated */
        int length = snprintf(line, sizeof(line), "%zx\r\n", size);
        int r = send_all(exchange->fd, line, (size_t)length);
        if (r == 0)
                r = send_all(exchange->fd, data, size);
        if (r == 0)
                r = send_all(exchange->fd, "\r\n", 2);
        return r < 0 ? err_set(err, -r, "send to %s", exchange->client->url) : 0;
}

int http_exchange_write_end(struct http_exchange *exchange, struct err *err)
{
        if (!exchange->sending)
                return 0;
        exchange->sending = false;
        int r = send_all(exchange->fd, "0\r\n\r\n", 5);
        return r < 0 ? err_set(err, -r, "send to %s", exchange->client->url) : 0;
}

/* --- receiving --- */

/* Reads once into `in`. Returns the bytes, 0 at the end, or -errno. */
static ssize_t receive(struct http_exchange *exchange)
{
        void *room = buf_reserve(&exchange->in, READ_SIZE_BYTES);
        ssize_t got;
        do {
                got = recv(exchange->fd, room, READ_SIZE_BYTES, 0);
        } while (got < 0 && errno == EINTR);
        if (got < 0)
                return errno == ECONNRESET ? 0 : -errno;
        buf_commit(&exchange->in, (size_t)got);
        return got;
}

/* Receives one head; interim ones (1xx but 101) are the caller's to skip. */
static int receive_head(struct http_exchange *exchange, struct err *err)
{
        const char *url = exchange->client->url;
        size_t scanned = 0, size;
        while ((size = wire_head_size(exchange->in.data, exchange->in.size, &scanned)) == 0) {
                if (exchange->in.size > HTTP_CLIENT_HEAD_LIMIT_BYTES)
                        return err_plain(err, EBADMSG, "reply of %s: endless header", url);
                ssize_t got = receive(exchange);
                if (got < 0)
                        return err_set(err, (int)-got, "receive from %s", url);
                if (got == 0)
                        return err_plain(err, EPIPE, "%s closed the connection without an answer",
                                         url);
        }
        if (size > HTTP_CLIENT_HEAD_LIMIT_BYTES)
                return err_plain(err, EBADMSG, "reply of %s: endless header", url);
        free(exchange->head_text);
        exchange->head_text = xmemdup(exchange->in.data, size);
        buf_consume(&exchange->in, size);
        if (wire_parse_reply(exchange->head_text, size, exchange->to_head, &exchange->head) < 0)
                return err_plain(err, EBADMSG, "%s does not speak HTTP", url);
        return 0;
}

/* A connection that was idle may have been closed by the server just when we used
 * it. Nothing was answered then, so the request is sent once more, on a new one. */
static int repeat_request(struct http_exchange *exchange, struct err *err)
{
        exchange->reused = false;
        close_fd(&exchange->fd);
        int r = client_connect(exchange->client, &exchange->fd, &exchange->reused, err);
        if (r < 0)
                return r;
        r = send_all(exchange->fd, exchange->request, exchange->request_size);
        if (r < 0 && r != -EPIPE)
                return err_set(err, -r, "send request to %s", exchange->client->url);
        return 0;
}

int http_exchange_status(struct http_exchange *exchange, struct err *err)
{
        if (exchange->got_head)
                return exchange->head.status;
        for (;;) {
                int r = receive_head(exchange, err);
                if (r < 0 && exchange->reused && exchange->in.size == 0) {
                        err_clear(err);
                        r = repeat_request(exchange, err);
                        if (r == 0)
                                continue;
                }
                if (r < 0)
                        return r;
                int status = exchange->head.status;
                if (status / 100 != 1 || status == 101)
                        break;
        }
        exchange->got_head = true;
        exchange->remaining = exchange->head.content_length;
        exchange->at_end = exchange->head.framing == WIRE_NONE;
        return exchange->head.status;
}

const char *http_exchange_header(const struct http_exchange *exchange, const char *name)
{
        return exchange->got_head ? wire_field(&exchange->head, name) : NULL;
}

/* Decodes chunks from the input into the caller's memory. Returns the bytes, or -EBADMSG. */
static ssize_t take_chunks(struct http_exchange *exchange, char *data, size_t size)
{
        struct buf *in = &exchange->in;
        size_t taken = 0, offset = 0;
        ssize_t used = 0;
        while (taken < size && offset < in->size && !exchange->chunks.done && used >= 0) {
                const char *run_data;
                /* The decoder is shown no more than what fits, so that all it yields
                 * can be handed on. */
                size_t run = in->size - offset < size - taken ? in->size - offset : size - taken;
                used = wire_chunks_feed(&exchange->chunks, in->data + offset, run, &run_data, &run);
                if (used < 0)
                        break;
                if (run > 0)
                        memcpy(data + taken, run_data, run);
                taken += run;
                offset += (size_t)used;
        }
        buf_consume(in, offset);
        exchange->at_end = exchange->chunks.done;
        /* What was good is handed on first; the error comes back with the next call. */
        return taken > 0 ? (ssize_t)taken : used < 0 ? used : 0;
}

/* Takes up to `size` body bytes out of what was received. Returns how many, 0 where
 * more must be received first (or at_end is set), or -errno. */
static ssize_t take_buffered(struct http_exchange *exchange, void *data, size_t size)
{
        struct buf *in = &exchange->in;
        size_t run = in->size < size ? in->size : size;

        if (exchange->head.framing == WIRE_CHUNKED)
                return take_chunks(exchange, data, size);
        if (exchange->head.framing == WIRE_LENGTH) {
                if (run > exchange->remaining)
                        run = (size_t)exchange->remaining;
                exchange->remaining -= run;
                exchange->at_end = exchange->remaining == 0;
        }
        if (run > 0)
                memcpy(data, in->data, run);
        buf_consume(in, run);
        return (ssize_t)run;
}

ssize_t http_exchange_read(struct http_exchange *exchange, void *data, size_t size, struct err *err)
{
        int r = http_exchange_status(exchange, err);
        if (r < 0)
                return r;
        while (!exchange->at_end && size > 0) {
                if (exchange->in.size > 0) {
                        ssize_t taken = take_buffered(exchange, data, size);
                        if (taken > 0)
                                return taken;
                        if (taken < 0)
                                return err_plain(err, EBADMSG, "reply of %s: malformed chunk",
                                                 exchange->client->url);
                        continue;
                }
                ssize_t got = receive(exchange);
                if (got < 0)
                        return err_set(err, (int)-got, "receive from %s", exchange->client->url);
                if (got == 0 && exchange->head.framing != WIRE_CLOSE)
                        return err_plain(err, EPIPE, "reply of %s was cut short",
                                         exchange->client->url);
                if (got == 0)
                        exchange->at_end = true;
        }
        return 0;
}

int http_exchange_fd(const struct http_exchange *exchange)
{
        return exchange->fd;
}

bool http_exchange_buffered(const struct http_exchange *exchange)
{
        return exchange->at_end || exchange->in.size > 0;
}

int http_exchange_hijack(struct http_exchange *exchange, int *ret_fd, struct buf *early,
                         struct err *err)
{
        int status = http_exchange_status(exchange, err);
        if (status < 0)
                return status;
        if (status != 101 && !(status == 200 && exchange->head.framing == WIRE_CLOSE))
                return err_plain(err, EPROTO, "%s did not hand the connection over (status %d)",
                                 exchange->client->url, status);
        if (exchange->in.size > 0)
                buf_append(early, exchange->in.data, exchange->in.size);
        buf_reset(&exchange->in);
        exchange->at_end = true;
        *ret_fd = take_fd(exchange->fd);
        return 0;
}

void http_exchange_end(struct http_exchange *exchange)
{
        if (!exchange)
                return;
        struct http_client *client = exchange->client;
        bool reusable = exchange->fd >= 0 && exchange->got_head && exchange->at_end &&
                        !exchange->sending && !exchange->head.close && exchange->in.size == 0 &&
                        exchange->head.status != 101;
        if (reusable && client->idle_fd < 0)
                client->idle_fd = take_fd(exchange->fd);
        close_fd(&exchange->fd);
        buf_finish(&exchange->in);
        free(exchange->head_text);
        free(exchange->request);
        free(exchange);
}

/* --- a whole call --- */

void http_response_finish(struct http_response *response)
{
        strv_free(response->headers);
        free(response->body);
        *response = (struct http_response){ 0 };
}

const char *http_response_header(const struct http_response *response, const char *name)
{
        size_t length = strlen(name);
        for (char **header = response->headers; header && *header; header++)
                if (strncasecmp(*header, name, length) == 0 && (*header)[length] == ':')
                        return *header + length + 2;
        return NULL;
}

static int read_body(struct http_exchange *exchange, struct buf *body, struct err *err)
{
        for (;;) {
                void *room = buf_reserve(body, READ_SIZE_BYTES);
                if (!room)
                        return err_plain(err, EFBIG, "reply of %s is larger than %u MiB",
                                         exchange->client->url, HTTP_CLIENT_BODY_LIMIT_BYTES >> 20);
                ssize_t got = http_exchange_read(exchange, room, READ_SIZE_BYTES, err);
                if (got <= 0)
                        return (int)got;
                buf_commit(body, (size_t)got);
        }
}

int http_call(struct http_client *client, const char *method, const char *target,
              const char *content_type, const void *body, size_t size, struct http_response *ret,
              struct err *err)
{
        auto_free char *type = content_type ? xasprintf("Content-Type: %s", content_type) : NULL;
        char *const headers[] = { type, NULL };
        struct http_exchange *exchange;
        int r = http_exchange_begin(client, method, target, headers, body, size, &exchange, err);
        if (r < 0)
                return r;
        auto_buf reply_body = { .limit_bytes = HTTP_CLIENT_BODY_LIMIT_BYTES + READ_SIZE_BYTES };
        int status = http_exchange_status(exchange, err);
        r = status < 0 ? status : read_body(exchange, &reply_body, err);
        if (r == 0) {
                *ret = (struct http_response){ .status = status, .size = reply_body.size };
                for (size_t i = 0; i < exchange->head.length; i++)
                        strv_push_take(&ret->headers,
                                       xasprintf("%s: %s", exchange->head.fields[i].name,
                                                 exchange->head.fields[i].value));
                ret->body = buf_take(&reply_body);
        }
        http_exchange_end(exchange);
        return r;
}
