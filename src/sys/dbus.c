#include "sys/dbus.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/str.h"

#define READ_BYTES    4096
#define LINE_SIZE_MAX 512 /* of the authentication */

struct dbus {
        int fd;
        uint32_t serial;
        int64_t deadline_ns; /* of the authentication */
        struct buf in;
        size_t used; /* of `in`: the message that was given out last */
};

static int unhex(char c)
{
        if (c >= '0' && c <= '9')
                return c - '0';
        if (c >= 'a' && c <= 'f')
                return c - 'a' + 10;
        return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* "%41" is "A"; heap, NULL where that is malformed. */
static char *unescape(const char *text, size_t length)
{
        auto_buf out = { 0 };
        for (size_t i = 0; i < length; i++) {
                if (text[i] != '%') {
                        buf_putc(&out, text[i]);
                        continue;
                }
                int high = i + 2 < length ? unhex(text[i + 1]) : -1;
                int low = high >= 0 ? unhex(text[i + 2]) : -1;
                if (low < 0)
                        return NULL;
                buf_putc(&out, (char)(high << 4 | low));
                i += 2;
        }
        return buf_take(&out);
}

static int parse_address(const char *address, struct sockaddr_un *ret, socklen_t *ret_length)
{
        const char *path = str_after(address, "unix:path=");
        const char *abstract = str_after(address, "unix:abstract=");
        const char *value = path ? path : abstract;
        if (!value)
                return -EINVAL;
        auto_free char *name = unescape(value, strcspn(value, ",;"));
        *ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
        size_t at = abstract ? 1 : 0;
        if (str_empty(name) || at + strlen(name) >= sizeof(ret->sun_path))
                return -EINVAL;
        memcpy(ret->sun_path + at, name, strlen(name));
        *ret_length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + at + strlen(name) +
                                  (path ? 1 : 0));
        return 0;
}

static int send_all(struct dbus *dbus, const void *data, size_t size, struct err *err)
{
        for (size_t done = 0; done < size;) {
                ssize_t n = send(dbus->fd, (const char *)data + done, size - done, MSG_NOSIGNAL);
                if (n < 0 && errno != EINTR)
                        return err_set(err, errno, "send to D-Bus");
                done += n > 0 ? (size_t)n : 0;
        }
        return 0;
}

/* Waits for more bytes and appends them. */
static int read_more(struct dbus *dbus, int64_t deadline_ns, struct err *err)
{
        for (;;) {
                int64_t left = deadline_ns - clock_monotonic_ns();
                if (left <= 0)
                        return err_plain(err, ETIMEDOUT, "no answer over D-Bus in time");
                struct pollfd entry = { .fd = dbus->fd, .events = POLLIN };
                int n = poll(&entry, 1, (int)(left / NS_PER_MS) + 1);
                if (n < 0 && errno != EINTR)
                        return err_set(err, errno, "poll");
                if (n <= 0)
                        continue;
                char *room = buf_reserve(&dbus->in, READ_BYTES);
                if (!room)
                        return err_plain(err, EMSGSIZE, "a D-Bus message is too large");
                ssize_t got = recv(dbus->fd, room, READ_BYTES, 0);
                if (got < 0 && errno == EINTR)
                        continue;
                if (got <= 0)
                        return err_set(err, got < 0 ? errno : ECONNRESET, "read from D-Bus");
                buf_commit(&dbus->in, (size_t)got);
                return 0;
        }
}

/* A line of the authentication must begin with `wanted`. */
static int expect_line(struct dbus *dbus, const char *wanted, struct err *err)
{
        char *end;
        while (!(end = dbus->in.size ? memmem(dbus->in.data, dbus->in.size, "\r\n", 2) : NULL)) {
                if (dbus->in.size > LINE_SIZE_MAX)
                        return err_plain(err, EPROTO, "the D-Bus peer does not speak D-Bus");
                int r = read_more(dbus, dbus->deadline_ns, err);
                if (r < 0)
                        return r;
        }
        *end = '\0';
        bool fine = str_starts(dbus->in.data, wanted);
        if (!fine)
                err_plain(err, EACCES, "D-Bus authentication: '%s' where %s was expected",
                          dbus->in.data, wanted);
        buf_consume(&dbus->in, (size_t)(end + 2 - dbus->in.data));
        return fine ? 0 : -EACCES;
}

/* Without a name, the other side takes who it sees: in a user namespace it is another
 * number than ours. All lines go at once, and nothing before the answer: systemd's own
 * socket does not look at a message again that came together with BEGIN. */
static int authenticate(struct dbus *dbus, struct err *err)
{
        static const char lines[] = "\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n";
        int r = send_all(dbus, lines, sizeof(lines) - 1, err);
        if (r == 0)
                r = expect_line(dbus, "DATA", err);
        return r == 0 ? expect_line(dbus, "OK", err) : r;
}

int dbus_connect(const char *address, int timeout_ms, struct dbus **ret, struct err *err)
{
        struct sockaddr_un where;
        socklen_t length;
        if (parse_address(address, &where, &length) < 0)
                return err_plain(err, EINVAL,
                                 "D-Bus address '%s' is not understood: it must be "
                                 "unix:path=… or unix:abstract=…",
                                 address);
        auto_dbus dbus = new0(struct dbus);
        dbus->in.limit_bytes = DBUS_MESSAGE_SIZE_MAX + 2 * READ_BYTES;
        dbus->deadline_ns = clock_monotonic_ns() + timeout_ms * NS_PER_MS;
        dbus->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (dbus->fd < 0)
                return err_set(err, errno, "socket");
        if (connect(dbus->fd, (const struct sockaddr *)&where, length) < 0)
                return err_set(err, errno, "connect to %s", address);
        int r = authenticate(dbus, err);
        if (r < 0)
                return err_wrap(err, "%s", address);
        *ret = take_ptr(dbus);
        return 0;
}

void dbus_close(struct dbus *dbus)
{
        if (!dbus)
                return;
        close_fd(&dbus->fd);
        buf_finish(&dbus->in);
        free(dbus);
}

int dbus_send(struct dbus *dbus, const struct dbus_call *call, uint32_t *ret_serial,
              struct err *err)
{
        auto_buf message = { 0 };
        struct dbus_call with = *call;
        with.serial = ++dbus->serial;
        dbus_put_call(&message, &with);
        *ret_serial = with.serial;
        return send_all(dbus, message.data, message.size, err);
}

int dbus_receive(struct dbus *dbus, int64_t deadline_ns, struct dbus_message *ret, struct err *err)
{
        buf_consume(&dbus->in, dbus->used);
        dbus->used = 0;
        for (;;) {
                ssize_t size = dbus_message_size(dbus->in.data, dbus->in.size);
                if (size < 0)
                        return err_plain(err, (int)-size, "malformed or too large D-Bus message");
                if (size > 0 && (size_t)size <= dbus->in.size) {
                        dbus->used = (size_t)size;
                        return dbus_parse(dbus->in.data, (size_t)size, ret, err);
                }
                int r = read_more(dbus, deadline_ns, err);
                if (r < 0)
                        return r;
        }
}
