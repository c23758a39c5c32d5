/* A server with a table of test routes whose loop runs on a thread of its own, so that
 * the tests' assertions stay on cmocka's thread. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>

#include "base/buf.h"
#include "http/client.h"
#include "http/server.h"

#define FIXTURE_DEADLINE_S 20

struct fixture {
        char directory[64];
        char path[96], url[112]; /* of the Unix socket */
        char tcp_url[64];
        struct loop *loop;
        struct http_server *server;
        struct http_client *client;

        /* What the routes saw. */
        atomic_int begun, closed, aborted;
        atomic_size_t queued_max;   /* GET /stream */
        atomic_int body_complete;   /* POST /progress: -1 not known yet */
        atomic_size_t writer_wrote; /* GET /pipe: bytes the producer got rid of */

        atomic_int threads; /* started by routes, still running */
};

int fixture_setup(void **state);
int fixture_teardown(void **state);

/* Waits until *counter >= wanted; fails the test after the deadline. */
void fixture_await(const atomic_int *counter, int wanted);

/* A plain connection with a receive timeout, and talk on it. */
int raw_connect(const struct fixture *fixture);
void raw_send(int fd, const char *text);
/* Appends until the text holds `mark` (NULL: until the end). */
void raw_receive(int fd, struct buf *text, const char *mark);
/* Sends, receives until the end, closes. */
void raw_exchange(const struct fixture *fixture, const char *text, struct buf *reply);

/* Byte at a position of the generated bodies. */
static inline char pattern_at(size_t position)
{
        return (char)('a' + (position * 7 + position / 251) % 26);
}
