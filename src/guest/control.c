#include "guest/control.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/str.h"
#include "codec/json.h"
#include "guest/guest.h"
#include "http/wire.h"

#define ANSWER_BYTES_MAX   65536
#define CHUNK_BYTES        4096
#define CONTROL_TIMEOUT_MS 10000

static const struct json_field balloon_fields[] = {
        JSON_FIELD(struct control_balloon, "target_bytes", JSON_UINT, target_bytes, JSON_REQUIRED),
        JSON_FIELD(struct control_balloon, "actual_bytes", JSON_UINT, actual_bytes, JSON_REQUIRED),
};
static const struct json_shape balloon_shape = JSON_SHAPE("balloon", struct control_balloon,
                                                          balloon_fields);

int control_parse_answer(char *text, size_t size, const char **ret_body, struct err *err)
{
        struct wire_head head;
        size_t scanned = 0, head_size = wire_head_size(text, size, &scanned);
        if (head_size == 0 || wire_parse_reply(text, head_size, false, &head) < 0)
                return err_plain(err, EPROTO, "the machine's control socket gives no HTTP answer");
        if (head.status < 200 || head.status > 299)
                return err_plain(err, EREMOTEIO, "the machine's control socket refuses with %d",
                                 head.status);
        *ret_body = text + head_size;
        return 0;
}

int control_parse_balloon(char *text, size_t size, struct control_balloon *ret, struct err *err)
{
        const char *body;
        int r = control_parse_answer(text, size, &body, err);
        return r < 0 ? r : json_decode_text(&balloon_shape, body, strlen(body), ret, err);
}

static int read_all(int fd, struct buf *to, struct err *err)
{
        int64_t deadline_ns = clock_monotonic_ns() + CONTROL_TIMEOUT_MS * NS_PER_MS;
        for (;;) {
                int64_t left_ms = (deadline_ns - clock_monotonic_ns()) / NS_PER_MS;
                struct pollfd entry = { fd, POLLIN, 0 };
                int n = left_ms > 0 ? poll(&entry, 1, (int)left_ms) : 0;
                if (n == 0)
                        return err_plain(err, ETIMEDOUT, "the virtual machine does not answer");
                if (n < 0 && errno == EINTR)
                        continue;
                ssize_t size = n < 0 ? -1 : read(fd, buf_reserve(to, CHUNK_BYTES), CHUNK_BYTES);
                if (size < 0)
                        return err_set(err, errno, "read from the virtual machine");
                if (size == 0)
                        return 0;
                buf_commit(to, (size_t)size);
                if (to->size > ANSWER_BYTES_MAX)
                        return err_plain(err, EMSGSIZE, "the virtual machine answers too much");
        }
}

static int call(int directory_fd, const char *method, const char *body, struct buf *ret,
                struct err *err)
{
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        auto_free char *request = xasprintf("%s /vm/balloon HTTP/1.1\r\nHost: vm\r\n"
                                            "Connection: close\r\n"
                                            "Content-Type: application/json\r\n"
                                            "Content-Length: %zu\r\n\r\n%s",
                                            method, strlen(body), body);
        snprintf(address.sun_path, sizeof(address.sun_path),
                 "/proc/self/fd/%d/" GUEST_CONTROL_SOCKET, directory_fd);
        auto_fd fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
                return err_set(err, errno, "reach the virtual machine");
        if (io_write_full(fd, request, strlen(request)) < 0)
                return err_set(err, errno, "tell the virtual machine");
        return read_all(fd, ret, err);
}

int control_get_balloon(int directory_fd, struct control_balloon *ret, struct err *err)
{
        auto_buf answer = { 0 };
        int r = call(directory_fd, "GET", "", &answer, err);
        return r < 0 ? r : control_parse_balloon((char *)answer.data, answer.size, ret, err);
}

int control_set_balloon(int directory_fd, uint64_t target_mib, struct err *err)
{
        auto_buf answer = { 0 };
        const char *ignored;
        auto_free char *body = xasprintf("{\"target_mib\":%ju}", (uintmax_t)target_mib);
        int r = call(directory_fd, "PUT", body, &answer, err);
        return r < 0 ? r : control_parse_answer((char *)answer.data, answer.size, &ignored, err);
}
