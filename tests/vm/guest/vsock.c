/* In the guest: vsock connect PORT relays stdin and stdout to the host;
 * vsock echo PORT accepts connections and gives back what they send. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

static char bytes[1 << 16];

static int copy(int from, int to)
{
        ssize_t n = read(from, bytes, sizeof(bytes));
        for (ssize_t at = 0, w; at < n; at += w)
                if ((w = write(to, bytes + at, (size_t)(n - at))) <= 0)
                        return -1;
        return (int)n;
}

static int relay(int fd)
{
        struct pollfd fds[2] = { { STDIN_FILENO, POLLIN, 0 }, { fd, POLLIN, 0 } };
        for (;;) {
                poll(fds, 2, -1);
                if (fds[0].revents && copy(STDIN_FILENO, fd) <= 0) {
                        shutdown(fd, SHUT_WR);
                        fds[0].fd = -1;
                        fds[0].revents = 0;
                }
                if (fds[1].revents && copy(fd, STDOUT_FILENO) <= 0)
                        return 0;
        }
}

static int echo(int listener, int count)
{
        while (count-- > 0) {
                int fd = accept(listener, NULL, NULL);
                if (fd < 0)
                        return 1;
                while (copy(fd, fd) > 0) {
                }
                close(fd);
        }
        return 0;
}

int main(int argc, char **argv)
{
        if (argc < 3)
                return 2;
        int fd = socket(AF_VSOCK, SOCK_STREAM, 0);
        struct sockaddr_vm address = { .svm_family = AF_VSOCK,
                                       .svm_port = (unsigned)atoi(argv[2]),
                                       .svm_cid = VMADDR_CID_HOST };
        if (strcmp(argv[1], "connect") == 0) {
                if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
                        perror("connect");
                        return 1;
                }
                return relay(fd);
        }
        address.svm_cid = VMADDR_CID_ANY;
        if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 8) < 0) {
                perror("listen");
                return 1;
        }
        puts("listening");
        fflush(stdout);
        return echo(fd, argc > 3 ? atoi(argv[3]) : 1);
}
