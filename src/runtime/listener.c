/* Handing a seccomp notification descriptor to its listener.
 *
 * From the moment the filter is loaded, the loading thread's system calls may
 * wait for that very listener. So a second thread, which is not filtered, was
 * made before and sends the descriptor; the first one waits for it by looking at
 * memory, without any system call, and takes the second with it when it execs.
 */
#include <errno.h>
#include <json-c/json.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/str.h"
#include "runtime/setup.h"
#include "sys/pty.h"

#define STACK_BYTES (16 * 1024)

enum { WAITING = -1, GIVEN_UP = -2 };

struct sender {
        int socket_fd;
        const char *text;
        atomic_int listener; /* set by the loader: descriptor, or GIVEN_UP */
        atomic_int result;   /* set by the sender: 1, or -errno */
};

static long raw_send(struct sender *sender, int fd)
{
        union {
                struct cmsghdr header;
                char bytes[CMSG_SPACE(sizeof(int))];
        } control = { 0 };
        struct iovec part = { .iov_base = (void *)sender->text, .iov_len = strlen(sender->text) };
        struct msghdr message = { .msg_iov = &part,
                                  .msg_iovlen = 1,
                                  .msg_control = control.bytes,
                                  .msg_controllen = sizeof(control.bytes) };
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(header), &fd, sizeof(int));
        return syscall(SYS_sendmsg, sender->socket_fd, &message, MSG_NOSIGNAL);
}

static int send_listener(void *arg)
{
        struct sender *sender = arg;
        int fd;
        while ((fd = atomic_load(&sender->listener)) == WAITING)
                syscall(SYS_sched_yield);
        if (fd >= 0)
                atomic_store(&sender->result, raw_send(sender, fd) < 0 ? -errno : 1);
        syscall(SYS_exit, 0); /* of this thread only */
        return 0;
}

/* The "container process state" of the specification. */
static char *state_text(const struct setup *setup)
{
        auto_json object = json_object_new_object();
        struct json_object *fds = json_object_new_array();
        auto_free char *state = hooks_state_text(setup->state);
        struct json_object *state_object = NULL;
        if (json_parse(state, strlen(state), &state_object, NULL) < 0)
                state_object = json_object_new_object();
        json_object_array_add(fds, json_object_new_string("seccompFd"));
        json_object_object_add(object, "ociVersion",
                               json_object_new_string(OCI_RUNTIME_SPEC_VERSION));
        json_object_object_add(object, "fds", fds);
        json_object_object_add(object, "pid", json_object_new_int64(setup->state->pid));
        if (!str_empty(setup->filter->listener_metadata))
                json_object_object_add(object, "metadata",
                                       json_object_new_string(setup->filter->listener_metadata));
        json_object_object_add(object, "state", state_object);
        return json_text(object, false);
}

static int load_and_send(const struct setup *setup, struct err *err)
{
        char stack[STACK_BYTES] __attribute__((aligned(16)));
        auto_free char *text = state_text(setup);
        struct sender sender = { .socket_fd = setup->seccomp_fd, .text = text };
        atomic_init(&sender.listener, WAITING);
        atomic_init(&sender.result, 0);
        if (clone(send_listener, stack + sizeof(stack),
                  CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM,
                  &sender) < 0)
                return err_set(err, errno, "clone");
        int listener = GIVEN_UP;
        int r = seccomp_install(&setup->filter->program, setup->filter->flags, &listener, err);
        atomic_store(&sender.listener, r < 0 ? GIVEN_UP : listener);
        if (r < 0)
                return r;
        int result;
        while ((result = atomic_load(&sender.result)) == 0)
                atomic_signal_fence(memory_order_seq_cst);
        return result < 0 ? err_set(err, -result, "send the seccomp listener") : 0;
}

int listener_connect(const struct filter *filter, int *ret_fd, struct err *err)
{
        int r = pty_connect(filter->listener_path, ret_fd, err);
        return r < 0 ? err_wrap(err, "failed to connect with seccomp agent"), r : 0;
}

int listener_load(const struct setup *setup, struct err *err)
{
        if (setup->filter->program.notifies)
                return load_and_send(setup, err);
        return seccomp_install(&setup->filter->program, setup->filter->flags, NULL, err);
}
