/* The connections to isled. */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/auto.h"
#include "monitor/monitor.h"

static void send_state(struct monitor *m, struct connection *connection)
{
        size_t text_size = m->text ? strnlen(m->text, MONITOR_TEXT_MAX) : 0;
        struct monitor_message state = {
                .kind = MONITOR_STATE,
                .phase = m->phase,
                .pid = m->init_pid,
                .start_time = m->init_start_time,
                .exit_code = m->exit_code,
                .oom_kills = m->oom_kills,
                .started_ns = m->started_ns,
                .finished_ns = m->finished_ns,
                .text = m->text,
                .text_size = text_size,
        };
        int r = monitor_send(connection->source.fd, &state, -1);
        connection->dirty = r == -EAGAIN;
        source_watch(m, &connection->source, EPOLLIN | (connection->dirty ? EPOLLOUT : 0));
}

static void dispatch(struct monitor *m, const struct monitor_message *message, int *fd)
{
        switch (message->kind) {
        case MONITOR_START:
                monitor_start(m);
                break;
        case MONITOR_ATTACH:
                if (*fd >= 0)
                        stdio_attach(m, message, take_fd(*fd));
                break;
        case MONITOR_RESIZE:
                stdio_resize(m, message->rows, message->columns);
                break;
        case MONITOR_KILL:
                monitor_kill(m);
                break;
        default:
                break;
        }
}

static void connection_ready(struct monitor *m, struct source *source, uint32_t events)
{
        struct connection *connection = container_of(source, struct connection, source);
        if (source->fd < 0)
                return;
        if (events & EPOLLOUT && connection->dirty)
                send_state(m, connection);
        if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
                return;
        static char packet[MONITOR_MESSAGE_MAX];
        struct monitor_message message;
        auto_fd fd = -1;
        int r = monitor_receive(source->fd, packet, &message, &fd);
        if (r > 0)
                dispatch(m, &message, &fd);
        else if (r != -EAGAIN)
                source_close(m, source);
}

static struct connection *free_connection(struct monitor *m)
{
        for (int i = 0; i < MONITOR_CONNECTIONS; i++)
                if (m->connections[i].source.fd < 0)
                        return &m->connections[i];
        return NULL;
}

static void adopt(struct monitor *m, struct connection *connection, int fd)
{
        connection->source = (struct source){ .fd = fd, .ready = connection_ready };
        connection->dirty = false;
        send_state(m, connection);
}

static void listener_ready(struct monitor *m, struct source *source, uint32_t events)
{
        (void)events;
        auto_fd fd = accept4(source->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        struct ucred peer;
        socklen_t size = sizeof(peer);
        struct connection *connection = free_connection(m);
        if (fd < 0 || !connection || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0 ||
            (peer.uid != 0 && peer.uid != geteuid()))
                return;
        adopt(m, connection, take_fd(fd));
}

int control_open(struct monitor *m, struct err *err)
{
        struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = MONITOR_SOCKET_NAME };
        unlink(MONITOR_SOCKET_NAME);
        auto_fd fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
            listen(fd, MONITOR_CONNECTIONS) < 0)
                return err_set(err, errno, "listen at " MONITOR_SOCKET_NAME);
        m->listener = (struct source){ .fd = take_fd(fd), .ready = listener_ready };
        source_watch(m, &m->listener, EPOLLIN);
        adopt(m, &m->connections[0], MONITOR_FD_CONTROL);
        return 0;
}

void control_publish(struct monitor *m)
{
        for (int i = 0; i < MONITOR_CONNECTIONS; i++)
                if (m->connections[i].source.fd >= 0)
                        send_state(m, &m->connections[i]);
}

void control_detached(struct monitor *m)
{
        struct monitor_message message = { .kind = MONITOR_DETACHED };
        for (int i = 0; i < MONITOR_CONNECTIONS; i++)
                if (m->connections[i].source.fd >= 0)
                        monitor_send(m->connections[i].source.fd, &message, -1);
}

void control_close(struct monitor *m)
{
        for (int i = 0; i < MONITOR_CONNECTIONS; i++)
                source_close(m, &m->connections[i].source);
        if (m->listener.fd >= 0)
                unlink(MONITOR_SOCKET_NAME);
        source_close(m, &m->listener);
}
