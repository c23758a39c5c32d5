#include "vmm/jail/jail.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"
#include "sys/namespace.h"
#include "sys/process.h"

/* Theory of operation.
 *
 *     program              maker                     machine
 *        fork ------------>
 *                          unshare
 *        <------- (0) -----
 *        writes its maps
 *        -- go ----------->
 *                          fork ------------------->
 *        <------- (pid) ---
 *                          exits; the program is subreaper and becomes the parent
 *        reaps maker
 *        -- go -------------------------------------->
 *                                                    wants to die with its parent, and
 *                                                    looks whether it still has one
 *        waits
 *
 * Without a jail the maker unshares nothing; all else is the same. */

#define NAMESPACES                                                                                 \
        (CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | \
         CLONE_NEWCGROUP)
#define MAP_LINES    32
#define MAP_SIZE_MAX 65536

/* What the maker tells; `err` where it failed. */
struct news {
        pid_t pid;
        struct err err;
};

struct child {
        int up[2], down[2]; /* pipes: news to the program, and one byte at a time back */
        int (*inside)(void *arg);
        void *arg;
        bool jailed;
};

static bool told_to_go(const struct child *c)
{
        char byte;
        ssize_t n;
        do
                n = read(c->down[0], &byte, 1);
        while (n < 0 && errno == EINTR);
        return n == 1;
}

static void __attribute__((noreturn)) run_machine(struct child *c)
{
        if (!told_to_go(c))
                _exit(1);
        struct pollfd parent = { .fd = c->down[0] };
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || poll(&parent, 1, 0) != 0)
                _exit(1); /* it has gone already */
        close_fd(&c->down[0]);
        int status = c->inside(c->arg);
        fflush(NULL);
        _exit(status);
}

static void tell(const struct child *c, const struct news *news)
{
        (void)!write(c->up[1], news, sizeof(*news));
}

static void __attribute__((noreturn)) make_machine(struct child *c)
{
        struct news news = { 0 };
        close_fd(&c->up[0]);
        close_fd(&c->down[1]);
        if (c->jailed && unshare(NAMESPACES) < 0)
                err_set(&news.err, errno,
                        "namespaces for the machine's process; --sandbox off does without");
        tell(c, &news);
        if (news.err.code || !told_to_go(c))
                _exit(1);
        news.pid = fork();
        if (news.pid == 0) {
                close_fd(&c->up[1]);
                run_machine(c);
        }
        if (news.pid < 0)
                err_set(&news.err, errno, "the machine's process");
        tell(c, &news);
        _exit(0);
}

/* ---- the program's side ---- */

static int hear(const struct child *c, struct news *ret, struct err *err)
{
        ssize_t n;
        do
                n = read(c->up[0], ret, sizeof(*ret));
        while (n < 0 && errno == EINTR);
        if (n != sizeof(*ret))
                return err_plain(err, EPIPE, "the machine's process ended before it began");
        if (!ret->err.code)
                return 0;
        *err = ret->err;
        return -err->code;
}

/* Every id that we know as itself. */
static int own_map(int proc_fd, const char *path, struct namespace_map map[MAP_LINES],
                   size_t *ret_length, struct err *err)
{
        auto_free char *text = NULL;
        size_t size, length = 0;
        int r = file_read(proc_fd, path, MAP_SIZE_MAX, &text, &size, err);
        if (r < 0)
                return r;
        for (char *line = text, *end; length < MAP_LINES && (end = strchr(line, '\n'));
             line = end + 1) {
                unsigned inside, outside, count;
                if (sscanf(line, "%u %u %u", &inside, &outside, &count) == 3)
                        map[length++] = (struct namespace_map){ inside, inside, count };
        }
        *ret_length = length;
        return 0;
}

/* Ids are inside what they are outside: a shared directory's owners, an image that only
 * its owner may read. Rights over them are given up by jail_seal(). */
static int write_maps(pid_t pid, struct err *err)
{
        struct namespace_map uids[MAP_LINES] = { { geteuid(), geteuid(), 1 } };
        struct namespace_map gids[MAP_LINES] = { { getegid(), getegid(), 1 } };
        size_t uids_length = 1, gids_length = 1;
        auto_fd proc_fd = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (proc_fd < 0)
                return err_set(err, errno, "open /proc");
        int r = 0;
        if (geteuid() == 0)
                r = own_map(proc_fd, "self/uid_map", uids, &uids_length, err);
        if (r == 0 && geteuid() == 0)
                r = own_map(proc_fd, "self/gid_map", gids, &gids_length, err);
        if (r == 0)
                r = namespace_write_maps(proc_fd, pid, uids, uids_length, gids, gids_length, err);
        return r < 0 ? err_wrap(err, "user namespace of the machine's process") : 0;
}

static void go(const struct child *c)
{
        (void)!write(c->down[1], "", 1);
}

static int start(const struct child *c, pid_t maker, pid_t *ret_pid, struct err *err)
{
        struct news news;
        int r = hear(c, &news, err);
        if (r == 0 && c->jailed)
                r = write_maps(maker, err);
        if (r == 0) {
                go(c);
                r = hear(c, &news, err);
        }
        if (r < 0)
                kill(maker, SIGKILL); /* it may wait for us */
        while (waitpid(maker, NULL, 0) < 0 && errno == EINTR)
                ;
        if (r < 0)
                return r;
        go(c);
        *ret_pid = news.pid;
        return 0;
}

static int wait_for(pid_t pid, const sigset_t *signals)
{
        int status;
        for (;;) {
                pid_t ended = waitpid(pid, &status, WNOHANG);
                if (ended == pid)
                        return status;
                int signo = sigwaitinfo(signals, NULL);
                if (signo == SIGTERM || signo == SIGINT)
                        kill(pid, signo);
        }
}

int jail_run(bool jailed, int (*inside)(void *arg), void *arg, int *ret_status, struct err *err)
{
        struct child c = { .inside = inside, .arg = arg, .jailed = jailed };
        sigset_t signals;
        sigemptyset(&signals);
        sigaddset(&signals, SIGTERM);
        sigaddset(&signals, SIGINT);
        sigaddset(&signals, SIGCHLD);
        sigprocmask(SIG_BLOCK, &signals, NULL);
        if (pipe2(c.up, O_CLOEXEC) < 0 || pipe2(c.down, O_CLOEXEC) < 0 ||
            prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
                return err_set(err, errno, "the machine's process");
        fflush(NULL);
        pid_t maker = fork(), pid = -1;
        if (maker == 0)
                make_machine(&c);
        close_fd(&c.up[1]);
        close_fd(&c.down[0]);
        int r = maker < 0 ? err_set(err, errno, "the machine's process")
                          : start(&c, maker, &pid, err);
        close_fd(&c.up[0]);
        if (r == 0) {
                int status = wait_for(pid, &signals);
                if (WIFSIGNALED(status))
                        fprintf(stderr,
                                "isle-vmm: the machine's process was killed by signal %d "
                                "(%s)\n",
                                WTERMSIG(status), strsignal(WTERMSIG(status)));
                *ret_status = process_exit_code(status);
        }
        close_fd(&c.down[1]);
        return r;
}
