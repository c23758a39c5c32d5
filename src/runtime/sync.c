#include "runtime/sync.h"

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

struct message {
        uint32_t kind;
        int32_t code;
        char text[ERR_TEXT_SIZE];
};

#define HEAD_SIZE offsetof(struct message, text)

int sync_pair(int ret_fds[2], struct err *err)
{
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ret_fds) < 0)
                return err_set(err, errno, "socketpair");
        return 0;
}

static int send_message(int fd, const struct message *message, size_t size)
{
        ssize_t n;
        do
                n = send(fd, message, size, MSG_NOSIGNAL);
        while (n < 0 && errno == EINTR);
        if (n >= 0)
                return 0;
        /* A peer that left some of ours unread is as gone as one that did not. */
        return errno == ECONNRESET ? -EPIPE : -errno;
}

int sync_send(int fd, enum sync_kind kind, struct err *err)
{
        struct message message = { .kind = kind };
        int r = send_message(fd, &message, HEAD_SIZE);
        return r < 0 ? err_set(err, -r, "tell the container's process") : 0;
}

int sync_send_error(int fd, const struct err *what)
{
        struct message message = { .kind = SYNC_ERROR, .code = what->code };
        size_t length = strnlen(what->text, sizeof(message.text) - 1);
        memcpy(message.text, what->text, length);
        return send_message(fd, &message, HEAD_SIZE + length + 1);
}

int sync_receive(int fd, struct err *err)
{
        struct message message;
        ssize_t n;
        /* ECONNRESET comes, once, before the last words of a peer that left some of
         * ours unread. */
        int resets = 0;
        do
                n = recv(fd, &message, sizeof(message), 0);
        while (n < 0 && (errno == EINTR || (errno == ECONNRESET && resets++ == 0)));
        if (n < 0 && errno != ECONNRESET)
                return err_set(err, errno, "listen to the container's process");
        if (n <= 0)
                return SYNC_END;
        if ((size_t)n < HEAD_SIZE)
                return err_plain(err, EPROTO, "the container's process sent half a message");
        if (message.kind != SYNC_ERROR)
                return (int)message.kind;
        message.text[(size_t)n > HEAD_SIZE ? (size_t)n - HEAD_SIZE - 1 : 0] = '\0';
        return err_plain(err, message.code > 0 ? message.code : EIO, "%s", message.text);
}

int sync_last_words(int fd, int r, struct err *err)
{
        if (r != -ESRCH && r != -EPIPE)
                return r;
        struct err own = *err;
        int told = sync_receive(fd, err);
        if (told < 0)
                return told;
        *err = own;
        return r;
}

int sync_expect(int fd, enum sync_kind kind, struct err *err)
{
        int r = sync_receive(fd, err);
        if (r < 0)
                return r;
        if (r == SYNC_END)
                return err_plain(err, ECONNRESET, "the other process of the start has died");
        if (r != (int)kind)
                return err_plain(err, EPROTO, "unexpected message %d during the start", r);
        return 0;
}
