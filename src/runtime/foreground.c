/* Standing between a caller and a container's process that both behave as if the
 * process were ours: signals are passed on, the terminal is too, and the exit
 * status comes back. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/buf.h"
#include "base/file.h"
#include "base/str.h"
#include "runtime/container.h"
#include "runtime/notify.h"
#include "sys/process.h"
#include "sys/pty.h"

#define RELAY_BYTES   8192
#define BACKLOG_BYTES 65536 /* of input for the terminal; beyond, we stop reading */

static void all_signals(sigset_t *set)
{
        static const int own[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGURG };
        sigfillset(set);
        for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++)
                sigdelset(set, own[i]);
}

void foreground_block(void)
{
        sigset_t set;
        all_signals(&set);
        sigprocmask(SIG_BLOCK, &set, NULL);
}

/* 1 when the process has ended, and then *ret_code is set. */
static int reap(pid_t pid, int *ret_code)
{
        int status;
        pid_t got = waitpid(pid, &status, WNOHANG);
        if (got != pid)
                return 0;
        *ret_code = process_exit_code(status);
        return 1;
}

static int wait_without_terminal(pid_t pid, int *ret_code, struct err *err)
{
        sigset_t set;
        all_signals(&set);
        while (!reap(pid, ret_code)) {
                siginfo_t info;
                int signo = sigwaitinfo(&set, &info);
                if (signo < 0 && errno != EINTR)
                        return err_set(err, errno, "wait for signals");
                if (signo > 0 && signo != SIGCHLD)
                        (void)kill(pid, signo);
        }
        return 0;
}

struct terminal {
        int master; /* -1: there is none, only messages */
        bool raw;
        struct termios saved;
        struct buf input; /* read from our stdin, not yet taken by the pty */
        bool input_ended;
        int notify; /* of notify_listen(), or -1 */
};

static void copy_size(int master)
{
        struct winsize size;
        if (ioctl(0, TIOCGWINSZ, &size) == 0)
                (void)ioctl(master, TIOCSWINSZ, &size);
}

void foreground_adopt(int master)
{
        copy_size(master);
        (void)pty_plain_newlines(master, NULL);
}

/* false at the end of the output. */
static bool relay_output(struct terminal *terminal)
{
        char bytes[RELAY_BYTES];
        ssize_t n = read(terminal->master, bytes, sizeof(bytes));
        if (n < 0)
                return errno == EAGAIN || errno == EINTR; /* EIO: the other end is closed */
        return n > 0 && io_write_full(1, bytes, (size_t)n) == 0;
}

static void relay_input(struct terminal *terminal, short events)
{
        if (events & (POLLIN | POLLHUP)) {
                char bytes[RELAY_BYTES];
                ssize_t n = read(0, bytes, sizeof(bytes));
                if (n > 0)
                        (void)buf_append(&terminal->input, bytes, (size_t)n);
                else if (n == 0 || errno != EINTR)
                        terminal->input_ended = true;
        }
}

static void push_input(struct terminal *terminal)
{
        ssize_t n = write(terminal->master, terminal->input.data, terminal->input.size);
        if (n > 0)
                buf_consume(&terminal->input, (size_t)n);
}

static int relay(struct terminal *terminal, pid_t pid, int signals, int *ret_code, struct err *err)
{
        bool ended = false, open = terminal->master >= 0;
        while (!ended || open) {
                bool room = !terminal->input_ended && terminal->input.size < BACKLOG_BYTES;
                struct pollfd entries[] = {
                        { .fd = ended ? -1 : signals, .events = POLLIN },
                        { .fd = open ? terminal->master : -1,
                          .events = (short)(POLLIN | (terminal->input.size ? POLLOUT : 0)) },
                        { .fd = room && !ended ? 0 : -1, .events = POLLIN },
                        { .fd = terminal->notify, .events = POLLIN },
                };
                /* After the process, what it printed last; background jobs that hold
                 * the terminal do not keep us. */
                int n = poll(entries, ELEMENTS(entries), ended ? 0 : -1);
                if (n < 0 && errno != EINTR)
                        return err_set(err, errno, "poll");
                if (n == 0)
                        break;
                if (entries[3].revents && notify_pass(terminal->notify))
                        terminal->notify = -1; /* told; the descriptor is our caller's */
                struct signalfd_siginfo info;
                if ((entries[0].revents & POLLIN) &&
                    read(signals, &info, sizeof(info)) == sizeof(info)) {
                        if (info.ssi_signo == SIGCHLD)
                                ended = reap(pid, ret_code);
                        else if (info.ssi_signo == SIGWINCH && open)
                                copy_size(terminal->master);
                        else
                                (void)kill(pid, (int)info.ssi_signo);
                }
                if (entries[1].revents & POLLOUT)
                        push_input(terminal);
                if (entries[1].revents & (POLLIN | POLLHUP | POLLERR))
                        open = relay_output(terminal);
                relay_input(terminal, entries[2].revents);
        }
        return 0;
}

/* The signals that wait_without_terminal() takes one by one, as a descriptor. */
static int open_signals(struct err *err)
{
        sigset_t set;
        all_signals(&set);
        int fd = signalfd(-1, &set, SFD_CLOEXEC);
        return fd < 0 ? err_set(err, errno, "signalfd") : fd;
}

static int wait_with_messages(pid_t pid, int notify_fd, int *ret_code, struct err *err)
{
        struct terminal none = { .master = -1, .input_ended = true, .notify = notify_fd };
        auto_fd signals = open_signals(err);
        return signals < 0 ? signals : relay(&none, pid, signals, ret_code, err);
}

static int wait_with_terminal(pid_t pid, int socket_fd, int notify_fd, int *ret_code,
                              struct err *err)
{
        char name[64];
        struct terminal terminal = { .master = -1, .notify = notify_fd };
        auto_fd signals = -1;
        int r = pty_receive_fd(socket_fd, &terminal.master, name, sizeof(name), NULL, err);
        if (r < 0)
                return r;
        auto_fd master = terminal.master;
        signals = open_signals(err);
        if (signals < 0)
                return signals;
        foreground_adopt(master); /* a restored one is as it was */
        (void)fcntl(master, F_SETFL, fcntl(master, F_GETFL) | O_NONBLOCK);
        if (isatty(0))
                terminal.raw = pty_make_raw(0, &terminal.saved, NULL) == 0;
        /* It may have ended before anybody looked for SIGCHLD. */
        r = relay(&terminal, pid, signals, ret_code, err);
        if (terminal.raw)
                (void)tcsetattr(0, TCSANOW, &terminal.saved);
        buf_finish(&terminal.input);
        return r;
}

int foreground_wait(pid_t pid, int master_socket_fd, int notify_fd, int *ret_code, struct err *err)
{
        if (master_socket_fd >= 0)
                return wait_with_terminal(pid, master_socket_fd, notify_fd, ret_code, err);
        return notify_fd >= 0 ? wait_with_messages(pid, notify_fd, ret_code, err)
                              : wait_without_terminal(pid, ret_code, err);
}
