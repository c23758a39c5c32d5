/* A small blocking HTTP/1.1 client for the command line, over Unix and TCP
 * sockets; no library beneath, since loading one would take longer than a call.
 *
 * A client keeps at most one idle connection and uses it again where the server
 * allows. Exchanges are independent of each other and may overlap: a second one
 * opens its own connection. Not thread-safe; one client per thread.
 *
 * Bounds: the head of a reply HTTP_CLIENT_HEAD_LIMIT_BYTES, a body read by
 * http_call() HTTP_CLIENT_BODY_LIMIT_BYTES. A reply that ends early is -EPIPE,
 * one that is not HTTP is -EBADMSG.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/err.h"

#define HTTP_CLIENT_HEAD_LIMIT_BYTES (64u << 10)
#define HTTP_CLIENT_BODY_LIMIT_BYTES (64u << 20)

struct http_client;
struct http_exchange;

/* "unix:///path" or "tcp://host:port" ("http://host:port" is the same). Connects
 * only when first used: then errors name the address and the remedy. */
int http_client_create(const char *url, struct http_client **ret, struct err *err);
void http_client_destroy(struct http_client *client);

/* The next request to a Unix socket carries copies of these, at most HTTP_CLIENT_FDS_LIMIT;
 * they stay the caller's, and open until then. */
#define HTTP_CLIENT_FDS_LIMIT 253 /* SCM_MAX_FD of the kernel: of one message */
void http_client_pass_fds(struct http_client *client, const int *fds, unsigned length);

/* --- a whole call --- */

struct http_response {
        int status;
        char **headers; /* "Name: value" in order of arrival */
        char *body;     /* NUL-terminated beyond `size` */
        size_t size;
};

void http_response_finish(struct http_response *response);
/* A header's value (within the response), name in any case; NULL where absent. */
const char *http_response_header(const struct http_response *response, const char *name);

/* Returns 0 for whatever status; the caller judges it. `content_type` and `body`
 * may be NULL. */
int http_call(struct http_client *client, const char *method, const char *target,
              const char *content_type, const void *body, size_t size, struct http_response *ret,
              struct err *err);

/* --- a call in steps --- */

#define HTTP_CHUNKED ((size_t)-1) /* as `size`: the body follows by http_exchange_write() */

/* Sends the request head, and the body unless it is HTTP_CHUNKED. `headers` is a
 * NULL-terminated vector of "Name: value", may be NULL. Host and the framing
 * headers are added here. An upgrade is asked for by http_upgrade_headers. */
int http_exchange_begin(struct http_client *client, const char *method, const char *target,
                        char *const *headers, const void *body, size_t size,
                        struct http_exchange **ret, struct err *err);
/* "Connection: Upgrade", "Upgrade: tcp". */
extern char *const http_upgrade_headers[];

/* Legal at any time; an unfinished exchange closes its connection. */
void http_exchange_end(struct http_exchange *exchange);

/* Parts of a HTTP_CHUNKED body. -EPIPE where the server stopped listening: it may
 * well have answered, so go on with http_exchange_status(). */
int http_exchange_write(struct http_exchange *exchange, const void *data, size_t size,
                        struct err *err);
int http_exchange_write_end(struct http_exchange *exchange, struct err *err);

/* The status of the reply; waits for its head the first time. */
int http_exchange_status(struct http_exchange *exchange, struct err *err);
/* After the status is known. */
const char *http_exchange_header(const struct http_exchange *exchange, const char *name);

/* Body bytes, decoded: up to `size`, blocking for at least one. 0 at the end. */
ssize_t http_exchange_read(struct http_exchange *exchange, void *data, size_t size,
                           struct err *err);

/* For poll(2): the socket, and whether http_exchange_read() has something (or the
 * end) without it. A readable socket may still hold only framing: then a read
 * blocks until a byte comes, which servers send together. */
int http_exchange_fd(const struct http_exchange *exchange);
bool http_exchange_buffered(const struct http_exchange *exchange);

/* After status 101, or 200 of a server that just switches: takes the connection
 * over. `early` receives what had arrived already. The descriptor is blocking. */
int http_exchange_hijack(struct http_exchange *exchange, int *ret_fd, struct buf *early,
                         struct err *err);
