#include <inttypes.h>
#include <json-c/json_object_iterator.h>
#include <math.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/str.h"
#include "codec/json.h"

#define PATH_TEXT_MAX   200
#define ALLOCATION_COST 24 /* what a small allocation takes besides its bytes */

/* Where we are, as a chain through the callers' frames. */
struct place {
        const struct place *up; /* NULL at the root */
        const char *key;        /* NULL: an array element */
        size_t index;
};

struct decoding {
        size_t bytes_left; /* of JSON_DECODE_BYTES_MAX */
        const char *root;  /* name of the outermost shape */
        struct err *err;
};

static int decode_members(struct decoding *d, const struct place *at,
                          const struct json_shape *shape, struct json_object *object, char *out);

/* Keys come from strangers: nothing unprintable, nothing endless. */
static void path_append(struct buf *buf, const struct place *at)
{
        if (!at->up && !at->key)
                return;
        if (at->up)
                path_append(buf, at->up);
        if (!at->key) {
                buf_printf(buf, "[%zu]", at->index);
                return;
        }
        if (buf->size > 0)
                buf_putc(buf, '.');
        for (const char *c = at->key; *c; c++)
                buf_putc(buf, (unsigned char)*c < 0x20 || *c == 0x7f ? '?' : *c);
}

static int fail(struct decoding *d, const struct place *at, int code, const char *format, ...)
        __attribute__((format(printf, 4, 5)));

static int fail(struct decoding *d, const struct place *at, int code, const char *format, ...)
{
        auto_buf path = { 0 };
        auto_buf story = { 0 };
        va_list ap;

        path.limit_bytes = PATH_TEXT_MAX;
        path_append(&path, at);
        va_start(ap, format);
        buf_vprintf(&story, format, ap);
        va_end(ap);
        return err_plain(d->err, code, "%s: %s", path.size > 0 ? buf_text(&path) : d->root,
                         buf_text(&story));
}

static const char *type_name(struct json_object *value)
{
        switch (json_object_get_type(value)) {
        case json_type_null:
                return "null";
        case json_type_boolean:
                return "boolean";
        case json_type_double:
        case json_type_int:
                return "number";
        case json_type_object:
                return "object";
        case json_type_array:
                return "array";
        case json_type_string:
                return "string";
        }
        return "nothing";
}

static int expect(struct decoding *d, const struct place *at, struct json_object *value,
                  enum json_type wanted, const char *wanted_name)
{
        if (json_object_is_type(value, wanted))
                return 0;
        return fail(d, at, EBADMSG, "expected %s, found %s", wanted_name, type_name(value));
}

/* Charges the budget before memory is taken. */
static int charge(struct decoding *d, const struct place *at, size_t count, size_t size)
{
        if (count > JSON_LENGTH_MAX)
                return fail(d, at, E2BIG, "%zu elements are more than the limit of %d", count,
                            JSON_LENGTH_MAX);
        size_t bytes = count * size;
        if (bytes > d->bytes_left)
                return fail(d, at, E2BIG, "the whole needs more memory than the limit of %zu bytes",
                            JSON_DECODE_BYTES_MAX);
        d->bytes_left -= bytes;
        return 0;
}

static int decode_text(struct decoding *d, const struct place *at, struct json_object *value,
                       char **out)
{
        int r = expect(d, at, value, json_type_string, "string");
        if (r < 0)
                return r;
        size_t size = (size_t)json_object_get_string_len(value);
        const char *text = json_object_get_string(value);
        if (memchr(text, 0, size))
                return fail(d, at, EBADMSG, "NUL in a string");
        r = charge(d, at, 1, size + ALLOCATION_COST);
        if (r < 0)
                return r;
        *out = xmemdup(text, size + 1);
        return 0;
}

/* Range of an integer member of `size` bytes. */
static int64_t signed_max(size_t size)
{
        return (int64_t)(UINT64_MAX >> (65 - 8 * size));
}

static uint64_t unsigned_max(size_t size)
{
        return UINT64_MAX >> (64 - 8 * size);
}

static void store_integer(void *out, size_t size, uint64_t bits)
{
        switch (size) {
        case 1:
                *(uint8_t *)out = (uint8_t)bits;
                break;
        case 2:
                *(uint16_t *)out = (uint16_t)bits;
                break;
        case 4:
                *(uint32_t *)out = (uint32_t)bits;
                break;
        case 8:
                *(uint64_t *)out = bits;
                break;
        default:
                abort(); /* the table is wrong */
        }
}

static int expect_integer(struct decoding *d, const struct place *at, struct json_object *value)
{
        if (json_object_is_type(value, json_type_double))
                return fail(d, at, EBADMSG, "expected an integer, found %s",
                            json_object_get_string(value));
        return expect(d, at, value, json_type_int, "number");
}

static int decode_int(struct decoding *d, const struct place *at, struct json_object *value,
                      size_t size, void *out)
{
        int r = expect_integer(d, at, value);
        if (r < 0)
                return r;
        int64_t number = json_object_get_int64(value);
        int64_t max = signed_max(size);
        bool huge = number > 0 && json_object_get_uint64(value) > INT64_MAX;
        if (huge || number > max || number < -max - 1)
                return fail(d, at, ERANGE, "%s is out of the range %" PRId64 " … %" PRId64,
                            json_object_get_string(value), -max - 1, max);
        store_integer(out, size, (uint64_t)number);
        return 0;
}

static int decode_uint(struct decoding *d, const struct place *at, struct json_object *value,
                       size_t size, void *out)
{
        int r = expect_integer(d, at, value);
        if (r < 0)
                return r;
        uint64_t number = json_object_get_uint64(value);
        if (json_object_get_int64(value) < 0 || number > unsigned_max(size))
                return fail(d, at, ERANGE, "%s is out of the range 0 … %" PRIu64,
                            json_object_get_string(value), unsigned_max(size));
        store_integer(out, size, number);
        return 0;
}

static int decode_double(struct decoding *d, const struct place *at, struct json_object *value,
                         double *out)
{
        if (!json_object_is_type(value, json_type_int) &&
            !json_object_is_type(value, json_type_double))
                return fail(d, at, EBADMSG, "expected number, found %s", type_name(value));
        double number = json_object_get_double(value);
        if (!isfinite(number))
                return fail(d, at, ERANGE, "number is too large");
        *out = number;
        return 0;
}

static int decode_enum(struct decoding *d, const struct place *at, const struct json_field *field,
                       struct json_object *value, int *out)
{
        int r = expect(d, at, value, json_type_string, "string");
        if (r < 0)
                return r;
        const char *text = json_object_get_string(value);
        for (int i = 0; field->names[i]; i++) {
                if (!streq(field->names[i], text))
                        continue;
                if (*text == '\0' && (field->flags & JSON_REQUIRED))
                        break;
                *out = i;
                return 0;
        }
        auto_buf known = { 0 };
        for (int i = 0; field->names[i]; i++)
                if (*field->names[i])
                        buf_printf(&known, "%s%s", known.size > 0 ? ", " : "", field->names[i]);
        return fail(d, at, EBADMSG, "unknown value '%.100s' (known: %s)", text, buf_text(&known));
}

static int decode_strv(struct decoding *d, const struct place *at, const struct json_field *field,
                       struct json_object *value, char ***out)
{
        if ((field->flags & JSON_OR_STRING) && json_object_is_type(value, json_type_string)) {
                *out = xcalloc(2, sizeof(char *));
                return decode_text(d, at, value, &(*out)[0]);
        }
        int r = expect(d, at, value, json_type_array, "array");
        if (r < 0)
                return r;
        size_t length = json_object_array_length(value);
        r = charge(d, at, length, sizeof(char *));
        if (r < 0)
                return r;
        char **v = *out = xcalloc(length + 1, sizeof(char *));
        for (size_t i = 0; i < length; i++) {
                struct place element = { .up = at, .index = i };
                r = decode_text(d, &element, json_object_array_get_idx(value, i), &v[i]);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* The key of a map or set entry, checked; '=' replaced where a map needs it. */
static int decode_key(struct decoding *d, const struct place *at, const char *key)
{
        if (strchr(key, JSON_MAP_EQUALS))
                return fail(d, at, EBADMSG, "control character in a key");
        return charge(d, at, 1, strlen(key) + ALLOCATION_COST);
}

static int decode_map(struct decoding *d, const struct place *at, struct json_object *value,
                      char ***out)
{
        int r = expect(d, at, value, json_type_object, "object");
        if (r < 0)
                return r;
        size_t length = (size_t)json_object_object_length(value), i = 0;
        r = charge(d, at, length, sizeof(char *));
        if (r < 0)
                return r;
        char **map = *out = xcalloc(length + 1, sizeof(char *));
        json_object_object_foreach(value, key, member)
        {
                struct place element = { .up = at, .key = key };
                auto_free char *text = NULL;
                r = decode_key(d, &element, key);
                if (r < 0)
                        return r;
                if (member) { /* a null is an empty string, as in Go */
                        r = decode_text(d, &element, member, &text);
                        if (r < 0)
                                return r;
                }
                char *entry = map[i++] = xasprintf("%s=%s", key, text ? text : "");
                for (size_t c = 0; key[c]; c++)
                        if (entry[c] == '=')
                                entry[c] = JSON_MAP_EQUALS;
        }
        return 0;
}

static int decode_set(struct decoding *d, const struct place *at, struct json_object *value,
                      char ***out)
{
        int r = expect(d, at, value, json_type_object, "object");
        if (r < 0)
                return r;
        size_t length = (size_t)json_object_object_length(value), i = 0;
        r = charge(d, at, length, sizeof(char *));
        if (r < 0)
                return r;
        char **set = *out = xcalloc(length + 1, sizeof(char *));
        struct json_object_iterator it = json_object_iter_begin(value);
        struct json_object_iterator end = json_object_iter_end(value);
        for (; !json_object_iter_equal(&it, &end); json_object_iter_next(&it)) {
                const char *key = json_object_iter_peek_name(&it);
                struct place element = { .up = at, .key = key };
                r = decode_key(d, &element, key);
                if (r < 0)
                        return r;
                set[i++] = xstrdup(key);
        }
        return 0;
}

static int decode_array(struct decoding *d, const struct place *at, const struct json_shape *shape,
                        struct json_object *value, void **out, size_t *out_length)
{
        int r = expect(d, at, value, json_type_array, "array");
        if (r < 0)
                return r;
        size_t length = json_object_array_length(value);
        r = charge(d, at, length, shape->size);
        if (r < 0 || length == 0)
                return r;
        char *elements = *out = xcalloc(length, shape->size);
        *out_length = length;
        for (size_t i = 0; i < length; i++) {
                struct place element = { .up = at, .index = i };
                r = decode_members(d, &element, shape, json_object_array_get_idx(value, i),
                                   elements + i * shape->size);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int decode_keyed(struct decoding *d, const struct place *at, const struct json_shape *shape,
                        struct json_object *value, void **out, size_t *out_length)
{
        int r = expect(d, at, value, json_type_object, "object");
        if (r < 0)
                return r;
        size_t length = (size_t)json_object_object_length(value), i = 0;
        r = charge(d, at, length, shape->size);
        if (r < 0 || length == 0)
                return r;
        char *elements = *out = xcalloc(length, shape->size);
        *out_length = length;
        json_object_object_foreach(value, key, member)
        {
                char *element = elements + i++ * shape->size;
                struct place place = { .up = at, .key = key };
                r = decode_key(d, &place, key);
                if (r < 0)
                        return r;
                *(char **)element = xstrdup(key);
                if (!member)
                        continue;
                r = decode_members(d, &place, shape, member, element);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int decode_uintv(struct decoding *d, const struct place *at, size_t size,
                        struct json_object *value, void **out, size_t *out_length)
{
        int r = expect(d, at, value, json_type_array, "array");
        if (r < 0)
                return r;
        size_t length = json_object_array_length(value);
        r = charge(d, at, length, size);
        if (r < 0 || length == 0)
                return r;
        char *numbers = *out = xcalloc(length, size);
        *out_length = length;
        for (size_t i = 0; i < length; i++) {
                struct place element = { .up = at, .index = i };
                r = decode_uint(d, &element, json_object_array_get_idx(value, i), size,
                                numbers + i * size);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int decode_pointer(struct decoding *d, const struct place *at,
                          const struct json_shape *shape, struct json_object *value, void **out)
{
        int r = expect(d, at, value, json_type_object, "object");
        if (r < 0)
                return r;
        r = charge(d, at, 1, shape->size);
        if (r < 0)
                return r;
        *out = xcalloc(1, shape->size);
        return decode_members(d, at, shape, value, *out);
}

static int decode_field(struct decoding *d, const struct place *at, const struct json_field *field,
                        struct json_object *value, char *out)
{
        void *member = out + field->offset;
        size_t *length = (size_t *)(void *)(out + field->extra_offset);
        int r;

        switch (field->kind) {
        case JSON_BOOL:
                r = expect(d, at, value, json_type_boolean, "boolean");
                if (r == 0)
                        *(bool *)member = json_object_get_boolean(value);
                return r;
        case JSON_INT:
                return decode_int(d, at, value, field->size, member);
        case JSON_UINT:
                return decode_uint(d, at, value, field->size, member);
        case JSON_DOUBLE:
                return decode_double(d, at, value, member);
        case JSON_STRING:
                return decode_text(d, at, value, member);
        case JSON_STRV:
                return decode_strv(d, at, field, value, member);
        case JSON_MAP:
                return decode_map(d, at, value, member);
        case JSON_SET:
                return decode_set(d, at, value, member);
        case JSON_STRUCT:
                return decode_members(d, at, field->shape, value, member);
        case JSON_POINTER:
                return decode_pointer(d, at, field->shape, value, member);
        case JSON_ARRAY:
                return decode_array(d, at, field->shape, value, member, length);
        case JSON_KEYED:
                return decode_keyed(d, at, field->shape, value, member, length);
        case JSON_UINTV:
                return decode_uintv(d, at, field->size, value, member, length);
        case JSON_ENUM:
                return decode_enum(d, at, field, value, member);
        case JSON_ANY:
                *(struct json_object **)member = json_object_get(value);
                return 0;
        }
        abort(); /* the table is wrong */
}

static int decode_members(struct decoding *d, const struct place *at,
                          const struct json_shape *shape, struct json_object *object, char *out)
{
        int r = expect(d, at, object, json_type_object, "object");
        if (r < 0)
                return r;
        for (size_t i = 0; i < shape->length; i++) {
                const struct json_field *field = &shape->fields[i];
                struct place member = { .up = at, .key = field->name };
                struct json_object *value = NULL;

                json_object_object_get_ex(object, field->name, &value);
                if (!value) {
                        if (field->flags & JSON_REQUIRED)
                                return fail(d, &member, EBADMSG, "is missing");
                        continue;
                }
                r = decode_field(d, &member, field, value, out);
                if (r < 0)
                        return r;
                if (field->flags & JSON_OPTIONAL)
                        *(bool *)(out + field->extra_offset) = true;
        }
        return 0;
}

int json_decode(const struct json_shape *shape, struct json_object *object, void *out,
                struct err *err)
{
        struct decoding d = { JSON_DECODE_BYTES_MAX, shape->name, err };
        struct place root = { 0 };

        memset(out, 0, shape->size);
        int r = decode_members(&d, &root, shape, object, out);
        if (r < 0)
                json_free(shape, out);
        return r;
}

int json_decode_text(const struct json_shape *shape, const char *text, size_t size, void *out,
                     struct err *err)
{
        auto_json object = NULL;

        memset(out, 0, shape->size);
        int r = json_parse(text, size, &object, err);
        if (r < 0) {
                err_wrap(err, "%s", shape->name);
                return r;
        }
        return json_decode(shape, object, out, err);
}
