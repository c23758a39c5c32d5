/* Answers: docker's errors, calls into the engine, and JSON by hand.
 *
 * docker's clients decide by the status code and show {"message": …} to the
 * user, so the errno of a failure chooses the status and its story is the
 * message, in docker's own words where docker has some.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "api/api.h"
#include "base/err.h"
#include "codec/json.h"
#include "http/server.h"

/* HTTP status for a failure: -ENOENT 404, -EEXIST and -EBUSY 409, -EINVAL 400,
 * -EALREADY 304, -EOPNOTSUPP 501, … else 500. `r` is negative. */
int api_status(int r);
/* Answers a failure. */
void api_fail(struct http_request *request, int r, const struct err *err);
/* Answers a bad argument (400). */
void api_fail_argument(struct http_request *request, const char *format, ...)
        __attribute__((format(printf, 2, 3)));
/* Answers what is not offered (501); the text says what to use instead. */
void api_fail_unsupported(struct http_request *request, const char *format, ...)
        __attribute__((format(printf, 2, 3)));
/* 204 without a body. */
void api_reply_nothing(struct http_request *request);

/* A number in the query; *ret keeps its value where absent or empty. Answers 400 and
 * returns false where it is not one. */
bool api_query_i64(struct http_request *request, const char *name, int64_t *ret);

/* Decodes a JSON body; answers 400 and returns false where it is not one. An empty
 * body is an empty object. */
bool api_body(struct http_request *request, struct json_object **ret);
/* As api_body, into a zeroed struct. */
bool api_body_decode(struct http_request *request, const struct json_shape *shape, void *out);

/* A request waiting for the engine. It outlives the client: `request` turns NULL
 * when the client goes, and whoever completes the call frees it. */
struct call {
        struct api *api;
        struct http_request *request;
};

struct call *call_create(struct api *api, struct http_request *request);
/* Frees it and returns the request to answer, or NULL where nobody listens. */
struct http_request *call_take(struct call *call);
/* An engine_done: 204, or the failure. `arg` is the call. */
void call_done(void *arg, int r, const struct err *err);

/* --- JSON by hand; keys must be string literals (they are not copied) --- */

/* NULL is "". */
void put_string(struct json_object *object, const char *key, const char *text);
void put_bool(struct json_object *object, const char *key, bool value);
void put_int(struct json_object *object, const char *key, int64_t value);
void put_double(struct json_object *object, const char *key, double value);
/* RFC 3339; 0 is Go's zero time, "0001-01-01T00:00:00Z". */
void put_time(struct json_object *object, const char *key, int64_t realtime_ns);
/* NULL is []. */
void put_strings(struct json_object *object, const char *key, char *const *strings);
/* A JSON_MAP vector; NULL is {}. */
void put_map(struct json_object *object, const char *key, char *const *map);
/* Takes the reference; NULL is null. */
void put_json(struct json_object *object, const char *key, struct json_object *value);
/* An empty object or array, added and returned (borrowed). */
struct json_object *put_object(struct json_object *object, const char *key);
struct json_object *put_array(struct json_object *object, const char *key);
/* Appends to an array. */
void push_string(struct json_object *array, const char *text);
void push_json(struct json_object *array, struct json_object *value);

/* Writes an object and a line end on a stream (docker's record streams); takes it. */
void stream_json(struct http_request *request, struct json_object *object);
