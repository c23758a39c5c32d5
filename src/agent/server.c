#include <errno.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/agent.h"
#include "base/auto.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/str.h"

#define CHUNK_BYTES     65536
#define LISTEN_BACKLOG  128
#define ENTRIES_FIXED   2                                  /* the listener and the signals */
#define ENTRIES_PROCESS (1 + AGENT_STREAMS * PUMP_ENTRIES) /* the kills, and its streams */

struct connection {
        struct connection *next;
        int fd; /* -1: it became a stream, or is closed */
        struct buf in;
        struct process *process; /* that it launched */
};

struct server {
        int listener, signals;
        struct connection *connections;
        struct process *processes;
};

static void answer(struct connection *connection, const struct agent_reply *reply)
{
        auto_buf line = { 0 };
        agent_reply_put(reply, &line);
        if (io_write_full(connection->fd, line.data, line.size) < 0)
                close_fd(&connection->fd);
}

static void answer_error(struct connection *connection, const struct err *err)
{
        struct agent_reply reply = { .error = (char *)(uintptr_t)err_text(err), .code = err->code };
        answer(connection, &reply);
}

static struct process *find(struct server *server, const char *key)
{
        for (struct process *p = server->processes; p; p = p->next)
                if (streq(p->key, key))
                        return p;
        return NULL;
}

static struct process *find_or_make(struct server *server, const char *key)
{
        struct process *process = find(server, key);
        if (process)
                return process;
        process = xcalloc(1, sizeof(*process));
        *process = (struct process){ .next = server->processes,
                                     .key = xstrdup(key),
                                     .streams = { -1, -1, -1 },
                                     .oom.fd = -1,
                                     .master = -1 };
        for (int i = 0; i < AGENT_STREAMS; i++)
                process->pumps[i] = (struct pump){ .from = -1, .to = -1 };
        server->processes = process;
        return process;
}

static void do_stream(struct server *server, struct connection *connection,
                      const struct agent_request *request)
{
        struct process *process = find_or_make(server, request->key);
        struct err err;
        if (process->pid || process->streams[request->fd] >= 0) {
                err_plain(&err, EEXIST, "stream %u of %s is taken", request->fd, request->key);
                answer_error(connection, &err);
                return;
        }
        answer(connection, &(struct agent_reply){ .ok = true });
        process->streams[request->fd] = connection->fd;
        connection->fd = -1;
}

static void remove_process(struct server *server, struct process *process)
{
        for (struct process **at = &server->processes; *at; at = &(*at)->next)
                if (*at == process) {
                        *at = process->next;
                        break;
                }
        for (struct connection *c = server->connections; c; c = c->next)
                if (c->process == process)
                        c->process = NULL;
        process_free(process);
}

static void do_launch(struct server *server, struct connection *connection,
                      const struct agent_request *request)
{
        struct process *process = find_or_make(server, request->key);
        struct err err = { 0 };
        int r = process->pid ? err_plain(&err, EEXIST, "%s was launched already", request->key)
                             : process_launch(process, request, &err);
        if (r < 0) {
                answer_error(connection, &err);
                if (!process->pid)
                        remove_process(server, process);
                return;
        }
        connection->process = process;
        answer(connection, &(struct agent_reply){ .pid = process->pid });
}

static void do_call(struct connection *connection, const struct agent_request *request)
{
        struct runtime_run run = { .argv = request->argv, .fds = { -1, -1, -1 } };
        struct err err = { 0 };
        if (runtime_run(&run, &err) < 0) {
                answer_error(connection, &err);
        } else {
                struct agent_reply reply = { .ok = run.code == 0,
                                             .exit = run.code,
                                             .has_exit = true,
                                             .output = (char *)(uintptr_t)buf_text(&run.output),
                                             .errors = (char *)(uintptr_t)buf_text(&run.errors) };
                if (run.code)
                        reply.error = (char *)(uintptr_t)runtime_reason(&run);
                answer(connection, &reply);
        }
        runtime_run_finish(&run);
}

static void do_network(struct server *server, struct connection *connection,
                       const struct agent_request *request)
{
        struct process *process = find(server, request->key);
        struct err err = { 0 };
        int r = process && process->pid
                        ? agent_give_cards(request, process->pid, &err)
                        : err_plain(&err, ESRCH, "there is no process %s", request->key);
        if (r < 0)
                answer_error(connection, &err);
        else
                answer(connection, &(struct agent_reply){ .ok = true });
}

static void do_list(struct connection *connection)
{
        auto_agent_reply reply = { 0 };
        struct err err = { 0 };
        if (agent_list(&reply, &err) < 0)
                answer_error(connection, &err);
        else
                answer(connection, &reply);
}

static void do_cpus(struct connection *connection, const struct agent_request *request)
{
        struct err err = { 0 };
        if (agent_set_cpus(request->count, &err) < 0)
                answer_error(connection, &err);
        else
                answer(connection, &(struct agent_reply){ .ok = true });
}

static void do_clock(struct connection *connection, const struct agent_request *request)
{
        struct err err = { 0 };
        if (agent_move_clock(request->shift_ns, request->gently, &err) < 0)
                answer_error(connection, &err);
        else
                answer(connection,
                       &(struct agent_reply){ .ok = true, .realtime_ns = clock_realtime_ns() });
}

/* A process of its own goes on with the connection. */
static void do_move_files(const struct server *server, struct connection *connection,
                          const struct agent_request *request)
{
        const struct process *first = server->processes;
        struct err err = { 0 };
        while (first && !first->is_first)
                first = first->next;
        int r = first && !first->ended
                        ? agent_move_files(request, first->pid, connection->fd, &err)
                        : err_plain(&err, ESRCH, "there is no container in the machine");
        if (r < 0)
                answer_error(connection, &err);
        close_fd(&connection->fd);
}

static void serve(struct server *server, struct connection *connection,
                  const struct agent_request *request)
{
        struct process *process = connection->process;
        switch (request->op) {
        case AGENT_OP_STREAM:
                do_stream(server, connection, request);
                break;
        case AGENT_OP_LAUNCH:
                do_launch(server, connection, request);
                break;
        case AGENT_OP_CALL:
                do_call(connection, request);
                break;
        case AGENT_OP_NETWORK:
                do_network(server, connection, request);
                break;
        case AGENT_OP_LIST:
                do_list(connection);
                break;
        case AGENT_OP_CPUS:
                do_cpus(connection, request);
                break;
        case AGENT_OP_CLOCK:
                do_clock(connection, request);
                break;
        case AGENT_OP_EXTRACT:
        case AGENT_OP_ARCHIVE:
                do_move_files(server, connection, request);
                break;
        case AGENT_OP_RESIZE:
                if (process)
                        process_resize(process, request->rows, request->columns);
                break;
        case AGENT_OP_SIGNAL:
                if (process && !process->ended)
                        (void)kill(process->pid, (int)request->signal);
                break;
        }
}

static void read_requests(struct server *server, struct connection *connection)
{
        void *room = buf_reserve(&connection->in, CHUNK_BYTES);
        ssize_t n = read(connection->fd, room, CHUNK_BYTES);
        if (n < 0 && errno == EINTR)
                return;
        if (n <= 0) {
                close_fd(&connection->fd);
                return;
        }
        buf_commit(&connection->in, (size_t)n);
        while (connection->fd >= 0) {
                auto_free char *line = NULL;
                size_t size;
                struct err err = { 0 };
                auto_agent_request request = { 0 };
                int r = message_take_line(&connection->in, &line, &size, &err);
                if (r == 0)
                        return;
                if (r > 0)
                        r = agent_request_parse(line, size, &request, &err);
                if (r < 0) {
                        answer_error(connection, &err);
                        close_fd(&connection->fd);
                        return;
                }
                serve(server, connection, &request);
        }
}

static void reap(struct server *server)
{
        struct signalfd_siginfo info;
        int status;
        pid_t pid;
        (void)!read(server->signals, &info, sizeof(info));
        while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
                for (struct process *p = server->processes; p; p = p->next)
                        if (p->pid == pid && !p->ended)
                                process_ended(p, status);
}

static void tell(struct server *server, const struct process *process,
                 const struct agent_reply *reply)
{
        for (struct connection *c = server->connections; c; c = c->next)
                if (c->process == process && c->fd >= 0)
                        answer(c, reply);
}

static void tell_kills(struct server *server, struct process *process)
{
        if (oom_look(&process->oom))
                tell(server, process, &(struct agent_reply){ .oom_kills = process->oom.kills });
}

/* Its end is told when all that it wrote has been passed on. */
static void tell_end(struct server *server, struct process *process)
{
        (void)oom_look(&process->oom);
        tell(server, process,
             &(struct agent_reply){ .exit = process->exit_code,
                                    .has_exit = true,
                                    .oom_kills = process->oom.kills });
        remove_process(server, process);
}

/* Nobody is left to be told of the end of what it launched: that ends too. */
static void drop_closed(struct server *server)
{
        for (struct connection **at = &server->connections; *at;) {
                struct connection *connection = *at;
                if (connection->fd >= 0) {
                        at = &connection->next;
                        continue;
                }
                *at = connection->next;
                if (connection->process)
                        process_kill(connection->process);
                buf_finish(&connection->in);
                free(connection);
        }
}

static void accept_one(struct server *server)
{
        int fd = accept4(server->listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0)
                return;
        struct connection *connection = xcalloc(1, sizeof(*connection));
        *connection = (struct connection){ .next = server->connections, .fd = fd };
        server->connections = connection;
}

static size_t count(const struct server *server)
{
        size_t length = ENTRIES_FIXED;
        for (const struct connection *c = server->connections; c; c = c->next)
                length++;
        for (const struct process *p = server->processes; p; p = p->next)
                length += ENTRIES_PROCESS;
        return length;
}

static void watch(const struct server *server, struct pollfd *entries)
{
        *entries++ = (struct pollfd){ server->listener, POLLIN, 0 };
        *entries++ = (struct pollfd){ server->signals, POLLIN, 0 };
        for (const struct connection *c = server->connections; c; c = c->next)
                *entries++ = (struct pollfd){ c->fd, POLLIN, 0 };
        for (const struct process *p = server->processes; p; p = p->next) {
                *entries++ = (struct pollfd){ p->oom.fd, POLLIN, 0 };
                for (int i = 0; i < AGENT_STREAMS; i++, entries += PUMP_ENTRIES)
                        pump_watch(&p->pumps[i], entries);
        }
}

static void work(struct server *server, const struct pollfd *entries)
{
        /* The lists change while requests are served: the entries are theirs only up to
         * there, so the streams come first. */
        const struct pollfd *at = entries + ENTRIES_FIXED;
        for (struct connection *c = server->connections; c; c = c->next)
                at++;
        for (struct process *p = server->processes; p; p = p->next) {
                if (at++->revents)
                        tell_kills(server, p);
                for (int i = 0; i < AGENT_STREAMS; i++, at += PUMP_ENTRIES)
                        pump_work(&p->pumps[i], at);
        }
        at = entries + ENTRIES_FIXED;
        for (struct connection *c = server->connections; c; c = c->next, at++)
                if (c->fd >= 0 && at->revents)
                        read_requests(server, c);
        if (entries[1].revents)
                reap(server);
        if (entries[0].revents)
                accept_one(server);
        for (struct process *p = server->processes, *next; p; p = next) {
                next = p->next;
                if (p->ended && pump_done(&p->pumps[1]) && pump_done(&p->pumps[2]))
                        tell_end(server, p);
        }
        drop_closed(server);
}

static int open_listener(struct server *server, struct err *err)
{
        struct sockaddr_vm address = { .svm_family = AF_VSOCK,
                                       .svm_cid = VMADDR_CID_ANY,
                                       .svm_port = AGENT_PORT };
        server->listener = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (server->listener < 0 ||
            bind(server->listener, (struct sockaddr *)&address, sizeof(address)) < 0 ||
            listen(server->listener, LISTEN_BACKLOG) < 0)
                return err_set(err, errno, "listen at vsock port %d", AGENT_PORT);
        return 0;
}

static int tell_host(int *ret_fd, struct err *err)
{
        struct sockaddr_vm address = { .svm_family = AF_VSOCK,
                                       .svm_cid = VMADDR_CID_HOST,
                                       .svm_port = AGENT_READY_PORT };
        auto_fd fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
                return err_set(err, errno, "tell the host at vsock port %d", AGENT_READY_PORT);
        *ret_fd = take_fd(fd);
        return 0;
}

int agent_serve(struct err *err)
{
        struct server server = { .listener = -1, .signals = -1 };
        auto_fd ready = -1; /* stays open: its end is the machine's */
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGCHLD);
        sigprocmask(SIG_BLOCK, &set, NULL);
        (void)signal(SIGPIPE, SIG_IGN);
        server.signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
        if (server.signals < 0)
                return err_set(err, errno, "signalfd");
        int r = open_listener(&server, err);
        if (r == 0)
                r = tell_host(&ready, err);
        while (r == 0) {
                size_t length = count(&server);
                auto_free struct pollfd *entries = xcalloc(length, sizeof(*entries));
                watch(&server, entries);
                if (poll(entries, length, -1) < 0 && errno != EINTR)
                        r = err_set(err, errno, "poll");
                else
                        work(&server, entries);
        }
        return r;
}
