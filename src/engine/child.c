#include "engine/child.h"

#include <sys/wait.h>

#include "sys/process.h"

struct child {
        struct engine *engine;
        struct list node;
        int pidfd;
        bool ours;
        struct loop_source *source;
        void (*exited)(void *arg, int wait_status);
        void *arg;
};

static void child_free(struct child *child)
{
        loop_source_destroy(child->source);
        list_remove(&child->node);
        close_fd(&child->pidfd);
        free(child);
}

static void child_exited(void *arg)
{
        struct child *child = arg;
        int status = -1;
        if (child->ours) {
                siginfo_t info = { 0 };
                if (waitid(P_PIDFD, (id_t)child->pidfd, &info, WEXITED | WNOHANG) == 0 &&
                    info.si_pid)
                        status = info.si_code == CLD_EXITED ? info.si_status << 8 : info.si_status;
        }
        void (*exited)(void *, int) = child->exited;
        void *exited_arg = child->arg;
        child_free(child);
        if (exited)
                exited(exited_arg, status);
}

int child_watch(struct engine *engine, int pidfd, bool ours,
                void (*exited)(void *arg, int wait_status), void *arg, struct child **ret,
                struct err *err)
{
        struct child *child = new0(struct child);
        *child = (struct child){
                .engine = engine, .pidfd = pidfd, .ours = ours, .exited = exited, .arg = arg
        };
        list_append(&engine->children, &child->node);
        int r = loop_pidfd(engine->loop, pidfd, child_exited, child, &child->source, err);
        if (r < 0) {
                child_free(child);
                return r;
        }
        *ret = child;
        return 0;
}

void child_forget(struct child *child)
{
        if (!child)
                return;
        child->exited = NULL;
        if (!child->ours)
                child_free(child);
}

int child_signal(struct child *child, int signo)
{
        return child ? process_signal(child->pidfd, signo, NULL) : -ESRCH;
}

void children_destroy(struct engine *engine)
{
        list_for_each_safe (struct child, child, &engine->children, node)
                child_free(child);
}
