#include "http/server.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/socket.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/str.h"
#include "http/connection.h"

struct listener {
        struct list node;
        struct http_server *server;
        int fd;
        bool is_tcp;
        struct loop_source *source;
};

/* --- accepting --- */

/* Out of descriptors, memory or our own limit: the pending connection keeps the
 * listener readable, so look away for a moment. */
static void pause_accepting(struct http_server *server)
{
        list_for_each (struct listener, listener, &server->listeners, node)
                loop_io_set(listener->source, 0);
        loop_timer_arm(server->resume, ACCEPT_PAUSE_NS);
}

static void resume_accepting(void *arg)
{
        struct http_server *server = arg;
        list_for_each (struct listener, listener, &server->listeners, node)
                loop_io_set(listener->source, EPOLLIN);
}

static void tune_tcp(int fd)
{
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
}

static void listener_ready(void *arg, uint32_t events __attribute__((unused)))
{
        const struct listener *listener = arg;
        struct http_server *server = listener->server;
        for (int i = 0; i < ACCEPTS_PER_ROUND; i++) {
                if (server->connections_length >= CONNECTIONS_LIMIT) {
                        pause_accepting(server);
                        return;
                }
                int fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
                if (fd < 0) {
                        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS ||
                            errno == ENOMEM)
                                pause_accepting(server);
                        return;
                }
                if (listener->is_tcp)
                        tune_tcp(fd);
                if (connection_create(server, fd, NULL) < 0)
                        return;
        }
}

int http_server_listen(struct http_server *server, int fd, struct err *err)
{
        auto_fd taken = fd;
        int flags = fcntl(fd, F_GETFL);
        if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
                return err_set(err, errno, "make the listening socket non-blocking");
        int domain = AF_UNIX;
        socklen_t size = sizeof(domain);
        getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size);
        struct listener *listener = new0(struct listener);
        listener->server = server;
        listener->is_tcp = domain != AF_UNIX;
        int r = loop_io(server->loop, fd, EPOLLIN, listener_ready, listener, &listener->source,
                        err);
        if (r < 0) {
                free(listener);
                return r;
        }
        listener->fd = take_fd(taken);
        list_append(&server->listeners, &listener->node);
        return 0;
}

void http_server_take_fds(struct http_server *server)
{
        server->takes_fds = true;
}

int http_server_adopt(struct http_server *server, int fd, struct err *err)
{
        int flags = fcntl(fd, F_GETFL);
        if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) {
                int code = errno;
                close(fd);
                return err_set(err, code, "make the connection non-blocking");
        }
        return connection_create(server, fd, err);
}

/* --- deadlines --- */

static void sweep(void *arg)
{
        struct http_server *server = arg;
        int64_t now_ns = clock_monotonic_ns();
        int64_t next_ns = 0;

        list_for_each_safe (struct connection, connection, &server->connections, node) {
                int64_t deadline_ns = connection->deadline_ns;
                if (deadline_ns == 0)
                        continue;
                if (deadline_ns <= now_ns)
                        connection_abort(connection);
                else if (next_ns == 0 || deadline_ns < next_ns)
                        next_ns = deadline_ns;
        }
        /* Not at once for each of many that follow each other closely. */
        if (next_ns > 0 && next_ns < now_ns + NS_PER_S)
                next_ns = now_ns + NS_PER_S;
        server->sweep_at_ns = next_ns;
        if (next_ns > 0)
                loop_timer_arm(server->sweep, next_ns - now_ns);
}

/* --- the server --- */

int http_server_create(struct loop *loop, const struct http_route *routes, size_t length, void *arg,
                       struct http_server **ret, struct err *err)
{
        for (size_t i = 0; i < length; i++)
                if (!route_is_valid(&routes[i]))
                        return err_plain(err, EINVAL, "route %s %s is malformed", routes[i].method,
                                         routes[i].pattern);
        struct http_server *server = new0(struct http_server);
        server->loop = loop;
        server->routes = routes;
        server->routes_length = length;
        server->arg = arg;
        list_init(&server->listeners);
        list_init(&server->connections);
        int r = loop_timer(loop, sweep, server, &server->sweep, err);
        if (r == 0)
                r = loop_timer(loop, resume_accepting, server, &server->resume, err);
        if (r < 0) {
                http_server_destroy(server);
                return r;
        }
        signal(SIGPIPE, SIG_IGN); /* a pipe's reader may leave; send(2) has a flag for it */
        *ret = server;
        return 0;
}

void http_server_destroy(struct http_server *server)
{
        if (!server)
                return;
        list_for_each_safe (struct listener, listener, &server->listeners, node) {
                loop_source_destroy(listener->source);
                close_fd(&listener->fd);
                list_remove(&listener->node);
                free(listener);
        }
        list_for_each_safe (struct connection, connection, &server->connections, node)
                connection_abort(connection);
        loop_source_destroy(server->sweep);
        loop_source_destroy(server->resume);
        free(server);
}
