#include "cli/session.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"
#include "cli/terminal.h"
#include "codec/stdcopy.h"

#define CHUNK_SIZE 32768
/* A pipe or terminal that polls writable takes this much without blocking. */
#define SAFE_WRITE 4096

/* Theory of operation.
 *
 * Two flows. Up: input_fd -> `up` -> connection. Down: connection -> parser ->
 * `down[0]`, `down[1]` -> output_fd, error_fd. A flow's source is polled only
 * while its buffers are empty, its sink only while they are not; so each buffer
 * holds at most one chunk, nothing spins, and a stuck sink stops only its own
 * flow. Descriptors 0, 1 and 2 may be shared with other programs, so they are
 * never made non-blocking: at most SAFE_WRITE bytes are written after each poll.
 */
struct pump {
        struct session *session;
        struct buf up;
        struct buf down[2];
        struct stdcopy copy;
        bool input_open, connection_open, detached, shut;
        bool regular[2]; /* sinks that never block: files */
};

static int signals_fd = -1;
static sigset_t signals_before;

/* --- signals --- */

static bool forwardable(int signo)
{
        static const int kept[] = { SIGKILL, SIGSTOP, SIGCHLD, SIGPIPE, SIGURG, SIGWINCH, SIGSEGV,
                                    SIGBUS,  SIGFPE,  SIGILL,  SIGTRAP, SIGSYS, SIGABRT };
        for (size_t i = 0; i < ELEMENTS(kept); i++)
                if (kept[i] == signo)
                        return false;
        return true;
}

int session_prepare(struct session *session, struct err *err)
{
        sigset_t wanted;
        sigemptyset(&wanted);
        bool raw = session->terminal && session->input_fd >= 0 && terminal_is(session->input_fd);
        if (session->terminal)
                sigaddset(&wanted, SIGWINCH);
        else if (session->forward)
                for (int signo = 1; signo < 32; signo++)
                        if (forwardable(signo))
                                sigaddset(&wanted, signo);
        sigprocmask(SIG_BLOCK, &wanted, &signals_before);
        signals_fd = signalfd(-1, &wanted, SFD_CLOEXEC | SFD_NONBLOCK);
        if (signals_fd < 0)
                return err_set(err, errno, "open signalfd");
        return raw ? terminal_raw(session->input_fd, err) : 0;
}

void session_finish(struct session *session)
{
        (void)session;
        terminal_restore();
        if (signals_fd < 0)
                return;
        close_fd(&signals_fd);
        sigprocmask(SIG_SETMASK, &signals_before, NULL);
}

static void report_size(struct session *session)
{
        unsigned rows, columns;
        if (session->resize && session->terminal &&
            terminal_size(session->output_fd >= 0 ? session->output_fd : 1, &rows, &columns) == 0)
                session->resize(session->arg, rows, columns);
}

static void take_signals(struct session *session)
{
        struct signalfd_siginfo info;
        while (read(signals_fd, &info, sizeof(info)) == sizeof(info)) {
                if (info.ssi_signo == SIGWINCH)
                        report_size(session);
                else if (session->signal)
                        session->signal(session->arg, (int)info.ssi_signo);
        }
}

/* --- down --- */

static int sink(void *arg, enum stdcopy_stream stream, const void *data, size_t size,
                struct err *err)
{
        struct pump *pump = arg;
        if (stream == STDCOPY_SYSTEM)
                return err_plain(err, EREMOTEIO, "error from daemon in stream: %.*s",
                                 (int)(size > 512 ? 512 : size), (const char *)data);
        return buf_append(&pump->down[stream == STDCOPY_STDERR], data, size);
}

static int take_down(struct pump *pump, const void *data, size_t size, struct err *err)
{
        if (pump->session->terminal)
                return buf_append(&pump->down[0], data, size);
        return stdcopy_feed(&pump->copy, data, size, sink, pump, err);
}

static int read_connection(struct pump *pump, struct err *err)
{
        char chunk[CHUNK_SIZE];
        ssize_t n = read(pump->session->fd, chunk, sizeof(chunk));
        if (n > 0)
                return take_down(pump, chunk, (size_t)n, err);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return 0;
        if (n < 0 && errno != ECONNRESET)
                return err_set(err, errno, "read from the daemon");
        pump->connection_open = false;
        if (!pump->session->terminal && !stdcopy_whole(&pump->copy))
                return err_plain(err, EPIPE, "the daemon closed the stream within a frame");
        return 0;
}

static int write_down(struct pump *pump, int which, struct err *err)
{
        struct session *session = pump->session;
        struct buf *buf = &pump->down[which];
        int fd = which ? session->error_fd : session->output_fd;
        if (fd < 0) {
                buf_reset(buf);
                return 0;
        }
        size_t size = buf->size > SAFE_WRITE && !pump->regular[which] ? SAFE_WRITE : buf->size;
        ssize_t n = write(fd, buf->data, size);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return 0;
        if (n < 0)
                return err_set(err, errno, "write to standard %s", which ? "error" : "output");
        buf_consume(buf, (size_t)n);
        return 0;
}

/* --- up --- */

static void shut_up(struct pump *pump)
{
        if (!pump->shut)
                shutdown(pump->session->fd, SHUT_WR);
        pump->shut = true;
        pump->input_open = false;
}

static void read_input(struct pump *pump)
{
        struct session *session = pump->session;
        char chunk[CHUNK_SIZE];
        ssize_t n = read(session->input_fd, chunk, sizeof(chunk));
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return;
        if (n <= 0) {
                buf_append(&pump->up, session->detach.keys, session->detach.matched);
                session->detach.matched = 0;
                pump->input_open = false;
                return;
        }
        if (!session->terminal || session->detach.length == 0)
                buf_append(&pump->up, chunk, (size_t)n);
        else
                pump->detached = detach_filter(&session->detach, chunk, (size_t)n, &pump->up);
}

static void write_up(struct pump *pump)
{
        ssize_t n = send(pump->session->fd, pump->up.data, pump->up.size, MSG_NOSIGNAL);
        if (n >= 0) {
                buf_consume(&pump->up, (size_t)n);
        } else if (errno != EAGAIN && errno != EINTR) {
                /* Nobody reads any more; what comes down may still be of use. */
                buf_reset(&pump->up);
                pump->input_open = false;
                pump->shut = true;
        }
}

/* --- the loop --- */

enum { POLL_CONNECTION, POLL_SIGNALS, POLL_INPUT, POLL_OUTPUT, POLL_ERROR, POLL_LENGTH };

static void arm(const struct pump *pump, struct pollfd *fds)
{
        const struct session *session = pump->session;
        bool down_empty = pump->down[0].size == 0 && pump->down[1].size == 0;
        int connection = (down_empty && pump->connection_open ? POLLIN : 0) |
                         (pump->up.size ? POLLOUT : 0);
        fds[POLL_CONNECTION] = (struct pollfd){ .fd = connection ? session->fd : -1,
                                                .events = (short)connection };
        fds[POLL_SIGNALS] = (struct pollfd){ .fd = signals_fd, .events = POLLIN };
        fds[POLL_INPUT] = (struct pollfd){
                .fd = pump->input_open && pump->up.size == 0 ? session->input_fd : -1,
                .events = POLLIN,
        };
        fds[POLL_OUTPUT] = (struct pollfd){ .fd = pump->down[0].size ? session->output_fd : -1,
                                            .events = POLLOUT };
        fds[POLL_ERROR] = (struct pollfd){ .fd = pump->down[1].size ? session->error_fd : -1,
                                           .events = POLLOUT };
}

static int turn(struct pump *pump, const struct pollfd *fds, struct err *err)
{
        int r = 0;
        if (fds[POLL_SIGNALS].revents)
                take_signals(pump->session);
        if (fds[POLL_CONNECTION].revents & (POLLIN | POLLHUP | POLLERR) &&
            fds[POLL_CONNECTION].events & POLLIN)
                r = read_connection(pump, err);
        if (fds[POLL_INPUT].revents)
                read_input(pump);
        if (pump->up.size)
                write_up(pump);
        for (int which = 0; which < 2 && r == 0; which++) {
                int fd = which ? pump->session->error_fd : pump->session->output_fd;
                const struct pollfd *polled = &fds[which ? POLL_ERROR : POLL_OUTPUT];
                if (pump->down[which].size && (fd < 0 || polled->revents || pump->regular[which]))
                        r = write_down(pump, which, err);
        }
        if (!pump->input_open && pump->up.size == 0 && pump->session->input_fd >= 0)
                shut_up(pump);
        return r;
}

static int loop(struct pump *pump, struct err *err)
{
        struct pollfd fds[POLL_LENGTH];
        while ((pump->connection_open || pump->down[0].size || pump->down[1].size) &&
               !pump->detached) {
                arm(pump, fds);
                if (poll(fds, POLL_LENGTH, -1) < 0 && errno != EINTR)
                        return err_set(err, errno, "poll");
                int r = turn(pump, fds, err);
                if (r < 0)
                        return r;
        }
        return 0;
}

static bool never_blocks(int fd)
{
        struct stat st;
        return fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
}

int session_run(struct session *session, enum session_end *ret, struct err *err)
{
        struct pump pump = {
                .session = session,
                .input_open = session->input_fd >= 0,
                .connection_open = true,
                .regular = { never_blocks(session->output_fd), never_blocks(session->error_fd) },
        };
        fcntl(session->fd, F_SETFL, fcntl(session->fd, F_GETFL) | O_NONBLOCK);
        report_size(session);
        int r = take_down(&pump, buf_text(&session->early), session->early.size, err);
        if (r == 0)
                r = loop(&pump, err);
        if (r == 0)
                *ret = pump.detached ? SESSION_DETACHED : SESSION_CLOSED;
        buf_finish(&pump.up);
        buf_finish(&pump.down[0]);
        buf_finish(&pump.down[1]);
        return r;
}
