/* HTTP/1.1 server in the event loop.
 *
 * Requests are matched against a static table of routes; a route's `begin` is
 * called on the loop's thread and the request is answered then or at any later
 * time, exactly once, by one of:
 *
 *   http_reply, http_reply_json   a whole body, with Content-Length
 *   http_reply_fd                 everything a file or pipe yields
 *   http_stream_begin … _end      chunks as they come
 *   http_upgrade                  the connection itself (docker's hijack)
 *
 * A `struct http_request *` is valid from `begin` until its on-close callback,
 * or, where none is set, until the reply is finished or the client gone: a
 * handler that answers later sets http_request_on_close() before it returns
 * from `begin`, and forgets the pointer there. The callback is never called
 * from inside a reply function. Once the client is gone, reply and stream
 * functions still may be called until then and do nothing.
 *
 * A client that hangs up is noticed at once, also while nothing is sent or
 * received. As in dockerd, a client that shuts down its sending side counts as
 * gone, except on requests that asked for an upgrade.
 *
 * Nothing here blocks and a slow client delays nobody: output is queued, and
 * producers are told how much is (http_stream_write) or are simply not read
 * (http_reply_fd); request bodies stop being read while their pipe is full.
 *
 * Answered without a route: 404 {"message":"page not found"}, 405 with Allow,
 * 413 for a body beyond the limit, 400 and 431 for what is not proper HTTP.
 * HEAD is answered by the GET route with the body left out, unless HEAD has a
 * route of its own. Request heads are limited to HTTP_HEAD_LIMIT_BYTES.
 *
 * Single-threaded: everything belongs to the loop's thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "loop/loop.h"

#define HTTP_HEAD_LIMIT_BYTES (32u << 10)
#define HTTP_BODY_LIMIT_BYTES (8u << 20) /* of HTTP_BODY_BUFFERED */

struct json_object;
struct http_server;
struct http_request;

enum http_body {
        HTTP_BODY_NONE,     /* a body, if any, is thrown away */
        HTTP_BODY_BUFFERED, /* `begin` is called when the whole body is here */
        HTTP_BODY_PIPE,     /* `begin` is called at once, the body arrives on a pipe */
};

struct http_route {
        const char *method;
        /* "/containers/{id}/start". `{name}` is one segment, never empty, already
         * percent-decoded; `{name*}` one or more segments, slashes included. Of
         * several matching routes the first in the table wins. A leading version
         * segment ("/v1.44") is taken off before matching. */
        const char *pattern;
        void (*begin)(struct http_request *request, void *arg);
        enum http_body body;
        const void *data; /* the table owner's; see http_request_route() */
};

/* `routes` and `arg` must outlive the server. SIGPIPE is ignored from then on. */
int http_server_create(struct loop *loop, const struct http_route *routes, size_t length, void *arg,
                       struct http_server **ret, struct err *err);
/* Serves a listening Unix or TCP socket, which is taken over (also on failure). */
int http_server_listen(struct http_server *server, int fd, struct err *err);
/* Serves a socket that is connected already, which is taken over (also on failure). */
int http_server_adopt(struct http_server *server, int fd, struct err *err);
/* Descriptors that come with requests over Unix sockets are kept, up to HTTP_FDS_LIMIT a
 * connection, until a request takes them or the connection ends; else they are dropped. */
#define HTTP_FDS_LIMIT 33
void http_server_take_fds(struct http_server *server);
/* Not from inside a callback. Closes all listeners and connections; on-close callbacks are called.
 */
void http_server_destroy(struct http_server *server);

/* --- the request; strings live as long as it --- */

const char *http_request_method(const struct http_request *request);
/* Decoded path without the version segment: "/containers/json". */
const char *http_request_path(const struct http_request *request);
/* Path and query as sent, version segment included. */
const char *http_request_target(const struct http_request *request);
/* 44 for "/v1.44/…"; 0 without. */
unsigned http_request_version(const struct http_request *request);
const struct http_route *http_request_route(const struct http_request *request);

/* The part of the path a `{name}` matched; NULL where the pattern has no such. */
const char *http_request_param(const struct http_request *request, const char *name);
/* First value of a query key, decoded; "" for a key without value; NULL where absent. */
const char *http_request_query(const struct http_request *request, const char *name);
/* docker's booleans: absent, "", "0", "no", "false", "none" are false. */
bool http_request_query_bool(const struct http_request *request, const char *name, bool absent);
/* All values of repeated keys: start with *cursor = 0, NULL at the end. */
const char *http_query_next(const struct http_request *request, const char *name, size_t *cursor);
/* A header's value, name in any case; NULL where absent. */
const char *http_request_header(const struct http_request *request, const char *name);
/* Whether the client asked for a protocol upgrade. */
bool http_request_wants_upgrade(const struct http_request *request);

/* The body of a HTTP_BODY_BUFFERED route; NUL-terminated beyond *ret_size, never NULL. */
const char *http_request_body(const struct http_request *request, size_t *ret_size);
/* The read end of a HTTP_BODY_PIPE route's pipe, blocking mode, handed over: once
 * only, -1 afterwards. The end of file is the end of the body; whether it came
 * whole is http_request_body_complete(), on the loop's thread, afterwards. */
int http_request_body_fd(struct http_request *request);
bool http_request_body_complete(const struct http_request *request);

struct http_peer {
        pid_t pid;
        uid_t uid;
        gid_t gid;
};
/* Who connected, for Unix sockets; -ENODATA otherwise. */
int http_request_peer(const struct http_request *request, struct http_peer *ret);

/* The first descriptor that came with it, the caller's from here on; -1 where there is none. */
int http_request_take_fd(struct http_request *request);

void *http_request_data(const struct http_request *request);
void http_request_set_data(struct http_request *request, void *data);
/* Called once, when the reply is finished or the client gone; then the request
 * is dead. NULL takes it back. */
void http_request_on_close(struct http_request *request, void (*closed)(void *arg), void *arg);
/* Inside the on-close callback: whether the client went before the reply was out. */
bool http_request_aborted(const struct http_request *request);

/* --- the reply --- */

/* Adds a header to whichever reply follows. */
void http_reply_header(struct http_request *request, const char *name, const char *value);

/* Copies `data`. `content_type` may be NULL where there is no body (204, 304). */
void http_reply(struct http_request *request, int status, const char *content_type,
                const void *data, size_t size);
/* Takes over the reference to `object`. */
void http_reply_json(struct http_request *request, int status, struct json_object *object);
/* {"message": text}, docker's shape of an error. */
void http_reply_error(struct http_request *request, int status, const char *format, ...)
        __attribute__((format(printf, 3, 4)));
/* Streams what `fd` (taken over; pipe, socket or file) yields until its end:
 * a regular file with Content-Length from its current position, else in chunks.
 * A read error cuts the connection, so that the client cannot take it for the end. */
void http_reply_fd(struct http_request *request, int status, const char *content_type, int fd);

/* Sends the head; the body follows in chunks. */
void http_stream_begin(struct http_request *request, int status, const char *content_type);
/* Copies and queues; small writes are sent together in the loop's next round. Returns
 * the bytes now queued for this client: a producer stops at some limit of its own (say
 * 256 KiB) and goes on when told by on_drain; one that does not is cut off at 64 MiB.
 * Once the client is gone the data is dropped and 0 returned. */
size_t http_stream_write(struct http_request *request, const void *data, size_t size);
/* Calls `drained`, never from inside a write, every time the queue has run empty after
 * http_stream_begin() or a write. */
void http_stream_on_drain(struct http_request *request, void (*drained)(void *arg), void *arg);
void http_stream_end(struct http_request *request);
/* Cuts the connection instead of ending the stream properly. */
void http_stream_abort(struct http_request *request);

/* Answers "101 UPGRADED" (or, for a client that did not ask for an upgrade,
 * "200 OK" without length, as dockerd does) and then hands the connection over:
 * `opened` gets the descriptor (its own, non-blocking) when all of the head is
 * sent, with the bytes the client sent ahead. The descriptor may be passed to
 * another process and closed here; the server never shuts it down. -1 where the
 * client went first. The on-close callback follows `opened`. */
void http_upgrade(struct http_request *request, const char *content_type,
                  void (*opened)(void *arg, int fd, const void *early, size_t early_size),
                  void *arg);
