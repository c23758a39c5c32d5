#include "monitor/protocol.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/auto.h"

struct attach_part {
        uint32_t flags, keys_size, early_size;
};

struct resize_part {
        uint16_t rows, columns;
};

struct state_part {
        uint32_t phase;
        int32_t pid;
        uint64_t start_time;
        int32_t exit_code;
        uint32_t oom_kills;
        int64_t started_ns, finished_ns;
        uint32_t text_size, reserved;
};

static const size_t fixed_sizes[MONITOR_KINDS] = {
        [MONITOR_ATTACH] = sizeof(struct attach_part),
        [MONITOR_RESIZE] = sizeof(struct resize_part),
        [MONITOR_STATE] = sizeof(struct state_part),
};

static int parse_attach(const uint8_t *body, size_t rest, struct monitor_message *m)
{
        struct attach_part part;
        memcpy(&part, body, sizeof(part));
        if (part.keys_size > MONITOR_KEYS_MAX || part.early_size > MONITOR_EARLY_MAX ||
            rest != (size_t)part.keys_size + part.early_size || part.flags & ~MONITOR_ATTACH_ALL)
                return -EBADMSG;
        m->flags = part.flags;
        m->keys = body + sizeof(part);
        m->keys_size = part.keys_size;
        m->early = m->keys + part.keys_size;
        m->early_size = part.early_size;
        return 0;
}

static int parse_state(const uint8_t *body, size_t rest, struct monitor_message *m)
{
        struct state_part part;
        memcpy(&part, body, sizeof(part));
        if (part.phase >= MONITOR_PHASES || part.text_size > MONITOR_TEXT_MAX ||
            rest != part.text_size || part.pid < 0)
                return -EBADMSG;
        m->phase = (enum monitor_phase)part.phase;
        m->pid = part.pid;
        m->start_time = part.start_time;
        m->exit_code = part.exit_code;
        m->oom_kills = part.oom_kills;
        m->started_ns = part.started_ns;
        m->finished_ns = part.finished_ns;
        m->text = (const char *)body + sizeof(part);
        m->text_size = part.text_size;
        return 0;
}

int monitor_parse(const void *packet, size_t size, struct monitor_message *ret)
{
        struct monitor_header header;
        if (size < sizeof(header) || size > MONITOR_MESSAGE_MAX)
                return -EBADMSG;
        memcpy(&header, packet, sizeof(header));
        if (header.version != MONITOR_VERSION || header.size != size ||
            header.kind < MONITOR_START || header.kind >= MONITOR_KINDS)
                return -EBADMSG;
        const uint8_t *body = (const uint8_t *)packet + sizeof(header);
        size_t fixed = fixed_sizes[header.kind], rest = size - sizeof(header);
        if (rest < fixed)
                return -EBADMSG;
        rest -= fixed;

        struct monitor_message m = { .kind = (enum monitor_kind)header.kind };
        int r = 0;
        if (m.kind == MONITOR_ATTACH) {
                r = parse_attach(body, rest, &m);
        } else if (m.kind == MONITOR_STATE) {
                r = parse_state(body, rest, &m);
        } else if (rest) {
                r = -EBADMSG;
        } else if (m.kind == MONITOR_RESIZE) {
                struct resize_part part;
                memcpy(&part, body, sizeof(part));
                m.rows = part.rows;
                m.columns = part.columns;
        }
        if (r == 0)
                *ret = m;
        return r;
}

static uint8_t *put(uint8_t *at, const void *bytes, size_t size)
{
        return size ? (uint8_t *)mempcpy(at, bytes, size) : at;
}

ssize_t monitor_format(const struct monitor_message *m, void *packet)
{
        if (m->keys_size > MONITOR_KEYS_MAX || m->early_size > MONITOR_EARLY_MAX ||
            m->text_size > MONITOR_TEXT_MAX)
                return -E2BIG;
        struct monitor_header header = { .version = MONITOR_VERSION, .kind = (uint16_t)m->kind };
        uint8_t *at = (uint8_t *)packet + sizeof(header);
        if (m->kind == MONITOR_ATTACH) {
                struct attach_part part = { m->flags, (uint32_t)m->keys_size,
                                            (uint32_t)m->early_size };
                at = put(at, &part, sizeof(part));
                at = put(at, m->keys, m->keys_size);
                at = put(at, m->early, m->early_size);
        } else if (m->kind == MONITOR_RESIZE) {
                struct resize_part part = { m->rows, m->columns };
                at = put(at, &part, sizeof(part));
        } else if (m->kind == MONITOR_STATE) {
                struct state_part part = {
                        .phase = (uint32_t)m->phase,
                        .pid = m->pid,
                        .start_time = m->start_time,
                        .exit_code = m->exit_code,
                        .oom_kills = m->oom_kills,
                        .started_ns = m->started_ns,
                        .finished_ns = m->finished_ns,
                        .text_size = (uint32_t)m->text_size,
                };
                at = put(at, &part, sizeof(part));
                at = put(at, m->text, m->text_size);
        }
        header.size = (uint32_t)(at - (uint8_t *)packet);
        memcpy(packet, &header, sizeof(header));
        return (ssize_t)header.size;
}

int monitor_send(int socket_fd, const struct monitor_message *message, int fd)
{
        char packet[MONITOR_MESSAGE_MAX];
        ssize_t size = monitor_format(message, packet);
        if (size < 0)
                return (int)size;

        struct iovec part = { packet, (size_t)size };
        union {
                struct cmsghdr align;
                char space[CMSG_SPACE(sizeof(int))];
        } control = { 0 };
        struct msghdr msg = { .msg_iov = &part, .msg_iovlen = 1 };
        if (fd >= 0) {
                msg.msg_control = &control;
                msg.msg_controllen = sizeof(control);
                struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
                c->cmsg_level = SOL_SOCKET;
                c->cmsg_type = SCM_RIGHTS;
                c->cmsg_len = CMSG_LEN(sizeof(int));
                memcpy(CMSG_DATA(c), &fd, sizeof(fd));
        }
        if (sendmsg(socket_fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
                return -errno;
        return 0;
}

/* The first descriptor that came along; further ones are closed. */
static int take_rights(struct msghdr *msg)
{
        int taken = -1;
        for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
                if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
                        continue;
                size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
                for (size_t i = 0; i < count; i++) {
                        int fd;
                        memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
                        if (taken < 0)
                                taken = fd;
                        else
                                close(fd);
                }
        }
        return taken;
}

int monitor_receive(int socket_fd, void *packet, struct monitor_message *ret, int *ret_fd)
{
        struct iovec part = { packet, MONITOR_MESSAGE_MAX };
        union {
                struct cmsghdr align;
                char space[CMSG_SPACE(sizeof(int) * 4)];
        } control;
        struct msghdr msg = {
                .msg_iov = &part,
                .msg_iovlen = 1,
                .msg_control = &control,
                .msg_controllen = sizeof(control),
        };
        ssize_t n;
        do {
                n = recvmsg(socket_fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        } while (n < 0 && errno == EINTR);
        if (n < 0)
                return -errno;
        auto_fd fd = take_rights(&msg);
        if (n == 0)
                return 0;
        if (msg.msg_flags & MSG_TRUNC)
                return -EBADMSG;
        int r = monitor_parse(packet, (size_t)n, ret);
        if (r < 0)
                return r;
        *ret_fd = take_fd(fd);
        return 1;
}
