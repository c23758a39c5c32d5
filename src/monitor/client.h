/* Attach clients: connections that isled handed over.
 *
 * Output is framed (docker's 8-byte stream header; raw with a tty), sent at once
 * as far as the socket takes it, and queued beyond. A client whose queue holds
 * more than CLIENT_QUEUE_BYTES is `full`: the instance's output is then not read,
 * so that nothing is lost and memory stays bounded. A full client that takes
 * nothing for CLIENT_STALL_S seconds is dropped: nobody may hold up an instance,
 * its log or the other clients for longer.
 *
 * A client ends by: its hang-up, its detach keys, the end of the instance. In the
 * last case the queue is sent out first, then our side is shut down, and input is
 * thrown away until the client closes (bounded by CLIENT_LINGER_S), so that the
 * end of the output is never lost to a connection reset.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/list.h"
#include "monitor/detach.h"
#include "monitor/protocol.h"
#include "monitor/source.h"

#define CLIENT_QUEUE_BYTES (1u << 20)
#define CLIENT_STALL_S     30
#define CLIENT_LINGER_S    2

struct client {
        struct source source; /* source.fd is the connection */
        struct list node;
        unsigned flags; /* MONITOR_ATTACH_… */
        bool in_ended;  /* no more input comes */
        bool finishing; /* close when the queue is empty */
        bool shut;      /* our side is shut down */
        bool dead;      /* to be removed by the monitor */
        struct detach detach;
        struct buf queue;
        int64_t progress_ns; /* monotonic: when it last took something, or had nothing to take */
};

/* Takes `fd`. */
struct client *client_create(int fd, const struct monitor_message *attach);
void client_destroy(struct client *client);

/* Output for it; `stream` is 1 or 2, 0 for raw. */
void client_write(struct client *client, int stream, const void *data, size_t size, int64_t now_ns);
/* Sends what is queued. */
void client_flush(struct client *client, int64_t now_ns);
/* No more output comes. */
void client_finish(struct client *client, int64_t now_ns);
bool client_full(const struct client *client);
/* When the client's patience ends (monotonic), or 0 while it owes nothing. */
int64_t client_deadline(const struct client *client);
/* What to wait for on its connection; `input` whether input can be taken. */
uint32_t client_events(const struct client *client, bool input);
