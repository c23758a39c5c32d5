#include <ctype.h>
#include <errno.h>
#include <json-c/json_object.h>
#include <json-c/linkhash.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "base/str.h"
#include "cli/template_tree.h"

#define PRINT_DEPTH_MAX  64
#define PAD_MAX          1024
#define PRINTF_WIDTH_MAX 1024

/* --- values --- */

struct value pool_value(struct template_pool *pool, struct json_object *taken)
{
        if (pool->length == pool->capacity) {
                pool->capacity = pool->capacity ? pool->capacity * 2 : 16;
                pool->objects = xrealloc(pool->objects, pool->capacity, sizeof(*pool->objects));
        }
        pool->objects[pool->length++] = taken;
        return (struct value){ .json = taken };
}

struct value pool_string(struct template_pool *pool, const char *text, size_t size)
{
        return pool_value(pool, json_object_new_string_len(text, (int)size));
}

static struct value pool_bool(struct template_pool *pool, bool truth)
{
        return pool_value(pool, json_object_new_boolean(truth));
}

static struct value pool_int(struct template_pool *pool, int64_t number)
{
        return pool_value(pool, json_object_new_int64(number));
}

bool value_true(struct value value)
{
        switch (json_object_get_type(value.json)) {
        case json_type_null:
                return false;
        case json_type_boolean:
                return json_object_get_boolean(value.json);
        case json_type_int:
                return json_object_get_int64(value.json) != 0;
        case json_type_double:
                return json_object_get_double(value.json) != 0;
        case json_type_string:
                return json_object_get_string_len(value.json) > 0;
        case json_type_array:
                return json_object_array_length(value.json) > 0;
        case json_type_object:
                return json_object_object_length(value.json) > 0;
        }
        return false;
}

const char *value_type(struct value value)
{
        switch (json_object_get_type(value.json)) {
        case json_type_null:
                return "nil";
        case json_type_boolean:
                return "bool";
        case json_type_int:
                return "int64";
        case json_type_double:
                return "float64";
        case json_type_string:
                return "string";
        case json_type_array:
                return "[]interface {}";
        case json_type_object:
                return "map[string]interface {}";
        }
        return "nil";
}

/* --- printing --- */

static int compare_keys(const void *a, const void *b)
{
        return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void print_value(struct buf *out, struct json_object *value, int depth);

static void print_object(struct buf *out, struct json_object *object, int depth)
{
        size_t length = 0;
        auto_free const char **keys = xcalloc((size_t)json_object_object_length(object) + 1,
                                              sizeof(*keys));
        json_object_object_foreach(object, key, ignored)
        {
                (void)ignored;
                keys[length++] = key;
        }
        qsort(keys, length, sizeof(*keys), compare_keys);
        buf_puts(out, "map[");
        for (size_t i = 0; i < length; i++) {
                struct json_object *member = NULL;
                json_object_object_get_ex(object, keys[i], &member);
                buf_printf(out, "%s%s:", i ? " " : "", keys[i]);
                print_value(out, member, depth + 1);
        }
        buf_putc(out, ']');
}

static void print_double(struct buf *out, double number)
{
        /* The shortest text that reads back the same. */
        char text[40];
        for (int digits = 1; digits <= 17; digits++) {
                snprintf(text, sizeof(text), "%.*g", digits, number);
                if (strtod(text, NULL) == number)
                        break;
        }
        buf_puts(out, text);
}

static void print_value(struct buf *out, struct json_object *value, int depth)
{
        if (depth > PRINT_DEPTH_MAX)
                return;
        switch (json_object_get_type(value)) {
        case json_type_null:
                buf_puts(out, "<nil>");
                break;
        case json_type_boolean:
                buf_puts(out, json_object_get_boolean(value) ? "true" : "false");
                break;
        case json_type_int:
                buf_printf(out, "%lld", (long long)json_object_get_int64(value));
                break;
        case json_type_double:
                print_double(out, json_object_get_double(value));
                break;
        case json_type_string:
                buf_append(out, json_object_get_string(value),
                           (size_t)json_object_get_string_len(value));
                break;
        case json_type_array:
                buf_putc(out, '[');
                for (size_t i = 0; i < json_object_array_length(value); i++) {
                        if (i)
                                buf_putc(out, ' ');
                        print_value(out, json_object_array_get_idx(value, i), depth + 1);
                }
                buf_putc(out, ']');
                break;
        case json_type_object:
                print_object(out, value, depth);
                break;
        }
}

void template_print(struct buf *out, struct json_object *value)
{
        print_value(out, value, 0);
}

static const char *text_of(struct value value)
{
        return json_object_is_type(value.json, json_type_string)
                       ? json_object_get_string(value.json)
                       : NULL;
}

/* --- logic --- */

static int call_and(struct template_pool *pool, const struct value *v, size_t length,
                    struct value *ret, struct err *err)
{
        (void)pool, (void)err;
        size_t i = 0;
        while (i + 1 < length && value_true(v[i]))
                i++;
        *ret = v[i];
        return 0;
}

static int call_or(struct template_pool *pool, const struct value *v, size_t length,
                   struct value *ret, struct err *err)
{
        (void)pool, (void)err;
        size_t i = 0;
        while (i + 1 < length && !value_true(v[i]))
                i++;
        *ret = v[i];
        return 0;
}

static int call_not(struct template_pool *pool, const struct value *v, size_t length,
                    struct value *ret, struct err *err)
{
        (void)length, (void)err;
        *ret = pool_bool(pool, !value_true(v[0]));
        return 0;
}

static bool is_number(struct value value)
{
        return json_object_is_type(value.json, json_type_int) ||
               json_object_is_type(value.json, json_type_double);
}

/* Order of two values: -1, 0, 1; -EINVAL where they do not compare. */
static int compare(struct value a, struct value b, int *ret)
{
        if (is_number(a) && is_number(b)) {
                double x = json_object_get_double(a.json), y = json_object_get_double(b.json);
                *ret = (x > y) - (x < y);
                return 0;
        }
        if (text_of(a) && text_of(b)) {
                int order = strcmp(text_of(a), text_of(b));
                *ret = (order > 0) - (order < 0);
                return 0;
        }
        return -EINVAL;
}

static bool equal(struct value a, struct value b)
{
        int order;
        if (compare(a, b, &order) == 0)
                return order == 0;
        if (json_object_get_type(a.json) != json_object_get_type(b.json))
                return false;
        return json_object_equal(a.json, b.json);
}

static int call_eq(struct template_pool *pool, const struct value *v, size_t length,
                   struct value *ret, struct err *err)
{
        (void)err;
        bool any = false;
        for (size_t i = 1; i < length; i++)
                any = any || equal(v[0], v[i]);
        *ret = pool_bool(pool, any);
        return 0;
}

static int call_ne(struct template_pool *pool, const struct value *v, size_t length,
                   struct value *ret, struct err *err)
{
        (void)length, (void)err;
        *ret = pool_bool(pool, !equal(v[0], v[1]));
        return 0;
}

static int ordered(const struct value *v, int *ret, struct err *err)
{
        if (compare(v[0], v[1], ret) < 0)
                return err_plain(err, EINVAL, "incompatible types for comparison");
        return 0;
}

#define DEFINE_ORDER(name, test)                                                                   \
        static int name(struct template_pool *pool, const struct value *v, size_t length,          \
                        struct value *ret, struct err *err)                                        \
        {                                                                                          \
                int order = 0;                                                                     \
                int r = ordered(v, &order, err);                                                   \
                (void)length;                                                                      \
                if (r == 0)                                                                        \
                        *ret = pool_bool(pool, order test 0);                                      \
                return r;                                                                          \
        }

DEFINE_ORDER(call_lt, <)
DEFINE_ORDER(call_le, <=)
DEFINE_ORDER(call_gt, >)
DEFINE_ORDER(call_ge, >=)

/* --- collections --- */

static int index_step(struct template_pool *pool, struct value from, struct value key,
                      struct value *ret, struct err *err)
{
        if (from.missing || !from.json) {
                *ret = (struct value){ .missing = true };
                return 0;
        }
        if (json_object_is_type(from.json, json_type_object)) {
                struct json_object *member = NULL;
                if (!text_of(key))
                        return err_plain(err, EINVAL, "map index must be a string");
                if (json_object_object_get_ex(from.json, text_of(key), &member))
                        *ret = (struct value){ .json = member };
                else
                        *ret = pool_string(pool, "", 0);
                return 0;
        }
        if (!json_object_is_type(key.json, json_type_int))
                return err_plain(err, EINVAL, "cannot index %s with type %s", value_type(from),
                                 value_type(key));
        int64_t at = json_object_get_int64(key.json);
        int64_t length = -1;
        if (json_object_is_type(from.json, json_type_array))
                length = (int64_t)json_object_array_length(from.json);
        else if (text_of(from))
                length = json_object_get_string_len(from.json);
        else
                return err_plain(err, EINVAL, "can't index item of type %s", value_type(from));
        if (at < 0 || at >= length)
                return err_plain(err, ERANGE, "error calling index: index out of range: %lld",
                                 (long long)at);
        if (text_of(from))
                *ret = pool_int(pool, (unsigned char)text_of(from)[at]);
        else
                *ret = (struct value){ .json = json_object_array_get_idx(from.json, (size_t)at) };
        return 0;
}

static int call_index(struct template_pool *pool, const struct value *v, size_t length,
                      struct value *ret, struct err *err)
{
        struct value from = v[0];
        for (size_t i = 1; i < length; i++) {
                int r = index_step(pool, from, v[i], &from, err);
                if (r < 0)
                        return r;
        }
        *ret = from;
        return 0;
}

static int call_len(struct template_pool *pool, const struct value *v, size_t length,
                    struct value *ret, struct err *err)
{
        (void)length;
        if (text_of(v[0]))
                *ret = pool_int(pool, json_object_get_string_len(v[0].json));
        else if (json_object_is_type(v[0].json, json_type_array))
                *ret = pool_int(pool, (int64_t)json_object_array_length(v[0].json));
        else if (json_object_is_type(v[0].json, json_type_object))
                *ret = pool_int(pool, json_object_object_length(v[0].json));
        else
                return err_plain(err, EINVAL, "len of type %s", value_type(v[0]));
        return 0;
}

static int call_slice(struct template_pool *pool, const struct value *v, size_t length,
                      struct value *ret, struct err *err)
{
        int64_t size, bounds[2];
        if (text_of(v[0]))
                size = json_object_get_string_len(v[0].json);
        else if (json_object_is_type(v[0].json, json_type_array))
                size = (int64_t)json_object_array_length(v[0].json);
        else
                return err_plain(err, EINVAL, "can't slice item of type %s", value_type(v[0]));
        bounds[0] = length > 1 ? json_object_get_int64(v[1].json) : 0;
        bounds[1] = length > 2 ? json_object_get_int64(v[2].json) : size;
        if (bounds[0] < 0 || bounds[1] > size || bounds[0] > bounds[1])
                return err_plain(err, ERANGE, "index out of range");
        if (text_of(v[0])) {
                *ret = pool_string(pool, text_of(v[0]) + bounds[0],
                                   (size_t)(bounds[1] - bounds[0]));
                return 0;
        }
        struct json_object *part = json_object_new_array();
        for (int64_t i = bounds[0]; i < bounds[1]; i++)
                json_object_array_add(
                        part, json_object_get(json_object_array_get_idx(v[0].json, (size_t)i)));
        *ret = pool_value(pool, part);
        return 0;
}

static int call_join(struct template_pool *pool, const struct value *v, size_t length,
                     struct value *ret, struct err *err)
{
        (void)length;
        const char *between = text_of(v[1]);
        auto_buf text = { 0 };
        if (v[0].json && !json_object_is_type(v[0].json, json_type_array))
                return err_plain(err, EINVAL, "expected a list, got %s", value_type(v[0]));
        if (!between)
                return err_plain(err, EINVAL, "separator must be a string");
        for (size_t i = 0; v[0].json && i < json_object_array_length(v[0].json); i++) {
                if (i)
                        buf_puts(&text, between);
                template_print(&text, json_object_array_get_idx(v[0].json, i));
        }
        *ret = pool_string(pool, buf_text(&text), text.size);
        return 0;
}

static int call_split(struct template_pool *pool, const struct value *v, size_t length,
                      struct value *ret, struct err *err)
{
        (void)length;
        const char *text = text_of(v[0]), *between = text_of(v[1]);
        if (!text || str_empty(between))
                return err_plain(err, EINVAL, "expected two strings");
        struct json_object *parts = json_object_new_array();
        for (const char *found; (found = strstr(text, between)); text = found + strlen(between))
                json_object_array_add(parts, json_object_new_string_len(text, (int)(found - text)));
        json_object_array_add(parts, json_object_new_string(text));
        *ret = pool_value(pool, parts);
        return 0;
}

static int call_json(struct template_pool *pool, const struct value *v, size_t length,
                     struct value *ret, struct err *err)
{
        (void)length, (void)err;
        const char *text = json_object_to_json_string_ext(
                v[0].json, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);
        *ret = pool_string(pool, text ? text : "null", strlen(text ? text : "null"));
        return 0;
}

/* --- text --- */

enum letter_case { LOWER, UPPER, TITLE };

static int change_case(struct template_pool *pool, const struct value *v, enum letter_case wanted,
                       struct value *ret, struct err *err)
{
        const char *text = text_of(v[0]);
        if (!text)
                return err_plain(err, EINVAL, "expected string, got %s", value_type(v[0]));
        auto_free char *copy = xstrdup(text);
        bool first = true;
        for (char *at = copy; *at; at++) {
                bool up = wanted == UPPER || (wanted == TITLE && first);
                bool down = wanted == LOWER;
                first = !isalnum((unsigned char)*at) && *at != '\'' && *at != '_';
                *at = (char)(up     ? toupper((unsigned char)*at)
                             : down ? tolower((unsigned char)*at)
                                    : *at);
        }
        *ret = pool_string(pool, copy, strlen(copy));
        return 0;
}

static int call_lower(struct template_pool *pool, const struct value *v, size_t length,
                      struct value *ret, struct err *err)
{
        (void)length;
        return change_case(pool, v, LOWER, ret, err);
}

static int call_upper(struct template_pool *pool, const struct value *v, size_t length,
                      struct value *ret, struct err *err)
{
        (void)length;
        return change_case(pool, v, UPPER, ret, err);
}

static int call_title(struct template_pool *pool, const struct value *v, size_t length,
                      struct value *ret, struct err *err)
{
        (void)length;
        return change_case(pool, v, TITLE, ret, err);
}

static int call_pad(struct template_pool *pool, const struct value *v, size_t length,
                    struct value *ret, struct err *err)
{
        (void)length;
        const char *text = text_of(v[0]);
        int64_t before = json_object_get_int64(v[1].json), after = json_object_get_int64(v[2].json);
        if (!text || before < 0 || after < 0 || before > PAD_MAX || after > PAD_MAX)
                return err_plain(err, EINVAL, "expected a string and two small numbers");
        if (!*text) { /* as docker's: nothing stays nothing */
                *ret = pool_string(pool, "", 0);
                return 0;
        }
        auto_free char *padded = xasprintf("%*s%s%*s", (int)before, "", text, (int)after, "");
        *ret = pool_string(pool, padded, strlen(padded));
        return 0;
}

static int call_truncate(struct template_pool *pool, const struct value *v, size_t length,
                         struct value *ret, struct err *err)
{
        (void)length;
        const char *text = text_of(v[0]);
        int64_t most = json_object_get_int64(v[1].json);
        if (!text || most < 0)
                return err_plain(err, EINVAL, "expected a string and a number");
        size_t size = strlen(text);
        *ret = pool_string(pool, text, (size_t)most < size ? (size_t)most : size);
        return 0;
}

static int call_print(struct template_pool *pool, const struct value *v, size_t length,
                      struct value *ret, struct err *err)
{
        (void)err;
        auto_buf text = { 0 };
        for (size_t i = 0; i < length; i++) {
                if (i && !text_of(v[i]) && !text_of(v[i - 1]))
                        buf_putc(&text, ' ');
                template_print(&text, v[i].json);
        }
        *ret = pool_string(pool, buf_text(&text), text.size);
        return 0;
}

static int call_println(struct template_pool *pool, const struct value *v, size_t length,
                        struct value *ret, struct err *err)
{
        (void)err;
        auto_buf text = { 0 };
        for (size_t i = 0; i < length; i++) {
                if (i)
                        buf_putc(&text, ' ');
                template_print(&text, v[i].json);
        }
        buf_putc(&text, '\n');
        *ret = pool_string(pool, buf_text(&text), text.size);
        return 0;
}

/* --- printf --- */

/* One conversion: "%-5.2f" is flags "-", width 5, precision 2, verb 'f'. */
struct conversion {
        char flags[8];
        int width, precision; /* -1: none */
        char verb;
};

static int read_small(const char **at)
{
        int value = 0;
        for (; **at >= '0' && **at <= '9'; (*at)++)
                value = value > PRINTF_WIDTH_MAX ? value : value * 10 + (**at - '0');
        return value > PRINTF_WIDTH_MAX ? PRINTF_WIDTH_MAX : value;
}

/* *at is behind the '%'; moves past the verb. */
static struct conversion read_conversion(const char **at)
{
        struct conversion c = { .width = -1, .precision = -1 };
        size_t flags = 0;
        for (; **at && strchr("-+# 0", **at); (*at)++)
                if (flags + 1 < sizeof(c.flags) && !strchr(c.flags, **at))
                        c.flags[flags++] = **at;
        if (**at >= '0' && **at <= '9')
                c.width = read_small(at);
        if (**at == '.') {
                (*at)++;
                c.precision = read_small(at);
        }
        c.verb = **at;
        if (**at)
                (*at)++;
        return c;
}

static void put_padded(struct buf *out, const struct conversion *c, const char *text)
{
        int width = c->width < 0 ? 0 : c->width;
        buf_printf(out, strchr(c->flags, '-') ? "%-*s" : "%*s", width, text);
}

static void put_number(struct buf *out, const struct conversion *c, struct value value)
{
        /* The verb is one of "dxXocfeEgG": the format is made of checked parts. */
        char format[32], text[PRINTF_WIDTH_MAX * 2 + 400];
        bool whole = strchr("dxXoc", c->verb) != NULL;
        snprintf(format, sizeof(format), "%%%s*%s%s%c", c->flags, c->precision < 0 ? "" : ".*",
                 whole && c->verb != 'c' ? "ll" : "", c->verb);
        int width = c->width < 0 ? 0 : c->width;
        long long number = json_object_get_int64(value.json);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        if (c->verb == 'c')
                snprintf(text, sizeof(text), "%*c", width, (int)(number & 0x7f));
        else if (whole && c->precision < 0)
                snprintf(text, sizeof(text), format, width, number);
        else if (whole)
                snprintf(text, sizeof(text), format, width, c->precision, number);
        else if (c->precision < 0)
                snprintf(text, sizeof(text), format, width, json_object_get_double(value.json));
        else
                snprintf(text, sizeof(text), format, width, c->precision,
                         json_object_get_double(value.json));
#pragma GCC diagnostic pop
        buf_puts(out, text);
}

static void put_quoted(struct buf *out, const struct conversion *c, const char *text)
{
        struct json_object *string = json_object_new_string(text);
        put_padded(out, c,
                   json_object_to_json_string_ext(string, JSON_C_TO_STRING_PLAIN |
                                                                  JSON_C_TO_STRING_NOSLASHESCAPE));
        json_object_put(string);
}

static void put_conversion(struct buf *out, const struct conversion *c, struct value value)
{
        auto_buf text = { 0 };
        template_print(&text, value.json);
        if (c->precision >= 0 && c->verb == 's' && (size_t)c->precision < text.size) {
                text.data[c->precision] = '\0';
                text.size = (size_t)c->precision;
        }
        bool whole = json_object_is_type(value.json, json_type_int);
        if (strchr("sv", c->verb))
                put_padded(out, c, buf_text(&text));
        else if (c->verb == 'q')
                put_quoted(out, c, buf_text(&text));
        else if (c->verb == 't' && json_object_is_type(value.json, json_type_boolean))
                put_padded(out, c, buf_text(&text));
        else if (strchr("dxXoc", c->verb) && whole)
                put_number(out, c, value);
        else if (strchr("feEgG", c->verb) && json_object_is_type(value.json, json_type_double))
                put_number(out, c, value);
        else
                buf_printf(out, "%%!%c(%s=%s)", c->verb, value_type(value), buf_text(&text));
}

static int call_printf(struct template_pool *pool, const struct value *v, size_t length,
                       struct value *ret, struct err *err)
{
        const char *at = text_of(v[0]);
        auto_buf text = { 0 };
        size_t used = 1;
        if (!at)
                return err_plain(err, EINVAL, "format must be a string");
        while (*at) {
                if (*at != '%') {
                        buf_putc(&text, *at++);
                        continue;
                }
                at++;
                struct conversion c = read_conversion(&at);
                if (c.verb == '%')
                        buf_putc(&text, '%');
                else if (!c.verb)
                        buf_puts(&text, "%!(NOVERB)");
                else if (used >= length)
                        buf_printf(&text, "%%!%c(MISSING)", c.verb);
                else
                        put_conversion(&text, &c, v[used++]);
        }
        if (used < length)
                buf_puts(&text, "%!(EXTRA)");
        *ret = pool_string(pool, buf_text(&text), text.size);
        return 0;
}

static const struct template_function functions[] = {
        { "and", 1, -1, call_and },       { "eq", 2, -1, call_eq },
        { "ge", 2, 2, call_ge },          { "gt", 2, 2, call_gt },
        { "index", 1, -1, call_index },   { "join", 2, 2, call_join },
        { "json", 1, 1, call_json },      { "le", 2, 2, call_le },
        { "len", 1, 1, call_len },        { "lower", 1, 1, call_lower },
        { "lt", 2, 2, call_lt },          { "ne", 2, 2, call_ne },
        { "not", 1, 1, call_not },        { "or", 1, -1, call_or },
        { "pad", 3, 3, call_pad },        { "print", 0, -1, call_print },
        { "printf", 1, -1, call_printf }, { "println", 0, -1, call_println },
        { "slice", 1, 3, call_slice },    { "split", 2, 2, call_split },
        { "title", 1, 1, call_title },    { "truncate", 2, 2, call_truncate },
        { "upper", 1, 1, call_upper },
};

const struct template_function *template_function_find(const char *name, size_t length)
{
        for (size_t i = 0; i < ELEMENTS(functions); i++)
                if (strlen(functions[i].name) == length &&
                    memcmp(functions[i].name, name, length) == 0)
                        return &functions[i];
        return NULL;
}
