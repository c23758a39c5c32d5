#include "cli/field.h"

#include <json-c/json_object.h>
#include <json-c/linkhash.h>
#include <string.h>

#include "base/auto.h"
#include "base/str.h"

#define KEY_SIZE_MAX 256
#define INDENT       4

/* Cuts the first part of a path off into `key`; NULL at the end. */
static const char *next_key(const char *path, char key[KEY_SIZE_MAX])
{
        if (!*path)
                return NULL;
        size_t length = strcspn(path, ".");
        size_t kept = length < KEY_SIZE_MAX ? length : KEY_SIZE_MAX - 1;
        memcpy(key, path, kept);
        key[kept] = '\0';
        return path + length + (path[length] == '.');
}

struct json_object *field_get(struct json_object *object, const char *path)
{
        char key[KEY_SIZE_MAX];
        while ((path = next_key(path, key))) {
                struct json_object *next = NULL;
                if (!json_object_is_type(object, json_type_object))
                        return NULL;
                json_object_object_get_ex(object, key, &next);
                object = next;
        }
        return object;
}

const char *field_text(struct json_object *object, const char *path)
{
        struct json_object *value = field_get(object, path);
        return json_object_is_type(value, json_type_string) ? json_object_get_string(value) : "";
}

int64_t field_int(struct json_object *object, const char *path)
{
        struct json_object *value = field_get(object, path);
        return json_object_is_type(value, json_type_int) ||
                               json_object_is_type(value, json_type_double)
                       ? json_object_get_int64(value)
                       : 0;
}

double field_double(struct json_object *object, const char *path)
{
        struct json_object *value = field_get(object, path);
        return json_object_is_type(value, json_type_int) ||
                               json_object_is_type(value, json_type_double)
                       ? json_object_get_double(value)
                       : 0;
}

bool field_bool(struct json_object *object, const char *path)
{
        struct json_object *value = field_get(object, path);
        return json_object_is_type(value, json_type_boolean) && json_object_get_boolean(value);
}

size_t field_length(struct json_object *object, const char *path)
{
        struct json_object *value = field_get(object, path);
        return json_object_is_type(value, json_type_array) ? json_object_array_length(value) : 0;
}

/* The object that holds the path's last key, which is copied to `key`. */
static struct json_object *make_way(struct json_object *object, const char *path,
                                    char key[KEY_SIZE_MAX])
{
        for (;;) {
                path = next_key(path, key);
                if (!path || !*path)
                        return object;
                struct json_object *next = NULL;
                if (!json_object_object_get_ex(object, key, &next) || !next) {
                        next = json_object_new_object();
                        json_object_object_add(object, key, next);
                }
                object = next;
        }
}

void field_set(struct json_object *object, const char *path, struct json_object *taken)
{
        char key[KEY_SIZE_MAX];
        struct json_object *holder = make_way(object, path, key);
        json_object_object_add(holder, key, taken);
}

void field_set_text(struct json_object *object, const char *path, const char *text)
{
        field_set(object, path, json_object_new_string(text));
}

void field_add(struct json_object *object, const char *path, struct json_object *taken)
{
        char key[KEY_SIZE_MAX];
        struct json_object *holder = make_way(object, path, key), *array = NULL;
        if (!json_object_object_get_ex(holder, key, &array)) {
                array = json_object_new_array();
                json_object_object_add(holder, key, array);
        }
        json_object_array_add(array, taken);
}

/* --- pretty --- */

static void put_line(struct buf *out, int depth)
{
        buf_printf(out, "\n%*s", depth * INDENT, "");
}

static void put_scalar(struct buf *out, struct json_object *value)
{
        buf_puts(out, json_object_to_json_string_ext(
                              value, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
}

static void pretty(struct buf *out, struct json_object *value, int depth)
{
        size_t at = 0;
        if (json_object_is_type(value, json_type_array)) {
                buf_putc(out, '[');
                for (; at < json_object_array_length(value); at++) {
                        buf_puts(out, at ? "," : "");
                        put_line(out, depth + 1);
                        pretty(out, json_object_array_get_idx(value, at), depth + 1);
                }
                if (at)
                        put_line(out, depth);
                buf_putc(out, ']');
        } else if (json_object_is_type(value, json_type_object)) {
                buf_putc(out, '{');
                json_object_object_foreach(value, key, member)
                {
                        struct json_object *name = json_object_new_string(key);
                        buf_puts(out, at++ ? "," : "");
                        put_line(out, depth + 1);
                        put_scalar(out, name);
                        json_object_put(name);
                        buf_puts(out, ": ");
                        pretty(out, member, depth + 1);
                }
                if (at)
                        put_line(out, depth);
                buf_putc(out, '}');
        } else if (value) {
                put_scalar(out, value);
        } else {
                buf_puts(out, "null");
        }
}

void field_pretty(struct buf *out, struct json_object *value)
{
        pretty(out, value, 0);
}
