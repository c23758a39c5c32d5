/* Talking to isled: the Docker Engine API, as the commands need it.
 *
 * Failures read as docker's users know them: "Error response from daemon: …" for
 * what it refuses (the code says which kind: -ENOENT for 404, -EEXIST for 409,
 * -EREMOTEIO otherwise; cli->http_status has the number), "Cannot connect to the
 * Isle daemon at …" where nobody listens.
 */
#pragma once

#include <stddef.h>

#include "base/buf.h"
#include "base/err.h"
#include "cli/command.h"
#include "http/client.h"

struct json_object;

#define DAEMON_API_VERSION "1.44"
#define DAEMON_ERROR       "Error response from daemon: "

/* --- request targets --- */

/* "/containers/%s/json": only %s, and its arguments are percent-encoded ("/", ":"
 * and "@" stay, for names of images). The version is put in front. */
void target_set(struct buf *target, const char *format, ...);
/* Without the version prefix: what docker's API has not. */
void target_set_own(struct buf *target, const char *format, ...);
void target_add(struct buf *target, const char *name, const char *value);
/* "name=1" if `yes`. */
void target_add_flag(struct buf *target, const char *name, bool yes);
/* --filter key=value …, as the API's `filters`; an err where one has no "=". */
int target_add_filters(struct buf *target, char *const *filters, struct err *err);

/* --- calls --- */

/* A whole call. The reply's JSON is given to *ret (may be NULL; NULL is stored where
 * the reply has no body). Statuses below 400 are success. */
int daemon_call(struct cli *cli, const char *method, const struct buf *target,
                struct json_object *body, struct json_object **ret, struct err *err);

/* A call whose reply is a stream: returns once the head of a good reply is here. */
int daemon_begin(struct cli *cli, const char *method, const struct buf *target,
                 char *const *headers, struct json_object *body, struct http_exchange **ret,
                 struct err *err);
/* As above, with a chunked body to be written first; then daemon_check(). */
int daemon_upload(struct cli *cli, const char *method, const struct buf *target,
                  char *const *headers, struct http_exchange **ret, struct err *err);
/* Waits for the head of the reply and turns a bad status into the error. */
int daemon_check(struct cli *cli, struct http_exchange *exchange, struct err *err);
/* Sends the request without waiting; daemon_check() follows. */
int daemon_send(struct cli *cli, const char *method, const struct buf *target, char *const *headers,
                struct json_object *body, struct http_exchange **ret, struct err *err);

static inline void auto_exchange_cleanup(struct http_exchange **exchange)
{
        http_exchange_end(*exchange);
}
#define auto_exchange __attribute__((cleanup(auto_exchange_cleanup))) struct http_exchange *

/* All that is left of the body, parsed; NULL where it is empty. */
int daemon_read_json(struct http_exchange *exchange, struct json_object **ret, struct err *err);
/* Copies the body to a descriptor. */
int daemon_copy_body(struct http_exchange *exchange, int fd, struct err *err);

/* A stream of JSON messages, one a line. */
struct daemon_lines {
        struct http_exchange *exchange; /* borrowed */
        struct buf pending;
};
/* 1 and a new reference, 0 at the end. Blocks. */
int daemon_next(struct daemon_lines *lines, struct json_object **ret, struct err *err);
void daemon_lines_finish(struct daemon_lines *lines);
/* Whether daemon_next() has a whole line without reading. */
bool daemon_line_ready(const struct daemon_lines *lines);

/* --- many objects at once --- */

/* Sends one request for each name at the same time (`stop a b c` takes as long as
 * the slowest) and prints, in order, each name that succeeded, or its
 * error; the names that failed are appended to *failed (may be NULL). `format` as target_set, with
 * one %s; `query` is appended as it is. Returns the exit status: 0, or 1 where any failed. */
int daemon_each(struct cli *cli, const char *method, const char *format, const char *query,
                char *const *names, char ***failed);
