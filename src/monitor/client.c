#include "monitor/client.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/str.h"

#define FRAME_HEADER_SIZE 8

struct client *client_create(int fd, const struct monitor_message *attach)
{
        struct client *client = new0(struct client);
        fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
        client->source.fd = fd;
        client->flags = attach->flags;
        client->in_ended = !(attach->flags & MONITOR_ATTACH_IN);
        client->detach.length = attach->keys_size;
        memcpy(client->detach.keys, attach->keys, attach->keys_size);
        client->progress_ns = clock_monotonic_ns();
        list_init(&client->node);
        return client;
}

void client_destroy(struct client *client)
{
        if (!client)
                return;
        list_remove(&client->node);
        buf_finish(&client->queue);
        close_fd(&client->source.fd);
        free(client);
}

/* As much as the connection takes; the rest stays. Returns bytes sent or -errno. */
static ssize_t send_parts(struct client *client, struct iovec *parts, size_t length)
{
        struct msghdr msg = { .msg_iov = parts, .msg_iovlen = length };
        ssize_t n;
        do {
                n = sendmsg(client->source.fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
        } while (n < 0 && errno == EINTR);
        if (n < 0)
                return errno == EAGAIN ? 0 : -errno;
        return n;
}

static void frame_header(unsigned char header[FRAME_HEADER_SIZE], int stream, size_t size)
{
        memset(header, 0, FRAME_HEADER_SIZE);
        header[0] = (unsigned char)stream;
        for (int i = 0; i < 4; i++)
                header[4 + i] = (unsigned char)(size >> (24 - 8 * i));
}

void client_write(struct client *client, int stream, const void *data, size_t size, int64_t now_ns)
{
        unsigned wanted = stream == 2 ? MONITOR_ATTACH_ERR : MONITOR_ATTACH_OUT;
        if (client->dead || client->finishing || !(client->flags & wanted) || size == 0)
                return;
        unsigned char header[FRAME_HEADER_SIZE];
        frame_header(header, stream, size);
        size_t header_size = stream ? FRAME_HEADER_SIZE : 0;

        size_t sent = 0;
        if (client->queue.size == 0) {
                struct iovec parts[2] = { { header, header_size }, { (void *)data, size } };
                ssize_t n = send_parts(client, parts, ELEMENTS(parts));
                if (n < 0) {
                        client->dead = true;
                        return;
                }
                sent = (size_t)n;
                client->progress_ns = now_ns;
        }
        if (sent < header_size) {
                buf_append(&client->queue, header + sent, header_size - sent);
                sent = header_size;
        }
        buf_append(&client->queue, (const char *)data + (sent - header_size),
                   size - (sent - header_size));
}

static void shut_when_done(struct client *client, int64_t now_ns)
{
        if (client->finishing && !client->shut && client->queue.size == 0) {
                shutdown(client->source.fd, SHUT_WR);
                client->shut = true;
                client->progress_ns = now_ns;
        }
}

void client_flush(struct client *client, int64_t now_ns)
{
        if (client->queue.size) {
                struct iovec part = { client->queue.data, client->queue.size };
                ssize_t n = send_parts(client, &part, 1);
                if (n < 0) {
                        client->dead = true;
                        return;
                }
                if (n > 0) {
                        buf_consume(&client->queue, (size_t)n);
                        client->progress_ns = now_ns;
                }
        }
        shut_when_done(client, now_ns);
}

void client_finish(struct client *client, int64_t now_ns)
{
        client->finishing = true;
        client_flush(client, now_ns);
}

bool client_full(const struct client *client)
{
        return !client->dead && client->queue.size >= CLIENT_QUEUE_BYTES;
}

int64_t client_deadline(const struct client *client)
{
        if (client->shut)
                return client->progress_ns + CLIENT_LINGER_S * NS_PER_S;
        if (client_full(client) || client->finishing)
                return client->progress_ns + CLIENT_STALL_S * NS_PER_S;
        return 0;
}

uint32_t client_events(const struct client *client, bool input)
{
        uint32_t events = 0;
        if (client->shut || (input && !client->in_ended))
                events |= EPOLLIN; /* otherwise its input waits in the connection */
        if (client->queue.size)
                events |= EPOLLOUT;
        return events;
}
