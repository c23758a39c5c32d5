#include "cli/terminal.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "base/str.h"

#define WIDTH_DEFAULT 80

/* Signals whose default action ends the program. SIGKILL cannot be helped. */
static const int fatal_signals[] = { SIGHUP,  SIGINT,  SIGQUIT, SIGILL,  SIGABRT, SIGBUS, SIGFPE,
                                     SIGSEGV, SIGPIPE, SIGALRM, SIGTERM, SIGUSR1, SIGUSR2 };

static struct {
        volatile sig_atomic_t changed;
        bool prepared;
        int fd;
        struct termios before;
        struct sigaction actions[ELEMENTS(fatal_signals)]; /* before ours */
} saved;

bool terminal_is(int fd)
{
        return isatty(fd) == 1;
}

int terminal_size(int fd, unsigned *ret_rows, unsigned *ret_columns)
{
        struct winsize size;
        if (ioctl(fd, TIOCGWINSZ, &size) < 0)
                return -errno;
        *ret_rows = size.ws_row;
        *ret_columns = size.ws_col;
        return 0;
}

unsigned terminal_width(int fd)
{
        unsigned rows, columns;
        return terminal_size(fd, &rows, &columns) == 0 && columns ? columns : WIDTH_DEFAULT;
}

/* Async-signal-safe. */
void terminal_restore(void)
{
        if (!saved.changed)
                return;
        int keep = errno;
        tcsetattr(saved.fd, TCSANOW, &saved.before);
        saved.changed = 0;
        errno = keep;
}

/* Then what would have happened happens: death, or somebody's report first. */
static void restore_and_die(int signo)
{
        terminal_restore();
        for (size_t i = 0; i < ELEMENTS(fatal_signals); i++)
                if (fatal_signals[i] == signo)
                        sigaction(signo, &saved.actions[i], NULL);
        raise(signo);
}

static void prepare(void)
{
        if (saved.prepared)
                return;
        saved.prepared = true;
        atexit(terminal_restore);
        for (size_t i = 0; i < ELEMENTS(fatal_signals); i++) {
                const struct sigaction handler = { .sa_handler = restore_and_die };
                if (sigaction(fatal_signals[i], NULL, &saved.actions[i]) == 0 &&
                    saved.actions[i].sa_handler != SIG_IGN)
                        sigaction(fatal_signals[i], &handler, NULL);
        }
}

static int change(int fd, const struct termios *wanted, const struct termios *before,
                  struct err *err)
{
        prepare();
        saved.fd = fd;
        saved.before = *before;
        saved.changed = 1;
        if (tcsetattr(fd, TCSANOW, wanted) == 0)
                return 0;
        int code = errno;
        saved.changed = 0;
        return err_set(err, code, "set terminal mode");
}

int terminal_raw(int fd, struct err *err)
{
        struct termios before;
        if (tcgetattr(fd, &before) < 0)
                return err_set(err, errno, "read terminal mode");
        struct termios raw = before;
        cfmakeraw(&raw);
        raw.c_cc[VMIN] = 1;
        raw.c_cc[VTIME] = 0;
        return change(fd, &raw, &before, err);
}

int terminal_hide(int fd, struct err *err)
{
        struct termios before;
        if (tcgetattr(fd, &before) < 0)
                return err_set(err, errno, "read terminal mode");
        struct termios silent = before;
        silent.c_lflag &= ~(tcflag_t)ECHO;
        return change(fd, &silent, &before, err);
}
