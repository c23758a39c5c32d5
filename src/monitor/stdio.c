/* Output, input and terminal of the instance, and the clients that share them. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/clock.h"
#include "monitor/client.h"
#include "monitor/launch.h"
#include "monitor/monitor.h"
#include "sys/pty.h"

static void deliver(struct monitor *m, int stream, const char *data, size_t size)
{
        if (m->log.path)
                jsonlog_write(&m->log, stream == 2 ? JSONLOG_ERR : JSONLOG_OUT, data, size,
                              clock_realtime_ns());
        int64_t now = clock_monotonic_ns();
        list_for_each (struct client, client, &m->clients, node)
                client_write(client, m->options->tty ? 0 : stream, data, size, now);
}

static int input_fd(const struct monitor *m)
{
        return m->options->tty ? m->out[0].fd : m->in.fd;
}

static void flush_input(struct monitor *m)
{
        int fd = input_fd(m);
        while (fd >= 0 && m->input.size) {
                ssize_t n = write(fd, m->input.data, m->input.size);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0 && errno == EAGAIN)
                        return;
                if (n < 0) {
                        m->in_gone = true;
                        buf_reset(&m->input);
                        source_close(m, &m->in);
                        return;
                }
                buf_consume(&m->input, (size_t)n);
        }
        if (m->in_closing && fd >= 0 && !m->options->tty) {
                source_close(m, &m->in);
                m->in_gone = true;
        }
}

static void output_ready(struct monitor *m, struct source *source, uint32_t events)
{
        static char buffer[MONITOR_READ_BYTES];
        if (source->fd < 0)
                return;
        if (events & EPOLLOUT)
                flush_input(m);
        if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
                return;
        ssize_t n = read(source->fd, buffer, sizeof(buffer));
        if (n > 0) {
                deliver(m, source == &m->out[1] ? 2 : 1, buffer, (size_t)n);
                m->drain_deadline_ns = clock_monotonic_ns() + MONITOR_DRAIN_NS;
        } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
                /* EIO: the last descriptor of the terminal's other end was closed. A
                 * program may open it again while the instance runs, but only through
                 * /dev/tty or /dev/console; what comes then is lost, as in other engines. */
                source_close(m, source);
        }
}

static void input_ready(struct monitor *m, struct source *source, uint32_t events)
{
        if (source->fd < 0)
                return;
        if (events & EPOLLERR) {
                m->in_gone = true;
                buf_reset(&m->input);
                source_close(m, source);
                return;
        }
        flush_input(m);
}

/* The first client of a stdin-once instance, or the client of an exec, is through. */
static void end_input(struct monitor *m, struct client *client)
{
        if (client->in_ended)
                return;
        client->in_ended = true;
        if (m->options->in_once && !m->options->tty) {
                m->in_closing = true;
                flush_input(m);
        }
}

static void take_input(struct monitor *m, struct client *client, const uint8_t *data, size_t size)
{
        static uint8_t passed[MONITOR_READ_BYTES + MONITOR_KEYS_MAX];
        size_t passed_size;
        bool detached = false;
        if (m->options->tty && client->detach.length) {
                detached = detach_scan(&client->detach, data, size, passed, &passed_size);
                data = passed;
                size = passed_size;
        }
        if (!m->in_gone)
                buf_append(&m->input, data, size);
        flush_input(m);
        if (detached) {
                client->dead = true;
                client->in_ended = true; /* not the end of the instance's input */
                control_detached(m);
        }
}

static void client_ready(struct monitor *m, struct source *source, uint32_t events)
{
        static uint8_t buffer[MONITOR_READ_BYTES];
        struct client *client = container_of(source, struct client, source);
        if (client->dead)
                return;
        if (events & EPOLLOUT)
                client_flush(client, clock_monotonic_ns());
        if (events & EPOLLIN) {
                ssize_t n = read(source->fd, buffer, sizeof(buffer));
                if (n > 0 && !client->in_ended && !client->finishing)
                        take_input(m, client, buffer, (size_t)n);
                else if (n == 0 && client->shut)
                        client->dead = true;
                else if (n == 0)
                        end_input(m, client);
                else if (n < 0 && errno != EAGAIN && errno != EINTR)
                        client->dead = true;
        } else if (events & (EPOLLHUP | EPOLLERR)) {
                client->dead = true;
        }
        if (client->dead)
                end_input(m, client);
}

void stdio_attach(struct monitor *m, const struct monitor_message *attach, int fd)
{
        auto_fd owned = fd;
        if (m->phase > MONITOR_RUNNING || m->clients_length >= MONITOR_CLIENTS_MAX)
                return;
        struct client *client = client_create(take_fd(owned), attach);
        client->source.ready = client_ready;
        if (!m->options->in)
                client->in_ended = true;
        list_append(&m->clients, &client->node);
        m->clients_length++;
        if (attach->early_size && !client->in_ended)
                take_input(m, client, attach->early, attach->early_size);
}

void stdio_resize(struct monitor *m, uint16_t rows, uint16_t columns)
{
        m->rows = rows;
        m->columns = columns;
        if (m->options->tty && m->out[0].fd >= 0 && rows && columns)
                pty_resize(m->out[0].fd, rows, columns, NULL);
}

/* One pipe: our end becomes `source`, the other one *ret_theirs. */
static int make_pipe(struct source *source, bool we_read, int *ret_theirs, struct err *err)
{
        int ends[2];
        if (pipe2(ends, O_CLOEXEC) < 0)
                return err_set(err, errno, "make a pipe");
        source->fd = ends[we_read ? 0 : 1];
        *ret_theirs = ends[we_read ? 1 : 0];
        fcntl(source->fd, F_SETFL, O_NONBLOCK);
        source->ready = we_read ? output_ready : input_ready;
        return 0;
}

int stdio_launch(struct monitor *m, struct err *err)
{
        auto_fd in = -1, out = -1, errors = -1;
        int r = 0;
        if (m->options->tty) {
                r = launch_console_listen(&m->console.fd, err);
        } else {
                if (m->options->in)
                        r = make_pipe(&m->in, false, &in, err);
                if (r == 0)
                        r = make_pipe(&m->out[0], true, &out, err);
                if (r == 0)
                        r = make_pipe(&m->out[1], true, &errors, err);
        }
        if (r < 0)
                return r;
        struct launch_stdio stdio = { in, out, errors };
        return launch_runtime(m->options, &stdio, m->rootfs_fd, &m->runtime_pid, err);
}

int stdio_accept_console(struct monitor *m, struct err *err)
{
        auto_fd fd = accept4(m->console.fd, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0)
                return err_set(err, errno, "the runtime sent no terminal");
        int master = -1;
        char name[256];
        int r = pty_receive_fd(fd, &master, name, sizeof(name), NULL, err);
        if (r < 0)
                return r;
        fcntl(master, F_SETFL, fcntl(master, F_GETFL) | O_NONBLOCK);
        m->out[0] = (struct source){ .fd = master, .ready = output_ready };
        source_close(m, &m->console);
        unlink(MONITOR_CONSOLE_NAME);
        stdio_resize(m, m->rows, m->columns);
        return 0;
}

static bool somebody_full(const struct monitor *m)
{
        list_for_each (struct client, client, &m->clients, node)
                if (client_full(client))
                        return true;
        return false;
}

void stdio_update(struct monitor *m)
{
        /* What is left after the end is at most the pipes' content: take it all. */
        bool read = m->phase == MONITOR_RUNNING && (m->init_exited || !somebody_full(m));
        uint32_t write = m->input.size ? EPOLLOUT : 0;
        uint32_t tty = m->options->tty && m->phase == MONITOR_RUNNING ? write : 0;
        source_watch(m, &m->out[0], (read ? EPOLLIN : 0) | tty);
        source_watch(m, &m->out[1], read ? EPOLLIN : 0);
        if (m->phase == MONITOR_RUNNING)
                source_watch(m, &m->in, write ? write : EPOLLERR);
        bool input = input_fd(m) >= 0 && !m->in_gone && m->input.size < MONITOR_INPUT_BYTES;
        list_for_each (struct client, client, &m->clients, node) {
                uint32_t events = client_events(client, input);
                source_watch(m, &client->source, events ? events : EPOLLERR);
        }
}

int64_t stdio_sweep(struct monitor *m, int64_t now_ns)
{
        int64_t next = 0;
        list_for_each_safe (struct client, client, &m->clients, node) {
                int64_t deadline = client_deadline(client);
                if (deadline && now_ns >= deadline)
                        client->dead = true;
                if (client->dead) {
                        end_input(m, client);
                        source_watch(m, &client->source, 0);
                        client_destroy(client);
                        m->clients_length--;
                } else if (deadline && (!next || deadline < next)) {
                        next = deadline;
                }
        }
        return next;
}

void stdio_finish(struct monitor *m)
{
        source_close(m, &m->out[0]);
        source_close(m, &m->out[1]);
        source_close(m, &m->in);
        source_close(m, &m->console);
        m->in_gone = true;
        int64_t now = clock_monotonic_ns();
        list_for_each (struct client, client, &m->clients, node) {
                /* Nothing ran: isled, which holds the connection too, says why on it. */
                if (m->phase == MONITOR_FAILED)
                        client->dead = true;
                else
                        client_finish(client, now);
        }
}

bool stdio_drained(const struct monitor *m)
{
        return m->out[0].fd < 0 && m->out[1].fd < 0;
}
