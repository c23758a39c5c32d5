#include "sys/process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/pidfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/str.h"

#define STAT_TEXT_SIZE   1024
#define FIELD_START_TIME 22

/* Fields are counted from the last ')': the name before it may hold anything. */
int process_stat(pid_t pid, struct process_stat *ret, struct err *err)
{
        char path[32], text[STAT_TEXT_SIZE];
        snprintf(path, sizeof(path), "/proc/%d/stat", pid);
        auto_fd fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return err_set(err, errno == ENOENT ? ESRCH : errno, "process %d", pid);
        ssize_t n = read(fd, text, sizeof(text) - 1);
        if (n < 0)
                return err_set(err, errno, "process %d", pid);
        text[n] = '\0';

        const char *cursor = strrchr(text, ')');
        if (!cursor || cursor[1] != ' ')
                return err_plain(err, EPROTO, "%s is not understood", path);
        cursor += 2;
        struct process_stat stat = { .state = *cursor };
        for (int field = 3; field < FIELD_START_TIME; field++) {
                cursor = strchr(cursor, ' ');
                if (!cursor)
                        return err_plain(err, EPROTO, "%s is not understood", path);
                cursor++;
                if (field == 3)
                        stat.parent = (pid_t)strtol(cursor, NULL, 10);
        }
        stat.start_time = strtoull(cursor, NULL, 10);
        *ret = stat;
        return 0;
}

int process_start_time(pid_t pid, uint64_t *ret_start_time, struct err *err)
{
        struct process_stat stat;
        int r = process_stat(pid, &stat, err);
        if (r < 0)
                return r;
        *ret_start_time = stat.start_time;
        return 0;
}

bool process_same(pid_t pid, uint64_t start_time)
{
        struct process_stat stat;
        if (pid <= 0 || process_stat(pid, &stat, NULL) < 0)
                return false;
        return stat.start_time == start_time && stat.state != 'Z' && stat.state != 'X';
}

int process_open(pid_t pid, uint64_t start_time, int *ret_pidfd, struct err *err)
{
        auto_fd fd = pidfd_open(pid, 0);
        if (fd < 0)
                return err_set(err, errno, "process %d", pid);
        /* Checked after opening: if it is the same one now, the pidfd is its. */
        if (start_time && !process_same(pid, start_time))
                return err_set(err, ESRCH, "process %d", pid);
        *ret_pidfd = take_fd(fd);
        return 0;
}

int process_signal(int pidfd, int signo, struct err *err)
{
        if (pidfd_send_signal(pidfd, signo, NULL, 0) < 0)
                return err_set(err, errno, "send signal %d", signo);
        return 0;
}

int process_wait_gone(int pidfd, int timeout_ms, struct err *err)
{
        int64_t deadline = clock_monotonic_ns() + timeout_ms * NS_PER_MS;
        for (;;) {
                struct pollfd entry = { .fd = pidfd, .events = POLLIN };
                int left = -1;
                if (timeout_ms >= 0) {
                        int64_t ns = deadline - clock_monotonic_ns();
                        left = ns > 0 ? (int)((ns + NS_PER_MS - 1) / NS_PER_MS) : 0;
                }
                int n = poll(&entry, 1, left);
                if (n > 0)
                        return 1;
                if (n == 0)
                        return 0;
                if (errno != EINTR)
                        return err_set(err, errno, "wait for a process");
        }
}

/* Asked of the kernel itself: the C library refuses to touch its own two. */
void process_reset_signals(void)
{
        const struct {
                void (*handler)(int);
                unsigned long flags;
                void (*restorer)(void);
                uint64_t mask;
        } standard = { .handler = SIG_DFL };
        for (int signo = 1; signo < _NSIG; signo++)
                (void)syscall(SYS_rt_sigaction, signo, &standard, NULL, sizeof(standard.mask));
        const uint64_t none = 0;
        (void)syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, sizeof(none));
}

int process_exit_code(int status)
{
        if (WIFEXITED(status))
                return WEXITSTATUS(status);
        if (WIFSIGNALED(status))
                return 128 + WTERMSIG(status);
        return 255;
}

static int parse_realtime(const char *name, int *ret_signo)
{
        const char *rest = str_after(name, "RTMIN");
        int base = SIGRTMIN, sign = 1;
        if (!rest) {
                rest = str_after(name, "RTMAX");
                base = SIGRTMAX;
                sign = -1;
        }
        if (!rest)
                return -EINVAL;
        uint32_t offset = 0;
        if (*rest) {
                if (*rest != (sign > 0 ? '+' : '-') || str_to_u32(rest + 1, &offset) < 0)
                        return -EINVAL;
        }
        if (offset > (uint32_t)(SIGRTMAX - SIGRTMIN))
                return -EINVAL;
        *ret_signo = base + sign * (int)offset;
        return 0;
}

int process_signal_parse(const char *text, int *ret_signo)
{
        uint32_t number;
        if (str_to_u32(text, &number) == 0) {
                if (number >= _NSIG)
                        return -EINVAL;
                *ret_signo = (int)number;
                return 0;
        }
        char name[16];
        const char *bare = strncasecmp(text, "SIG", 3) == 0 ? text + 3 : text;
        if (strlen(bare) >= sizeof(name))
                return -EINVAL;
        size_t i = 0;
        for (; bare[i]; i++)
                name[i] = bare[i] >= 'a' && bare[i] <= 'z' ? (char)(bare[i] - 'a' + 'A') : bare[i];
        name[i] = '\0';

        for (int signo = 1; signo < 32; signo++) {
                if (streq(sigabbrev_np(signo), name)) {
                        *ret_signo = signo;
                        return 0;
                }
        }
        return parse_realtime(name, ret_signo);
}
