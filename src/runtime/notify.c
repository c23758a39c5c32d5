#include "runtime/notify.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/log.h"
#include "base/str.h"

#define SOCKET_NAME       STATE_NOTIFY "/notify"
#define READY             "READY=1"
#define MESSAGE_BYTES_MAX 4096
#define MESSAGES_AT_ONCE  64 /* of a container that never stops talking */

/* Of the caller; an abstract address has no name that could be one inside. */
static const char *callers_socket(void)
{
        const char *path = getenv("NOTIFY_SOCKET");
        return path && *path == '/' ? path : NULL;
}

void notify_mount(const char *root, const char *id, const char *place, struct oci_spec *spec)
{
        static char *const options[] = { "bind", "nosuid", "nodev", "noexec", NULL };
        spec->mounts = xrealloc(spec->mounts, spec->mounts_length + 1, sizeof(*spec->mounts));
        spec->mounts[spec->mounts_length++] = (struct oci_mount){
                .destination = xstrdup(place),
                .type = xstrdup("bind"),
                .source = xasprintf("%s/%s/%s", root, id, STATE_NOTIFY),
                .options = strv_copy(options),
        };
}

char *notify_prepare(const char *root, const char *id, struct oci_spec *spec)
{
        const char *path = callers_socket();
        if (!path || !spec->process)
                return NULL;
        notify_mount(root, id, path, spec);
        auto_free char *variable = xasprintf("NOTIFY_SOCKET=%s/notify", path);
        strv_set_variable(&spec->process->env, variable);
        return xstrdup(path);
}

int notify_make(struct state *state, struct err *err)
{
        if (mkdirat(state->fd, STATE_NOTIFY, 0755) < 0)
                return err_set(err, errno, "make directory '%s'", STATE_NOTIFY);
        return 0;
}

int notify_listen(struct state *state, int *ret_fd, struct err *err)
{
        *ret_fd = -1;
        if (!callers_socket() || faccessat(state->fd, STATE_NOTIFY, F_OK, 0) < 0)
                return 0;
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        auto_fd fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return err_set(err, errno, "socket");
        (void)unlinkat(state->fd, SOCKET_NAME, 0);
        snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s", state->fd,
                 SOCKET_NAME);
        if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
                return err_set(err, errno, "listen for what the program notifies");
        /* Whichever user of the container says it. */
        if (fchmodat(state->fd, SOCKET_NAME, 0666, 0) < 0)
                return err_set(err, errno, "let the container reach '%s'", SOCKET_NAME);
        *ret_fd = take_fd(fd);
        return 0;
}

static bool says_ready(const char *message)
{
        auto_strv lines = str_split(message, '\n');
        return strv_contains(lines, READY);
}

static void tell_caller(void)
{
        const char *path = callers_socket();
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        auto_fd fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || strlen(path) >= sizeof(address.sun_path))
                return;
        memcpy(address.sun_path, path, strlen(path));
        if (sendto(fd, READY, strlen(READY), MSG_NOSIGNAL, (struct sockaddr *)&address,
                   sizeof(address)) < 0)
                log_warning("the program is ready, but '%s' cannot be told: %s", path,
                            strerror(errno));
}

int notify_pass(int fd)
{
        char message[MESSAGE_BYTES_MAX + 1];
        for (int i = 0; i < MESSAGES_AT_ONCE; i++) {
                ssize_t n = recv(fd, message, MESSAGE_BYTES_MAX, MSG_DONTWAIT);
                if (n < 0)
                        return 0;
                message[n] = '\0';
                if (!says_ready(message))
                        continue;
                tell_caller();
                return 1;
        }
        return 0;
}

int notify_wait(int fd, int pidfd, struct err *err)
{
        for (;;) {
                struct pollfd entries[] = { { .fd = fd, .events = POLLIN },
                                            { .fd = pidfd, .events = POLLIN } };
                if (poll(entries, 2, -1) < 0 && errno != EINTR)
                        return err_set(err, errno, "poll");
                if (entries[0].revents && notify_pass(fd))
                        return 0;
                /* What it said last is there before its end is. */
                if (!entries[0].revents && entries[1].revents)
                        return 0;
        }
}
