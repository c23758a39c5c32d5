#include "vmm/virtio/vsock_peers.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/buf.h"
#include "base/list.h"
#include "base/str.h"
#include "vmm/vectors.h"

#define BUCKETS         256
#define COMMAND_MAX     32         /* "CONNECT <port>\n" */
#define FIRST_HOST_PORT 0x40000000 /* of connections that the host begins */
#define RESETS_MAX      64
#define SHUTDOWN_BOTH   (VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND)

enum stage {
        ASKING,     /* the host's program has not said CONNECT yet */
        REQUESTING, /* the guest has not answered yet */
        OPEN,
        CLOSING, /* the guest is told; its reset ends it */
};

/* What the guest is to be told. */
enum { TELL_REQUEST = 1, TELL_RESPONSE = 2, TELL_CREDIT = 4, TELL_SHUTDOWN = 8, TELL_RESET = 16 };

struct conn {
        struct list node; /* in its bucket, or in `asking` */
        struct list turn; /* in `speaking` while it has something for the guest */
        uint32_t guest_port, host_port;
        enum stage stage;
        int fd;
        uint32_t events; /* of epoll */
        unsigned tell;
        uint32_t told_shutdown; /* flags of TELL_SHUTDOWN */
        bool readable;          /* the fd has data, and we do not poll for it */
        bool host_ended;        /* end of file from the host's program */
        uint32_t guest_ended;   /* VIRTIO_VSOCK_SHUTDOWN_* by the guest */
        /* Credit, VIRTIO 1.2, 5.10.6.3 */
        uint32_t guest_room, guest_taken, sent;
        uint32_t taken, told_taken;
        struct buf waiting; /* from the guest, not yet written to the fd */
        char command[COMMAND_MAX];
        unsigned command_length;
};

struct vsock_peers {
        char *path;
        uint32_t guest_cid, next_port;
        int listen_fd, epoll_fd;
        unsigned length;
        struct list buckets[BUCKETS];
        struct list asking; /* connections without ports yet */
        struct list speaking;
        /* Resets for packets that belong to no connection. */
        struct virtio_vsock_hdr resets[RESETS_MAX];
        unsigned resets_length;
};

/* ---- connections ---- */

static struct list *bucket(struct vsock_peers *p, uint32_t guest_port, uint32_t host_port)
{
        return &p->buckets[(guest_port ^ host_port ^ guest_port >> 8) % BUCKETS];
}

static struct conn *find(struct vsock_peers *p, uint32_t guest_port, uint32_t host_port)
{
        list_for_each (struct conn, c, bucket(p, guest_port, host_port), node)
                if (c->guest_port == guest_port && c->host_port == host_port)
                        return c;
        return NULL;
}

static struct conn *add(struct vsock_peers *p, int fd, enum stage stage)
{
        struct conn *c = new0(struct conn);
        list_init(&c->node);
        list_init(&c->turn);
        c->fd = fd;
        c->stage = stage;
        c->waiting.limit_bytes = VSOCK_BUFFER;
        struct epoll_event event = { .data.ptr = c };
        if (epoll_ctl(p->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) {
                close(fd);
                free(c);
                return NULL;
        }
        list_append(&p->asking, &c->node);
        p->length++;
        return c;
}

static void drop(struct vsock_peers *p, struct conn *c)
{
        list_remove(&c->node);
        list_remove(&c->turn);
        close_fd(&c->fd);
        buf_finish(&c->waiting);
        free(c);
        p->length--;
}

static void put_in_bucket(struct vsock_peers *p, struct conn *c, uint32_t guest_port,
                          uint32_t host_port)
{
        c->guest_port = guest_port;
        c->host_port = host_port;
        list_remove(&c->node);
        list_append(bucket(p, guest_port, host_port), &c->node);
}

static uint32_t credit(const struct conn *c)
{
        uint32_t outstanding = c->sent - c->guest_taken;
        return outstanding < c->guest_room ? c->guest_room - outstanding : 0;
}

static bool may_read(const struct conn *c)
{
        return c->stage == OPEN && !c->host_ended && !(c->guest_ended & VIRTIO_VSOCK_SHUTDOWN_RCV);
}

/* Brings polling and turn in line with what the connection can do. */
static void settle(struct vsock_peers *p, struct conn *c)
{
        bool reads = may_read(c);
        uint32_t events = c->stage == ASKING || (reads && !c->readable) ? EPOLLIN : 0;
        if (c->waiting.size)
                events |= EPOLLOUT;
        if (events != c->events) {
                struct epoll_event event = { .events = events, .data.ptr = c };
                (void)epoll_ctl(p->epoll_fd, EPOLL_CTL_MOD, c->fd, &event);
                c->events = events;
        }
        bool speaks = c->tell || (reads && c->readable && credit(c));
        if (speaks == list_empty(&c->turn)) {
                list_remove(&c->turn);
                if (speaks)
                        list_append(&p->speaking, &c->turn);
        }
}

/* The end of it: the guest is told as soon as it can be. */
static void reset(struct vsock_peers *p, struct conn *c)
{
        c->stage = CLOSING;
        c->tell = TELL_RESET;
        c->waiting.size = 0;
        settle(p, c);
}

static void refuse(struct vsock_peers *p, const struct virtio_vsock_hdr *header)
{
        if (header->op == VIRTIO_VSOCK_OP_RST || p->resets_length == RESETS_MAX)
                return; /* a guest that asks for more than it reads */
        p->resets[p->resets_length++] = (struct virtio_vsock_hdr){
                .src_cid = header->dst_cid,
                .dst_cid = header->src_cid,
                .src_port = header->dst_port,
                .dst_port = header->src_port,
                .type = header->type,
                .op = VIRTIO_VSOCK_OP_RST,
        };
}

/* ---- to the host's program ---- */

/* Everything that waits is written: what was to come after it comes now. */
static void flushed(struct vsock_peers *p, struct conn *c)
{
        if (c->stage != OPEN)
                return;
        if ((c->guest_ended & SHUTDOWN_BOTH) == SHUTDOWN_BOTH)
                reset(p, c);
        else if (c->guest_ended & VIRTIO_VSOCK_SHUTDOWN_SEND)
                (void)shutdown(c->fd, SHUT_WR);
}

static void account_taken(struct conn *c, size_t bytes)
{
        c->taken += (uint32_t)bytes;
        if (c->taken - c->told_taken >= VSOCK_BUFFER / 2)
                c->tell |= TELL_CREDIT;
}

static void write_waiting(struct vsock_peers *p, struct conn *c)
{
        ssize_t n = send(c->fd, c->waiting.data, c->waiting.size, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno != EAGAIN && errno != EINTR) {
                reset(p, c);
                return;
        }
        if (n > 0) {
                buf_consume(&c->waiting, (size_t)n);
                account_taken(c, (size_t)n);
        }
        if (!c->waiting.size)
                flushed(p, c);
        settle(p, c);
}

static void take_data(struct vsock_peers *p, struct conn *c, const struct iovec *data,
                      unsigned length)
{
        ssize_t n = 0;
        if (c->guest_ended & VIRTIO_VSOCK_SHUTDOWN_SEND) {
                reset(p, c);
                return;
        }
        if (!c->waiting.size) {
                struct msghdr message = { .msg_iov = (struct iovec *)(uintptr_t)data,
                                          .msg_iovlen = length };
                n = sendmsg(c->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
                if (n < 0 && errno != EAGAIN && errno != EINTR) {
                        reset(p, c);
                        return;
                }
                n = n < 0 ? 0 : n;
                account_taken(c, (size_t)n);
        }
        size_t skip = (size_t)n;
        for (unsigned i = 0; i < length; i++) {
                size_t from = skip < data[i].iov_len ? skip : data[i].iov_len;
                skip -= from;
                const uint8_t *bytes = data[i].iov_base;
                if (buf_append(&c->waiting, bytes + from, data[i].iov_len - from) < 0) {
                        reset(p, c); /* more than it had credit for */
                        return;
                }
        }
        settle(p, c);
}

/* ---- from the host's program ---- */

/* "CONNECT 1234": a byte at a time, for what follows the line belongs to the guest. */
static void read_command(struct vsock_peers *p, struct conn *c)
{
        char byte;
        ssize_t n;
        while ((n = recv(c->fd, &byte, 1, MSG_DONTWAIT)) == 1 && byte != '\n' &&
               c->command_length < COMMAND_MAX - 1)
                c->command[c->command_length++] = byte;
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return;
        uint32_t port;
        const char *digits = str_after(c->command, "CONNECT ");
        if (n != 1 || byte != '\n' || !digits || str_to_u32(digits, &port) < 0) {
                drop(p, c);
                return;
        }
        do
                p->next_port = p->next_port + 1 < FIRST_HOST_PORT ? FIRST_HOST_PORT
                                                                  : p->next_port + 1;
        while (find(p, port, p->next_port));
        put_in_bucket(p, c, port, p->next_port);
        c->stage = REQUESTING;
        c->tell = TELL_REQUEST;
        settle(p, c);
}

static void accept_one(struct vsock_peers *p)
{
        int fd = accept4(p->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0)
                return;
        struct conn *c = p->length < VSOCK_CONNECTIONS ? add(p, fd, ASKING) : NULL;
        if (c)
                settle(p, c);
        else if (p->length >= VSOCK_CONNECTIONS)
                close(fd);
}

static void served(struct vsock_peers *p, struct conn *c, uint32_t events)
{
        if (c->stage == ASKING) {
                read_command(p, c);
                return;
        }
        if (events & EPOLLOUT)
                write_waiting(p, c);
        if (events & EPOLLIN)
                c->readable = true;
        if (events & (EPOLLHUP | EPOLLERR)) {
                /* Reported whatever we ask for: no more of it than once. */
                if (may_read(c)) {
                        c->readable = true;
                } else if (c->stage != CLOSING) {
                        reset(p, c);
                }
                (void)epoll_ctl(p->epoll_fd, EPOLL_CTL_DEL, c->fd, NULL);
        }
        settle(p, c);
}

void vsock_peers_poll(struct vsock_peers *p)
{
        struct epoll_event events[32];
        int n = epoll_wait(p->epoll_fd, events, ELEMENTS(events), 0);
        for (int i = 0; i < n; i++) {
                if (events[i].data.ptr)
                        served(p, events[i].data.ptr, events[i].events);
                else
                        accept_one(p);
        }
}

/* Reads straight into the guest's buffers. False where nothing came of it. */
static bool read_data(struct vsock_peers *p, struct conn *c, const struct iovec *room,
                      unsigned length, size_t size, struct virtio_vsock_hdr *h)
{
        struct iovec parts[64];
        size_t want = credit(c) < size ? credit(c) : size;
        unsigned n = vectors_part(room, length, 0, want, parts, ELEMENTS(parts));
        struct msghdr message = { .msg_iov = parts, .msg_iovlen = n };
        ssize_t got = recvmsg(c->fd, &message, MSG_DONTWAIT);
        if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
                c->readable = false;
                settle(p, c);
                return false;
        }
        if (got <= 0) {
                c->host_ended = true;
                /* A program that hung up takes nothing either. */
                struct pollfd state = { .fd = c->fd };
                bool gone = got < 0 || (poll(&state, 1, 0) > 0 && state.revents & POLLHUP);
                c->told_shutdown |= gone ? SHUTDOWN_BOTH : VIRTIO_VSOCK_SHUTDOWN_SEND;
                c->tell |= TELL_SHUTDOWN;
                settle(p, c);
                return false;
        }
        c->sent += (uint32_t)got;
        h->op = VIRTIO_VSOCK_OP_RW;
        h->len = (uint32_t)got;
        return true;
}

/* ---- packets ---- */

static void requested(struct vsock_peers *p, const struct virtio_vsock_hdr *h)
{
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int size = snprintf(address.sun_path, sizeof(address.sun_path), "%s_%u", p->path,
                            h->dst_port);
        auto_fd fd = -1;
        if (size > 0 && (size_t)size < sizeof(address.sun_path) && p->length < VSOCK_CONNECTIONS)
                fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        struct conn *c = NULL;
        if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
                c = add(p, take_fd(fd), OPEN);
        if (!c) {
                refuse(p, h);
                return;
        }
        put_in_bucket(p, c, h->src_port, h->dst_port);
        c->guest_room = h->buf_alloc;
        c->guest_taken = h->fwd_cnt;
        c->tell = TELL_RESPONSE;
        settle(p, c);
}

static void answered(struct vsock_peers *p, struct conn *c)
{
        if (c->stage != REQUESTING) {
                reset(p, c);
                return;
        }
        char line[32];
        int size = snprintf(line, sizeof(line), "OK %u\n", c->host_port);
        c->stage = OPEN;
        if (send(c->fd, line, (size_t)size, MSG_NOSIGNAL | MSG_DONTWAIT) != size)
                reset(p, c);
}

static void ended(struct vsock_peers *p, struct conn *c, uint32_t flags)
{
        c->guest_ended |= flags & SHUTDOWN_BOTH;
        if (!c->waiting.size)
                flushed(p, c);
}

void vsock_peers_take(struct vsock_peers *p, const struct virtio_vsock_hdr *h,
                      const struct iovec *data, unsigned length)
{
        if (h->src_cid != p->guest_cid || h->dst_cid != VSOCK_HOST_CID ||
            h->type != VIRTIO_VSOCK_TYPE_STREAM) {
                refuse(p, h);
                return;
        }
        struct conn *c = find(p, h->src_port, h->dst_port);
        if (!c) {
                if (h->op == VIRTIO_VSOCK_OP_REQUEST)
                        requested(p, h);
                else
                        refuse(p, h);
                return;
        }
        c->guest_room = h->buf_alloc;
        c->guest_taken = h->fwd_cnt;
        switch (h->op) {
        case VIRTIO_VSOCK_OP_RST:
                drop(p, c);
                return;
        case VIRTIO_VSOCK_OP_RESPONSE:
                answered(p, c);
                break;
        case VIRTIO_VSOCK_OP_RW:
                if (c->stage == OPEN)
                        take_data(p, c, data, length);
                break;
        case VIRTIO_VSOCK_OP_SHUTDOWN:
                ended(p, c, h->flags);
                break;
        case VIRTIO_VSOCK_OP_CREDIT_REQUEST:
                c->tell |= TELL_CREDIT;
                break;
        case VIRTIO_VSOCK_OP_CREDIT_UPDATE:
                break;
        default:
                reset(p, c);
        }
        settle(p, c);
}

/* One thing that the connection wants to tell, without data. */
static bool tell(struct conn *c, struct virtio_vsock_hdr *h)
{
        static const struct {
                unsigned what;
                uint16_t op;
        } order[] = {
                { TELL_RESET, VIRTIO_VSOCK_OP_RST },
                { TELL_REQUEST, VIRTIO_VSOCK_OP_REQUEST },
                { TELL_RESPONSE, VIRTIO_VSOCK_OP_RESPONSE },
                { TELL_SHUTDOWN, VIRTIO_VSOCK_OP_SHUTDOWN },
                { TELL_CREDIT, VIRTIO_VSOCK_OP_CREDIT_UPDATE },
        };
        for (unsigned i = 0; i < ELEMENTS(order); i++) {
                if (!(c->tell & order[i].what))
                        continue;
                c->tell &= ~order[i].what;
                h->op = order[i].op;
                if (h->op == VIRTIO_VSOCK_OP_SHUTDOWN)
                        h->flags = c->told_shutdown;
                return true;
        }
        return false;
}

static void fill(struct vsock_peers *p, struct conn *c, struct virtio_vsock_hdr *h)
{
        h->src_cid = VSOCK_HOST_CID;
        h->dst_cid = p->guest_cid;
        h->src_port = c->host_port;
        h->dst_port = c->guest_port;
        h->type = VIRTIO_VSOCK_TYPE_STREAM;
        h->buf_alloc = VSOCK_BUFFER;
        h->fwd_cnt = c->told_taken = c->taken;
}

bool vsock_peers_give(struct vsock_peers *p, const struct iovec *room, unsigned length, size_t size,
                      struct virtio_vsock_hdr *ret)
{
        if (p->resets_length) {
                *ret = p->resets[--p->resets_length];
                return true;
        }
        while (!list_empty(&p->speaking)) {
                struct conn *c = container_of(p->speaking.next, struct conn, turn);
                memset(ret, 0, sizeof(*ret));
                list_remove(&c->turn); /* settle() puts it behind the others */
                bool said = tell(c, ret);
                if (!said && may_read(c) && c->readable && credit(c) && size)
                        said = read_data(p, c, room, length, size, ret);
                if (!said) {
                        settle(p, c);
                        continue;
                }
                fill(p, c, ret);
                if (ret->op == VIRTIO_VSOCK_OP_RST)
                        drop(p, c);
                else
                        settle(p, c);
                return true;
        }
        return false;
}

/* ---- life ---- */

int vsock_peers_fd(const struct vsock_peers *p)
{
        return p->epoll_fd;
}

int vsock_listen(const char *path, int *ret_fd, struct err *err)
{
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        /* Room for "_4294967295". */
        if (strlen(path) + 11 >= sizeof(address.sun_path))
                return err_plain(err, ENAMETOOLONG, "vsock path '%s' is longer than %zu bytes",
                                 path, sizeof(address.sun_path) - 12);
        memcpy(address.sun_path, path, strlen(path));
        auto_fd fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
                return err_set(err, errno, "socket");
        if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
                return err_set(err, errno, "vsock path '%s'%s", path,
                               errno == EADDRINUSE ? " exists; remove it where no VM uses it" : "");
        if (listen(fd, 128) < 0) {
                int error = errno;
                unlink(path);
                return err_set(err, error, "listen at '%s'", path);
        }
        *ret_fd = take_fd(fd);
        return 0;
}

int vsock_peers_create(int listen_fd, const char *path, uint32_t guest_cid,
                       struct vsock_peers **ret, struct err *err)
{
        struct vsock_peers *p = new0(struct vsock_peers);
        p->guest_cid = guest_cid;
        p->listen_fd = listen_fd;
        p->path = xstrdup(path);
        list_init(&p->asking);
        list_init(&p->speaking);
        for (unsigned i = 0; i < BUCKETS; i++)
                list_init(&p->buckets[i]);
        p->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
        struct epoll_event event = { .events = EPOLLIN };
        if (p->epoll_fd < 0 || epoll_ctl(p->epoll_fd, EPOLL_CTL_ADD, listen_fd, &event) < 0) {
                int error = errno;
                vsock_peers_destroy(p);
                return err_set(err, error, "watch the vsock's socket");
        }
        *ret = p;
        return 0;
}

void vsock_peers_reset(struct vsock_peers *p)
{
        for (unsigned i = 0; i < BUCKETS; i++)
                list_for_each_safe (struct conn, c, &p->buckets[i], node)
                        drop(p, c);
        list_for_each_safe (struct conn, c, &p->asking, node)
                drop(p, c);
        p->resets_length = 0;
}

void vsock_peers_destroy(struct vsock_peers *p)
{
        if (!p)
                return;
        vsock_peers_reset(p);
        close_fd(&p->epoll_fd);
        free(p->path);
        free(p);
}
