#include <errno.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/auto.h"
#include "runtime/launch.h"

#define STACK_BYTES (64 * 1024)

static pid_t kernel_clone(uint64_t flags, int exit_signal, int cgroup_fd, int *ret_pidfd)
{
        struct clone_args args = {
                .flags = flags | CLONE_PIDFD,
                .pidfd = (uintptr_t)ret_pidfd,
                .exit_signal = (uint64_t)exit_signal,
        };
        if (cgroup_fd >= 0) {
                args.flags |= CLONE_INTO_CGROUP;
                args.cgroup = (uint64_t)cgroup_fd;
        }
        return (pid_t)syscall(SYS_clone3, &args, sizeof(args));
}

/* The process in between: it shares our memory and descriptors, joins, and clones
 * the child as our own (CLONE_PARENT), so that we never leave our namespaces. */
struct joiner {
        const struct clone_request *request;
        pid_t pid;
        int pidfd;
        int error;
        const char *what;
};

/* With privilege over the host every namespace but the user's can be joined right
 * away; those that refuse may belong to the user namespace and come after it. */
static int join_listed(struct joiner *joiner)
{
        const struct clone_request *request = joiner->request;
        bool later[NAMESPACE_KINDS] = { false };
        for (int round = 0; round < 2; round++) {
                for (size_t i = 0; i < request->joins_length; i++) {
                        enum namespace_kind kind = request->joins[i].kind;
                        bool user = kind == NAMESPACE_USER;
                        if (request->join_fds[i] < 0 || kind == NAMESPACE_TIME || user ||
                            (round == 1 && !later[kind]))
                                continue;
                        if (setns(request->join_fds[i], namespace_table[kind].flag) == 0)
                                continue;
                        joiner->what = request->joins[i].path;
                        if (round == 1 || errno != EPERM)
                                return -1;
                        later[kind] = true;
                }
                for (size_t i = 0; round == 0 && i < request->joins_length; i++) {
                        if (request->joins[i].kind != NAMESPACE_USER || request->join_fds[i] < 0)
                                continue;
                        joiner->what = request->joins[i].path;
                        if (setns(request->join_fds[i], CLONE_NEWUSER) < 0)
                                return -1;
                }
        }
        return 0;
}

static int joiner_main(void *arg)
{
        struct joiner *joiner = arg;
        const struct clone_request *request = joiner->request;
        int r = join_listed(joiner);
        if (r == 0 && request->target_pidfd >= 0) {
                joiner->what = "namespaces of the container";
                r = setns(request->target_pidfd, request->target_flags);
        }
        if (r == 0) {
                joiner->what = NULL;
                joiner->pid = kernel_clone((uint64_t)request->flags | CLONE_PARENT, 0,
                                           request->cgroup_fd, &joiner->pidfd);
                if (joiner->pid == 0)
                        request->child(request->arg);
                r = joiner->pid;
        }
        if (r < 0)
                joiner->error = errno;
        _exit(0);
}

static int clone_joined(const struct clone_request *request, pid_t *ret_pid, int *ret_pidfd,
                        struct err *err)
{
        char stack[STACK_BYTES] __attribute__((aligned(16)));
        struct joiner joiner = { .request = request, .pidfd = -1 };
        pid_t between = clone(joiner_main, stack + sizeof(stack),
                              CLONE_VM | CLONE_VFORK | CLONE_FILES | SIGCHLD, &joiner);
        if (between < 0)
                return err_set(err, errno, "clone");
        while (waitpid(between, NULL, 0) < 0 && errno == EINTR)
                ;
        if (joiner.error && joiner.what)
                return err_set(err, joiner.error, "join %s", joiner.what);
        if (joiner.error)
                return err_set(err, joiner.error, "clone");
        *ret_pid = joiner.pid;
        *ret_pidfd = joiner.pidfd;
        return 0;
}

int clone_child(const struct clone_request *request, pid_t *ret_pid, int *ret_pidfd,
                struct err *err)
{
        if (request->joins_length || request->target_pidfd >= 0)
                return clone_joined(request, ret_pid, ret_pidfd, err);
        pid_t pid = kernel_clone((uint64_t)request->flags, SIGCHLD, request->cgroup_fd, ret_pidfd);
        if (pid < 0)
                return err_set(err, errno, "clone");
        if (pid == 0)
                request->child(request->arg);
        *ret_pid = pid;
        return 0;
}
