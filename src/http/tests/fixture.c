#include "base/tests/test.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/str.h"
#include "http/listen.h"
#include "http/tests/fixture.h"

#define STREAM_QUEUE_BYTES (128u << 10)

/* --- routes --- */

static void count_close(void *arg)
{
        struct fixture *fixture = arg;
        atomic_fetch_add(&fixture->closed, 1);
}

static void begin(struct http_request *request, struct fixture *fixture)
{
        atomic_fetch_add(&fixture->begun, 1);
        http_request_on_close(request, count_close, fixture);
}

static void ping(struct http_request *request, void *arg)
{
        begin(request, arg);
        http_reply(request, 200, "text/plain", "OK", 2);
}

static void describe(struct http_request *request, void *arg)
{
        auto_buf text = { 0 };
        begin(request, arg);
        const char *name = http_request_param(request, "name");
        buf_printf(&text, "%s %s v%u name=%s", http_request_method(request),
                   http_request_path(request), http_request_version(request), name ? name : "-");
        size_t cursor = 0;
        for (const char *value; (value = http_query_next(request, "q", &cursor));)
                buf_printf(&text, " q=%s", value);
        buf_printf(&text, " all=%d", http_request_query_bool(request, "all", false));
        struct http_peer peer;
        if (http_request_peer(request, &peer) == 0)
                buf_printf(&text, " self=%d", peer.pid == getpid() && peer.uid == getuid());
        http_reply_header(request, "X-Header", "a\r\nb");
        http_reply(request, 200, "text/plain", text.data, text.size);
}

static void buffered(struct http_request *request, void *arg)
{
        begin(request, arg);
        size_t size;
        const char *body = http_request_body(request, &size);
        http_reply(request, 200, "text/plain", body, size);
}

static void no_content(struct http_request *request, void *arg)
{
        begin(request, arg);
        http_reply(request, 204, NULL, NULL, 0);
}

static void pipe_echo(struct http_request *request, void *arg)
{
        begin(request, arg);
        http_reply_fd(request, 200, "text/plain", http_request_body_fd(request));
}

/* Answers without reading any of the body. */
static void refuse(struct http_request *request, void *arg)
{
        begin(request, arg);
        http_reply_error(request, 507, "disk \"full\"");
}

struct progress {
        struct fixture *fixture;
        struct http_request *request;
        int fd;
        struct loop_source *source;
        size_t received;
};

static void progress_closed(void *arg)
{
        struct progress *progress = arg;
        atomic_store(&progress->fixture->body_complete,
                     http_request_body_complete(progress->request));
        if (http_request_aborted(progress->request))
                atomic_fetch_add(&progress->fixture->aborted, 1);
        atomic_fetch_add(&progress->fixture->closed, 1);
        loop_source_destroy(progress->source);
        close_fd(&progress->fd);
        free(progress);
}

static void progress_ready(void *arg, uint32_t events __attribute__((unused)))
{
        struct progress *progress = arg;
        char data[4096];
        ssize_t got = read(progress->fd, data, sizeof(data));
        if (got > 0) {
                progress->received += (size_t)got;
                return;
        }
        loop_source_destroy(take_ptr(progress->source));
        if (!http_request_body_complete(progress->request))
                return; /* the client has gone: on-close follows */
        auto_free char *line = xasprintf("end %zu\n", progress->received);
        http_stream_write(progress->request, line, strlen(line));
        http_stream_end(progress->request);
}

/* As docker load does: answers while the body is still coming. */
static void report_progress(struct http_request *request, void *arg)
{
        struct fixture *fixture = arg;
        atomic_fetch_add(&fixture->begun, 1);
        struct progress *progress = new0(struct progress);
        progress->fixture = fixture;
        progress->request = request;
        progress->fd = http_request_body_fd(request);
        http_request_on_close(request, progress_closed, progress);
        http_stream_begin(request, 200, "application/json");
        http_stream_write(request, "start\n", 6);
        loop_io(fixture->loop, progress->fd, EPOLLIN, progress_ready, progress, &progress->source,
                NULL);
}

static void never(struct http_request *request, void *arg)
{
        begin(request, arg);
}

struct producer {
        struct fixture *fixture;
        struct http_request *request;
        size_t position, size;
};

static void producer_closed(void *arg)
{
        struct producer *producer = arg;
        if (http_request_aborted(producer->request))
                atomic_fetch_add(&producer->fixture->aborted, 1);
        atomic_fetch_add(&producer->fixture->closed, 1);
        free(producer);
}

static void producer_go(void *arg)
{
        struct producer *producer = arg;
        char data[1000];
        while (producer->position < producer->size) {
                size_t size = producer->size - producer->position;
                if (size > sizeof(data))
                        size = sizeof(data);
                for (size_t i = 0; i < size; i++)
                        data[i] = pattern_at(producer->position + i);
                producer->position += size;
                size_t queued = http_stream_write(producer->request, data, size);
                if (queued > atomic_load(&producer->fixture->queued_max))
                        atomic_store(&producer->fixture->queued_max, queued);
                if (queued > STREAM_QUEUE_BYTES)
                        return; /* on_drain brings us back */
        }
        http_stream_end(producer->request);
}

static void stream(struct http_request *request, void *arg)
{
        struct fixture *fixture = arg;
        uint64_t size = 0;
        atomic_fetch_add(&fixture->begun, 1);
        struct producer *producer = new0(struct producer);
        str_to_u64(http_request_query(request, "size"), &size);
        *producer = (struct producer){ fixture, request, 0, size };
        http_request_on_close(request, producer_closed, producer);
        http_stream_begin(request, 200, "application/octet-stream");
        http_stream_on_drain(request, producer_go, producer);
}

static void start_thread(struct fixture *fixture, void *(*thread_main)(void *arg), void *arg)
{
        pthread_t thread;
        atomic_fetch_add(&fixture->threads, 1);
        if (pthread_create(&thread, NULL, thread_main, arg) != 0)
                abort();
        pthread_detach(thread);
}

struct writer {
        struct fixture *fixture;
        int fd;
        size_t size;
};

static void *writer_main(void *arg)
{
        struct writer *writer = arg;
        char data[4096];
        for (size_t position = 0; position < writer->size;) {
                size_t size = writer->size - position;
                if (size > sizeof(data))
                        size = sizeof(data);
                for (size_t i = 0; i < size; i++)
                        data[i] = pattern_at(position + i);
                if (io_write_full(writer->fd, data, size) < 0)
                        break;
                position += size;
                atomic_store(&writer->fixture->writer_wrote, position);
        }
        close(writer->fd);
        struct fixture *fixture = writer->fixture;
        free(writer);
        atomic_fetch_sub(&fixture->threads, 1);
        return NULL;
}

static void pipe_reply(struct http_request *request, void *arg)
{
        uint64_t size = 0;
        int fds[2];
        begin(request, arg);
        str_to_u64(http_request_query(request, "size"), &size);
        if (pipe2(fds, O_CLOEXEC) < 0)
                abort();
        struct writer *writer = new0(struct writer);
        *writer = (struct writer){ arg, fds[1], size };
        start_thread(arg, writer_main, writer);
        http_reply_fd(request, 200, "application/x-tar", fds[0]);
}

static void file_reply(struct http_request *request, void *arg)
{
        struct fixture *fixture = arg;
        begin(request, fixture);
        auto_free char *path = xasprintf("%s/file", fixture->directory);
        http_reply_fd(request, 200, "application/x-tar", open(path, O_RDONLY | O_CLOEXEC));
}

/* Passes `fd` through SCM_RIGHTS and closes it: what is left is what another process
 * would get. */
static int through_another_process(int fd)
{
        int pair[2];
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
                abort();
        char byte = 0;
        union {
                char space[CMSG_SPACE(sizeof(int))];
                struct cmsghdr align;
        } control = { 0 };
        struct iovec iov = { &byte, 1 };
        struct msghdr message = { .msg_iov = &iov,
                                  .msg_iovlen = 1,
                                  .msg_control = control.space,
                                  .msg_controllen = sizeof(control.space) };
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(header), &fd, sizeof(fd));
        if (sendmsg(pair[0], &message, 0) != 1)
                abort();
        close(fd);
        if (recvmsg(pair[1], &message, MSG_CMSG_CLOEXEC) != 1)
                abort();
        memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(fd));
        close(pair[0]);
        close(pair[1]);
        return fd;
}

struct shouter {
        struct fixture *fixture;
        int fd;
};

/* Echoes in capitals until the client's end, then says bye. */
static void *shout_main(void *arg)
{
        struct shouter *shouter = arg;
        struct fixture *fixture = shouter->fixture;
        int fd = shouter->fd;
        char data[256];
        free(shouter);
        fcntl(fd, F_SETFL, 0);
        for (ssize_t got; (got = read(fd, data, sizeof(data))) > 0;) {
                for (ssize_t i = 0; i < got; i++)
                        data[i] = data[i] >= 'a' && data[i] <= 'z' ? data[i] - 32 : data[i];
                io_write_full(fd, data, (size_t)got);
        }
        io_write_full(fd, "bye", 3);
        close(fd);
        atomic_fetch_sub(&fixture->threads, 1);
        return NULL;
}

static void attached(void *arg, int fd, const void *early, size_t early_size)
{
        struct fixture *fixture = arg;
        if (fd < 0) {
                atomic_fetch_add(&fixture->aborted, 1);
                return;
        }
        if (early_size > 0 && write(fd, early, early_size) != (ssize_t)early_size)
                abort();
        struct shouter *shouter = new0(struct shouter);
        *shouter = (struct shouter){ fixture, through_another_process(fd) };
        start_thread(fixture, shout_main, shouter);
}

static void attach(struct http_request *request, void *arg)
{
        begin(request, arg);
        http_upgrade(request, "application/vnd.docker.raw-stream", attached, arg);
}

static const struct http_route routes[] = {
        { "GET", "/_ping", ping },
        { "GET", "/describe", describe },
        { "GET", "/describe/{name*}/json", describe },
        { "POST", "/buffered", buffered, HTTP_BODY_BUFFERED },
        { "POST", "/none", no_content },
        { "POST", "/pipe", pipe_echo, HTTP_BODY_PIPE },
        { "POST", "/refuse", refuse, HTTP_BODY_PIPE },
        { "POST", "/progress", report_progress, HTTP_BODY_PIPE },
        { "GET", "/never", never },
        { "POST", "/never-attach", never },
        { "GET", "/stream", stream },
        { "GET", "/pipe", pipe_reply },
        { "GET", "/file", file_reply },
        { "POST", "/attach", attach },
};

/* --- the server's thread --- */

static pthread_t server_thread;

static void *server_main(void *arg)
{
        loop_run(arg);
        return NULL;
}

static void stop(void *arg)
{
        loop_exit(arg, 0);
}

/* A TCP listener on some port. */
static int listen_tcp(struct fixture *fixture, struct err *err)
{
        struct sockaddr_in address;
        socklen_t size = sizeof(address);
        int fd;
        int r = http_listen("tcp://127.0.0.1:0", (gid_t)-1, &fd, err);
        if (r < 0)
                return r;
        getsockname(fd, (struct sockaddr *)&address, &size);
        snprintf(fixture->tcp_url, sizeof(fixture->tcp_url), "tcp://127.0.0.1:%u",
                 ntohs(address.sin_port));
        return http_server_listen(fixture->server, fd, err);
}

int fixture_setup(void **state)
{
        struct fixture *fixture = new0(struct fixture);
        struct err err = { 0 };
        int fd;
        strcpy(fixture->directory, "/tmp/isle-http-XXXXXX");
        if (!mkdtemp(fixture->directory))
                return -1;
        snprintf(fixture->path, sizeof(fixture->path), "%s/sock", fixture->directory);
        snprintf(fixture->url, sizeof(fixture->url), "unix://%s", fixture->path);
        atomic_store(&fixture->body_complete, -1);
        if (loop_create(&fixture->loop, &err) < 0 ||
            http_server_create(fixture->loop, routes, ELEMENTS(routes), fixture, &fixture->server,
                               &err) < 0 ||
            http_listen_unix(fixture->path, 0600, (gid_t)-1, &fd, &err) < 0 ||
            http_server_listen(fixture->server, fd, &err) < 0 || listen_tcp(fixture, &err) < 0 ||
            http_client_create(fixture->url, &fixture->client, &err) < 0) {
                print_error("%s\n", err_text(&err));
                return -1;
        }
        *state = fixture;
        return pthread_create(&server_thread, NULL, server_main, fixture->loop);
}

int fixture_teardown(void **state)
{
        struct fixture *fixture = *state;
        http_client_destroy(fixture->client);
        loop_post(fixture->loop, stop, fixture->loop);
        pthread_join(server_thread, NULL);
        http_server_destroy(fixture->server);
        while (atomic_load(&fixture->threads) > 0)
                nanosleep(&(struct timespec){ .tv_nsec = NS_PER_MS }, NULL);
        loop_destroy(fixture->loop);
        int leftover = atomic_load(&fixture->begun) - atomic_load(&fixture->closed);
        int r = file_remove_tree(AT_FDCWD, fixture->directory, NULL);
        free(fixture);
        if (leftover != 0)
                print_error("%d requests were never closed\n", leftover);
        return leftover != 0 ? -1 : r;
}

void fixture_await(const atomic_int *counter, int wanted)
{
        int64_t deadline_ns = clock_monotonic_ns() + FIXTURE_DEADLINE_S * NS_PER_S;
        while (atomic_load(counter) < wanted && clock_monotonic_ns() < deadline_ns)
                nanosleep(&(struct timespec){ .tv_nsec = NS_PER_MS }, NULL);
        assert_true(atomic_load(counter) >= wanted);
}

int raw_connect(const struct fixture *fixture)
{
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        strcpy(address.sun_path, fixture->path);
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
        struct timeval patience = { .tv_sec = FIXTURE_DEADLINE_S };
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
        return fd;
}

void raw_send(int fd, const char *text)
{
        assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

void raw_receive(int fd, struct buf *text, const char *mark)
{
        while (!mark || !strstr(buf_text(text), mark)) {
                ssize_t got = recv(fd, buf_reserve(text, 4096), 4096, 0);
                if (got == 0 && !mark)
                        return;
                if (got <= 0)
                        fail_msg("waiting for '%s', got '%s' (%zd, %s)", mark ? mark : "the end",
                                 buf_text(text), got, strerror(errno));
                buf_commit(text, (size_t)got);
        }
}

void raw_exchange(const struct fixture *fixture, const char *text, struct buf *reply)
{
        auto_fd fd = raw_connect(fixture);
        raw_send(fd, text);
        raw_receive(fd, reply, NULL);
}
