#include "sys/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/str.h"
#include "sys/process.h"

#define STACK_BYTES (32 * 1024)

/* What the child, which shares our memory, is given and tells. */
struct child {
        const struct spawn *spawn;
        const char *path;
        char *const *envp;
        int fd_floor; /* first descriptor above every target */
        int error;    /* errno of the step that failed */
        const char *step;
};

static int child_failed(struct child *child, const char *step)
{
        child->error = errno;
        child->step = step;
        _exit(127);
}

/* Every target is written only after all sources were moved out of the way. */
static void child_map_fds(struct child *child)
{
        const struct spawn *spawn = child->spawn;
        int moved[SPAWN_FDS_LIMIT];
        bool named[3] = { false };

        for (size_t i = 0; i < spawn->fds_length; i++) {
                moved[i] = fcntl(spawn->fds[i].from, F_DUPFD_CLOEXEC, child->fd_floor);
                if (moved[i] < 0)
                        child_failed(child, "pass a descriptor");
                if (spawn->fds[i].to < 3)
                        named[spawn->fds[i].to] = true;
        }
        if (close_range(0, ~0u, CLOSE_RANGE_CLOEXEC) < 0)
                child_failed(child, "close descriptors");
        for (size_t i = 0; i < spawn->fds_length; i++)
                if (dup2(moved[i], spawn->fds[i].to) < 0)
                        child_failed(child, "pass a descriptor");
        for (int fd = 0; fd < 3; fd++) {
                if (named[fd])
                        continue;
                int null = open("/dev/null", O_RDWR);
                if (null < 0 || (null != fd && (dup2(null, fd) < 0 || close(null) < 0)))
                        child_failed(child, "open /dev/null");
        }
}

static void child_join_cgroup(struct child *child)
{
        int fd = openat(child->spawn->cgroup_fd, "cgroup.procs", O_WRONLY | O_CLOEXEC);
        if (fd < 0 || write(fd, "0", 1) < 0)
                child_failed(child, "join the cgroup");
}

static int child_main(void *arg)
{
        struct child *child = arg;
        const struct spawn *spawn = child->spawn;

        if (spawn->cgroup_fd > 0)
                child_join_cgroup(child);
        if (spawn->new_session && setsid() < 0)
                child_failed(child, "start a session");
        if (spawn->death_signal && prctl(PR_SET_PDEATHSIG, spawn->death_signal) < 0)
                child_failed(child, "set the parent death signal");
        child_map_fds(child);
        if (spawn->new_session && spawn->controlling_tty && ioctl(0, TIOCSCTTY, 0) < 0)
                child_failed(child, "take the terminal");
        if (spawn->cwd && chdir(spawn->cwd) < 0)
                child_failed(child, "change directory");
        process_reset_signals();
        execve(child->path, spawn->argv, child->envp);
        child_failed(child, "execute");
        return 0;
}

/* The program's path as execvp would find it; only the last resort's errno is told. */
static int find_program(const char *name, char **ret_path, struct err *err)
{
        if (strchr(name, '/')) {
                *ret_path = xstrdup(name);
                return 0;
        }
        const char *search = getenv("PATH");
        auto_strv directories = str_split(search ? search : "/usr/sbin:/usr/bin:/sbin:/bin", ':');
        for (char **d = directories; *d; d++) {
                auto_free char *path = xasprintf("%s/%s", **d ? *d : ".", name);
                if (access(path, X_OK) == 0) {
                        *ret_path = take_ptr(path);
                        return 0;
                }
        }
        return err_plain(err, ENOENT, "'%s' is not in PATH", name);
}

/* The caller's, without NOTIFY_SOCKET; the array alone is the heap's. */
static char **inherited_environment(void)
{
        size_t length = 0;
        while (environ && environ[length])
                length++;
        char **copy = xcalloc(length + 1, sizeof(*copy));
        for (size_t i = 0, used = 0; i < length; i++)
                if (!str_starts(environ[i], "NOTIFY_SOCKET="))
                        copy[used++] = environ[i];
        return copy;
}

static int check_fds(const struct spawn *spawn, int *ret_floor, struct err *err)
{
        int floor = 3;
        if (spawn->fds_length > SPAWN_FDS_LIMIT)
                return err_plain(err, E2BIG, "too many descriptors to pass");
        for (size_t i = 0; i < spawn->fds_length; i++) {
                int to = spawn->fds[i].to;
                if (to < 0 || to > SPAWN_FD_MAX || spawn->fds[i].from < 0)
                        return err_plain(err, EINVAL, "bad descriptor %d to pass as %d",
                                         spawn->fds[i].from, to);
                if (to >= floor)
                        floor = to + 1;
        }
        *ret_floor = floor;
        return 0;
}

int spawn_process(const struct spawn *spawn, pid_t *ret_pid, int *ret_pidfd, struct err *err)
{
        struct child child = { .spawn = spawn };
        auto_free char *path = NULL;
        int r = check_fds(spawn, &child.fd_floor, err);
        if (r < 0)
                return r;
        r = find_program(spawn->path, &path, err);
        if (r < 0)
                return r;
        child.path = path;
        auto_free char **inherited = spawn->envp ? NULL : inherited_environment();
        child.envp = inherited ? inherited : spawn->envp;

        char stack[STACK_BYTES] __attribute__((aligned(16)));
        sigset_t all, saved;
        auto_fd pidfd = -1;

        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &saved);
        pid_t pid = clone(child_main, stack + sizeof(stack),
                          CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, &child, &pidfd);
        int error = errno;
        pthread_sigmask(SIG_SETMASK, &saved, NULL);

        if (pid < 0)
                return err_set(err, error, "clone");
        if (child.error) {
                while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
                        ;
                return err_set(err, child.error, "%s '%s'", child.step, spawn->path);
        }
        *ret_pid = pid;
        if (ret_pidfd)
                *ret_pidfd = take_fd(pidfd);
        return 0;
}
