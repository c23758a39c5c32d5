#include "api/reply.h"

#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/str.h"

int api_status(int r)
{
        static const struct {
                int code, status;
        } rows[] = {
                { ENOENT, 404 },     { EEXIST, 409 },   { EBUSY, 409 },        { ENOTEMPTY, 409 },
                { EINVAL, 400 },     { ERANGE, 400 },   { E2BIG, 413 },        { EALREADY, 304 },
                { EOPNOTSUPP, 501 }, { ENOSYS, 501 },   { EACCES, 403 },       { ECANCELED, 409 },
                { ENOEXEC, 400 },    { ENOTUNIQ, 400 }, { ENAMETOOLONG, 400 }, { EBADMSG, 400 },
        };
        for (size_t i = 0; i < ELEMENTS(rows); i++)
                if (rows[i].code == -r)
                        return rows[i].status;
        return 500;
}

void api_fail(struct http_request *request, int r, const struct err *err)
{
        int status = api_status(r);
        if (status == 304)
                http_reply(request, 304, NULL, NULL, 0);
        else
                http_reply_error(request, status, "%s", err_text(err));
}

__attribute__((format(printf, 3, 0))) static void failv(struct http_request *request, int status,
                                                        const char *format, va_list ap)
{
        auto_free char *text = xvasprintf(format, ap);
        http_reply_error(request, status, "%s", text);
}

void api_fail_argument(struct http_request *request, const char *format, ...)
{
        va_list ap;
        va_start(ap, format);
        failv(request, 400, format, ap);
        va_end(ap);
}

void api_fail_unsupported(struct http_request *request, const char *format, ...)
{
        va_list ap;
        va_start(ap, format);
        failv(request, 501, format, ap);
        va_end(ap);
}

void api_reply_nothing(struct http_request *request)
{
        http_reply(request, 204, NULL, NULL, 0);
}

bool api_query_i64(struct http_request *request, const char *name, int64_t *ret)
{
        const char *text = http_request_query(request, name);
        if (str_empty(text) || str_to_i64(text, ret) == 0)
                return true;
        api_fail_argument(request, "invalid value '%s' for %s: expected a number", text, name);
        return false;
}

bool api_body(struct http_request *request, struct json_object **ret)
{
        size_t size;
        const char *body = http_request_body(request, &size);
        struct err err = { 0 };
        if (size == 0) {
                *ret = json_object_new_object();
                return true;
        }
        auto_json object = NULL;
        int r = json_parse(body, size, &object, &err);
        if (r < 0 || !json_object_is_type(object, json_type_object)) {
                api_fail_argument(request, "invalid JSON: %s",
                                  r < 0 ? err_text(&err) : "expected an object");
                return false;
        }
        *ret = take_ptr(object);
        return true;
}

bool api_body_decode(struct http_request *request, const struct json_shape *shape, void *out)
{
        auto_json object = NULL;
        struct err err = { 0 };
        if (!api_body(request, &object))
                return false;
        if (json_decode(shape, object, out, &err) < 0) {
                api_fail_argument(request, "invalid JSON: %s", err_text(&err));
                return false;
        }
        return true;
}

static void call_closed(void *arg)
{
        struct call *call = arg;
        call->request = NULL;
}

struct call *call_create(struct api *api, struct http_request *request)
{
        struct call *call = new0(struct call);
        call->api = api;
        call->request = request;
        http_request_on_close(request, call_closed, call);
        return call;
}

struct http_request *call_take(struct call *call)
{
        struct http_request *request = call->request;
        if (request)
                http_request_on_close(request, NULL, NULL);
        free(call);
        return request;
}

void call_done(void *arg, int r, const struct err *err)
{
        struct http_request *request = call_take(arg);
        if (!request)
                return;
        if (r < 0)
                api_fail(request, r, err);
        else
                api_reply_nothing(request);
}

static void add(struct json_object *object, const char *key, struct json_object *value)
{
        json_object_object_add_ex(object, key, value,
                                  JSON_C_OBJECT_ADD_KEY_IS_NEW | JSON_C_OBJECT_KEY_IS_CONSTANT);
}

void put_string(struct json_object *object, const char *key, const char *text)
{
        add(object, key, json_object_new_string(text ? text : ""));
}

void put_bool(struct json_object *object, const char *key, bool value)
{
        add(object, key, json_object_new_boolean(value));
}

void put_int(struct json_object *object, const char *key, int64_t value)
{
        add(object, key, json_object_new_int64(value));
}

void put_double(struct json_object *object, const char *key, double value)
{
        add(object, key, json_object_new_double(value));
}

void put_time(struct json_object *object, const char *key, int64_t realtime_ns)
{
        char text[CLOCK_TEXT_SIZE] = "0001-01-01T00:00:00Z";
        if (realtime_ns)
                clock_format(realtime_ns, text);
        put_string(object, key, text);
}

void put_strings(struct json_object *object, const char *key, char *const *strings)
{
        struct json_object *array = put_array(object, key);
        for (; strings && *strings; strings++)
                push_string(array, *strings);
}

void put_map(struct json_object *object, const char *key, char *const *map)
{
        struct json_object *into = put_object(object, key);
        for (; map && *map; map++) {
                const char *value;
                auto_free char *name = json_map_split(*map, &value);
                json_object_object_add(into, name, json_object_new_string(value));
        }
}

void put_json(struct json_object *object, const char *key, struct json_object *value)
{
        add(object, key, value);
}

struct json_object *put_object(struct json_object *object, const char *key)
{
        struct json_object *value = json_object_new_object();
        add(object, key, value);
        return value;
}

struct json_object *put_array(struct json_object *object, const char *key)
{
        struct json_object *value = json_object_new_array();
        add(object, key, value);
        return value;
}

void push_string(struct json_object *array, const char *text)
{
        json_object_array_add(array, json_object_new_string(text));
}

void push_json(struct json_object *array, struct json_object *value)
{
        json_object_array_add(array, value);
}

void stream_json(struct http_request *request, struct json_object *object)
{
        size_t length;
        const char *text = json_object_to_json_string_length(
                object, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE, &length);
        auto_free char *line = xmalloc(length + 2);
        memcpy(line, text, length);
        memcpy(line + length, "\r\n", 2);
        http_stream_write(request, line, length + 2);
        json_object_put(object);
}
