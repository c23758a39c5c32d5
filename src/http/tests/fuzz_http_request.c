/* Hostile client: the bytes arrive on a connection of the server, in pieces as long as
 * the first one says, and the connection ends. Every request that was begun must be
 * closed, and the connection gone. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "base/auto.h"
#include "base/str.h"
#include "http/server.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define INPUT_LIMIT_BYTES (64u << 10)
#define STEPS_LIMIT       100000

static struct loop *loop;
static struct http_server *server;
static int begun, closed;

static void count_close(void *arg __attribute__((unused)))
{
        closed++;
}

static void begin(struct http_request *request)
{
        begun++;
        http_request_on_close(request, count_close, NULL);
}

static void echo(struct http_request *request, void *arg __attribute__((unused)))
{
        begin(request);
        size_t body_size, cursor = 0;
        const char *body = http_request_body(request, &body_size);
        const char *name = http_request_param(request, "name");
        http_reply_header(request, "X-Name", name ? name : "-");
        http_reply_header(request, "X-Path", http_request_path(request));
        while (http_query_next(request, "q", &cursor))
                ;
        http_reply(request, 200, "text/plain", body, body_size);
}

static void echo_pipe(struct http_request *request, void *arg __attribute__((unused)))
{
        begin(request);
        http_reply_fd(request, 200, "text/plain", http_request_body_fd(request));
}

static void refuse(struct http_request *request, void *arg __attribute__((unused)))
{
        begin(request);
        http_reply_error(request, 507, "full");
}

static void stream(struct http_request *request, void *arg __attribute__((unused)))
{
        begin(request);
        http_stream_begin(request, 200, "text/plain");
        http_stream_write(request, "hello", 5);
        http_stream_end(request);
}

static void never(struct http_request *request, void *arg __attribute__((unused)))
{
        begin(request);
}

static void opened(void *arg __attribute__((unused)), int fd,
                   const void *early __attribute__((unused)),
                   size_t early_size __attribute__((unused)))
{
        if (fd >= 0)
                close(fd);
}

static void upgrade(struct http_request *request, void *arg __attribute__((unused)))
{
        begin(request);
        http_upgrade(request, "application/octet-stream", opened, NULL);
}

static const struct http_route routes[] = {
        { "GET", "/", echo },
        { "GET", "/e/{name*}/x", echo },
        { "POST", "/b", echo, HTTP_BODY_BUFFERED },
        { "POST", "/p", echo_pipe, HTTP_BODY_PIPE },
        { "POST", "/r", refuse, HTTP_BODY_PIPE },
        { "GET", "/s", stream },
        { "GET", "/n", never },
        { "POST", "/u", upgrade },
};

/* One round of the loop, and the replies read away. Returns whether the server still
 * holds the connection. */
static bool turn(int fd)
{
        char reply[16384];
        while (loop_step(loop, 0))
                ;
        ssize_t got;
        while ((got = recv(fd, reply, sizeof(reply), MSG_DONTWAIT)) > 0)
                ;
        return got < 0 && (errno == EAGAIN || errno == EINTR);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        int pair[2];
        if (!loop && (loop_create(&loop, NULL) < 0 ||
                      http_server_create(loop, routes, ELEMENTS(routes), NULL, &server, NULL) < 0))
                abort();
        if (size < 1 || size > INPUT_LIMIT_BYTES)
                return 0;
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
                abort();
        begun = closed = 0;
        if (http_server_adopt(server, pair[0], NULL) < 0)
                abort();
        size_t step = data[0] ? data[0] * 37u : 1;
        if (size / step > 4096)
                step = size / 4096;
        for (size_t offset = 1; offset < size; offset += step) {
                size_t piece = size - offset < step ? size - offset : step;
                if (send(pair[1], data + offset, piece, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
                        break;
                turn(pair[1]);
        }
        shutdown(pair[1], SHUT_WR);
        int steps = 0;
        while (turn(pair[1]) && ++steps < STEPS_LIMIT)
                if (begun == closed && steps > 100)
                        loop_step(loop, 1000000);
        close(pair[1]);
        turn(-1);
        if (begun != closed || steps == STEPS_LIMIT)
                abort();
        return 0;
}
