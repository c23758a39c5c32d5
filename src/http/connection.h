/* Inside of the HTTP server: what its files share. server.h is the door.
 *
 * Theory of operation. A connection is a socket in the loop with two byte queues and
 * at most one request. connection_run() is the only place where a connection moves on:
 * every event (socket, body pipe, reply file, timer) notes what happened and calls it.
 * It takes heads off the input (request_create), feeds the body to where the route
 * wants it (body_feed), calls the route's `begin`, flushes, and when a reply is out
 * closes the request and goes on with what the client had sent behind it. Reply
 * functions, called by handlers at any moment, only queue, may try to send, and arm
 * the socket; they never close or free anything, so no caller loses its footing.
 *
 * Input is read only while somebody wants it: a head is awaited, or a body's pipe has
 * room. That is all the back-pressure there is; the kernel's socket buffer and the
 * client do the rest. With nobody reading, EPOLLRDHUP and EPOLLHUP still tell that the
 * client has gone.
 *
 * Closing. Where the client may still be sending (a reply came before the body's end),
 * close(2) at once would reset the connection and could destroy the reply under way:
 * the socket is shut down for sending, and input discarded until the client closes
 * (LINGER_*).
 *
 * Why not libmicrohttpd, which design section 4 names: as of 0.9.75 it refuses to
 * queue a reply while a request body is arriving (MHD_queue_response fails), but
 * docker load, cp and build answer and fail while they upload, and a chunked body
 * beyond the limit must get its 413 before it ends; it cannot hand over a connection
 * whose client did not ask for an upgrade, as docker's older clients do; and it brings
 * GnuTLS, which costs 2.8 MB resident and 5 ms of each start.
 */
#pragma once

#include "base/buf.h"
#include "base/list.h"
#include "http/route.h"
#include "http/server.h"
#include "http/wire.h"

#define READ_SIZE_BYTES      (64u << 10)
#define HEAD_READ_SIZE_BYTES (8u << 10)
#define SENDFILE_SIZE_BYTES  (1u << 20)  /* per round, so that others get their turn */
#define FLUSH_SIZE_BYTES     (64u << 10) /* queued stream data that is sent at once */
#define OUT_LIMIT_BYTES      (64u << 20) /* of stream data; a producer beyond ignores its client */
#define PIPE_SIZE_BYTES      (256u << 10)
#define KEPT_CAPACITY_BYTES  (16u << 10) /* a queue that grew larger is freed when empty */
#define HEAD_TIMEOUT_NS      (30 * NS_PER_S)
#define BODY_TIMEOUT_NS      (120 * NS_PER_S) /* without a byte */
#define IDLE_TIMEOUT_NS      (300 * NS_PER_S)
#define LINGER_TIMEOUT_NS    (2 * NS_PER_S)
#define LINGER_LIMIT_BYTES   (64u << 20)
#define CONNECTIONS_LIMIT    4096u
#define ACCEPTS_PER_ROUND    16
#define ACCEPT_PAUSE_NS      (100 * NS_PER_MS)

struct http_server {
        struct loop *loop;
        const struct http_route *routes;
        size_t routes_length;
        void *arg; /* of the routes */
        bool takes_fds;

        struct list listeners;
        struct list connections;
        unsigned connections_length;

        struct loop_source *sweep;  /* timer for the connections' deadlines */
        int64_t sweep_at_ns;        /* 0: disarmed */
        struct loop_source *resume; /* timer after which accepting goes on */

        char date[40]; /* of the Date field */
        int64_t date_s;
};

struct connection {
        struct list node;
        struct http_server *server;
        int fd;
        struct loop_source *source;
        uint32_t events; /* that `source` waits for */

        int fds[HTTP_FDS_LIMIT]; /* received, not taken */
        unsigned fds_length;

        struct buf in;  /* received, not consumed */
        size_t scanned; /* of `in`, by wire_head_size() */
        struct buf out; /* to be sent from out_sent on */
        size_t out_sent;

        struct http_request *request; /* being received or answered; or NULL */
        bool running;                 /* connection_run() is at work further up the stack */
        bool broken;                  /* of no more use: close it */
        bool peer_shut;               /* the client's sending side is shut (EPOLLRDHUP) */
        bool peer_end;                /* …and all of it was read */
        bool closing;                 /* close after what is queued */
        bool head_started;            /* part of a head is here */
        bool lingering;
        size_t lingered_bytes;
        int64_t deadline_ns; /* to be closed then; 0: none */
};

struct query_pair {
        const char *name, *value;
};

struct http_request {
        struct connection *connection;
        struct wire_head head;
        char *head_text; /* what `head` points into */
        char *path;      /* decoded, without version */
        unsigned version;
        struct route_match match; /* route NULL: `refusal` is the answer */
        int refusal;              /* status */
        struct buf allow;         /* of a 405 */
        char *query_text;
        struct query_pair *query;
        size_t query_length;

        /* The body. */
        bool begun;     /* `begin` was called, or an error answered instead */
        bool body_done; /* received whole */
        uint64_t body_received;
        uint64_t body_remaining; /* WIRE_LENGTH */
        struct wire_chunks chunks;
        struct buf body; /* HTTP_BODY_BUFFERED; HTTP_BODY_PIPE: what the pipe had no room for */
        int pipe_read, pipe_write;
        struct loop_source *pipe_source; /* on pipe_write, while it is full */
        bool pipe_closed;                /* nobody reads it any more */

        /* The reply. */
        struct buf fields; /* added by http_reply_header() */
        bool replied;      /* its head is queued */
        bool bodiless;     /* HEAD, 204, 304: body bytes are dropped */
        bool chunked;
        bool last;     /* the connection closes behind it */
        bool finished; /* all of it is queued */
        bool drain_owed;
        int file; /* of http_reply_fd(), or -1 */
        bool file_is_regular;
        uint64_t file_remaining;
        struct loop_source *file_source; /* not for regular files */

        void (*drained)(void *arg);
        void *drained_arg;
        bool upgrading;
        void (*opened)(void *arg, int fd, const void *early, size_t early_size);
        void *opened_arg;
        void (*closed)(void *arg);
        void *closed_arg;
        bool aborted;
        void *data;
};

/* connection.c */

/* Takes over `fd`. */
int connection_create(struct http_server *server, int fd, struct err *err);
void connection_abort(struct connection *connection);
/* Moves on as far as possible; may free the connection. */
void connection_run(struct connection *connection);
/* For reply functions: sends now if `now`, and sees that the rest follows. */
void connection_kick(struct connection *connection, bool now);
size_t connection_queued(const struct connection *connection);
/* Sets the time after which the connection is closed, 0 for never. */
void connection_set_deadline(struct connection *connection, int64_t delay_ns);

/* request.c */

/* From a whole head of `size` bytes. On failure (err set, code -EBADMSG or -E2BIG)
 * there is no request. */
int request_create(struct connection *connection, const char *text, size_t size,
                   struct http_request **ret);
void request_route(struct http_request *request);
/* Answers a request that has no route. */
void request_refuse(struct http_request *request);
/* Calls `opened` (with -1 unless handed over) and `closed` as owed, and frees. */
void request_close(struct http_request *request, bool aborted);

/* body.c */

/* Prepares for the body the head announces. */
void body_start(struct http_request *request);
/* Consumes input; calls `begin` when it is time. */
void body_feed(struct http_request *request);
bool body_wants_input(const struct http_request *request);
/* The client will send no more. */
void body_end(struct http_request *request);
void body_finish(struct http_request *request);

/* reply.c */

/* Sends from the reply's file, where there is one; the output queue is empty. */
void reply_pump(struct http_request *request);
void reply_finish(struct http_request *request);
