#include "sys/pty.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/auto.h"

int pty_open(int dirfd, const char *ptmx, int *ret_master, int *ret_slave, struct err *err)
{
        auto_fd master = openat(dirfd, ptmx, O_RDWR | O_NOCTTY | O_CLOEXEC);
        if (master < 0)
                return err_set(err, errno, "open %s", ptmx);
        int unlocked = 0;
        if (ioctl(master, TIOCSPTLCK, &unlocked) < 0)
                return err_set(err, errno, "unlock the terminal");
        int slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
        if (slave < 0)
                return err_set(err, errno, "open the terminal's other end");
        *ret_master = take_fd(master);
        *ret_slave = slave;
        return 0;
}

int pty_resize(int fd, unsigned rows, unsigned columns, struct err *err)
{
        struct winsize size = { .ws_row = (unsigned short)rows, .ws_col = (unsigned short)columns };
        if (ioctl(fd, TIOCSWINSZ, &size) < 0)
                return err_set(err, errno, "resize the terminal");
        return 0;
}

int pty_make_raw(int fd, struct termios *ret_saved, struct err *err)
{
        struct termios saved, raw;
        if (tcgetattr(fd, &saved) < 0)
                return err_set(err, errno, "read terminal mode");
        raw = saved;
        cfmakeraw(&raw);
        raw.c_oflag |= OPOST; /* line ends are its business, see pty_plain_newlines() */
        if (tcsetattr(fd, TCSANOW, &raw) < 0)
                return err_set(err, errno, "set terminal mode");
        *ret_saved = saved;
        return 0;
}

bool pty_has_plain_newlines(int fd)
{
        struct termios mode;
        return tcgetattr(fd, &mode) == 0 && !(mode.c_oflag & ONLCR);
}

int pty_plain_newlines(int fd, struct err *err)
{
        struct termios mode;
        if (tcgetattr(fd, &mode) < 0)
                return err_set(err, errno, "read terminal mode");
        mode.c_oflag &= ~(tcflag_t)ONLCR;
        return tcsetattr(fd, TCSANOW, &mode) < 0 ? err_set(err, errno, "set terminal mode") : 0;
}

int pty_connect(const char *socket_path, int *ret_fd, struct err *err)
{
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        auto_fd place = -1;
        if (strlen(socket_path) < sizeof(address.sun_path)) {
                strcpy(address.sun_path, socket_path);
        } else {
                place = open(socket_path, O_PATH | O_CLOEXEC);
                if (place < 0)
                        return err_set(err, errno, "connect to '%s'", socket_path);
                snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d", place);
        }
        auto_fd fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return err_set(err, errno, "socket");
        if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
                return err_set(err, errno, "connect to '%s'", socket_path);
        *ret_fd = take_fd(fd);
        return 0;
}

union fd_message {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
};

int pty_send_fd(int socket_fd, int fd, const void *data, size_t size, struct err *err)
{
        union fd_message control = { 0 };
        struct iovec part = { .iov_base = (void *)data, .iov_len = size };
        struct msghdr message = { .msg_iov = &part,
                                  .msg_iovlen = 1,
                                  .msg_control = control.bytes,
                                  .msg_controllen = sizeof(control.bytes) };
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(header), &fd, sizeof(int));
        for (;;) {
                if (sendmsg(socket_fd, &message, MSG_NOSIGNAL) >= 0)
                        return 0;
                if (errno != EINTR)
                        return err_set(err, errno, "pass a descriptor");
        }
}

int pty_receive_fd(int socket_fd, int *ret_fd, void *data, size_t size, size_t *ret_size,
                   struct err *err)
{
        union fd_message control = { 0 };
        struct iovec part = { .iov_base = data, .iov_len = size };
        struct msghdr message = { .msg_iov = &part,
                                  .msg_iovlen = 1,
                                  .msg_control = control.bytes,
                                  .msg_controllen = sizeof(control.bytes) };
        ssize_t n;
        do
                n = recvmsg(socket_fd, &message, MSG_CMSG_CLOEXEC);
        while (n < 0 && errno == EINTR);
        if (n < 0)
                return err_set(err, errno, "receive a descriptor");
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        if (!header || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS ||
            header->cmsg_len != CMSG_LEN(sizeof(int)))
                return err_plain(err, EPROTO, "expected a descriptor, none came");
        memcpy(ret_fd, CMSG_DATA(header), sizeof(int));
        if (ret_size)
                *ret_size = (size_t)n;
        return 0;
}
