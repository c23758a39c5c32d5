#include "runtime/start.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/auto.h"
#include "runtime/setup.h"
#include "runtime/sync.h"

/* A path through the descriptor has no trouble with the length of the root's name. */
static struct sockaddr_un address_of(const struct state *state)
{
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s", state->fd,
                 STATE_SOCKET);
        return address;
}

int start_listen(struct state *state, int *ret_fd, struct err *err)
{
        struct sockaddr_un address = address_of(state);
        auto_fd fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return err_set(err, errno, "socket");
        if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 1) < 0)
                return err_set(err, errno, "listen for start");
        *ret_fd = take_fd(fd);
        return 0;
}

int start_wait(int listen_fd, int *ret_fd, struct err *err)
{
        for (;;) {
                auto_fd fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
                if (fd < 0) {
                        if (errno == EINTR || errno == ECONNABORTED)
                                continue;
                        return err_set(err, errno, "wait for start");
                }
                char byte;
                if (recv(fd, &byte, 1, 0) == 1) {
                        *ret_fd = take_fd(fd);
                        return 0;
                }
        }
}

int start_tell(struct state *state, struct err *err)
{
        struct sockaddr_un address = address_of(state);
        auto_fd fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return err_set(err, errno, "socket");
        if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
            send(fd, "1", 1, MSG_NOSIGNAL) != 1)
                return err_set(err, errno, "reach the container's process");
        int r = sync_receive(fd, err);
        if (r == SYNC_END)
                return 0;
        return r < 0 ? r : err_plain(err, EPROTO, "unexpected answer to start");
}
