/* JSON: strict parsing, and typed decode/encode driven by tables, on json-c.
 *
 * A struct that has a JSON form describes itself once, in a `struct json_shape`
 * (one row per member); decoding, encoding and freeing all come from that table:
 *
 *         struct user { uint32_t uid, gid; char **groups; };
 *         static const struct json_field user_fields[] = {
 *                 JSON_FIELD(struct user, "uid", JSON_UINT, uid, JSON_REQUIRED),
 *                 JSON_FIELD(struct user, "gid", JSON_UINT, gid, JSON_REQUIRED),
 *                 JSON_FIELD(struct user, "groups", JSON_STRV, groups, 0),
 *         };
 *         static const struct json_shape user_shape = JSON_SHAPE("user", struct user, user_fields);
 *
 *         struct user user = { 0 };
 *         r = json_decode_text(&user_shape, text, size, &user, err);
 *         ...
 *         json_free(&user_shape, &user);
 *
 * Rules of decoding: unknown keys are ignored; a null is the same as an absent
 * key; when a key appears twice the last one counts; key names are compared
 * exactly; numbers must fit the member (its size in the table decides the
 * range), "1.0" and "1e3" are not integers; a string holding U+0000 is refused,
 * so a C string is always the whole string. Errors carry the path of the value:
 * "process.args[2]: expected string, found number".
 *
 * Bounds: text of JSON_TEXT_SIZE_MAX bytes, JSON_DEPTH_MAX levels,
 * JSON_LENGTH_MAX elements in one array or object, and JSON_DECODE_BYTES_MAX
 * bytes of memory for one decoded value; beyond, a clean error.
 *
 * Ownership: json_decode allocates everything the struct points to; json_free
 * returns it. Functions that return `struct json_object *` return a reference
 * that the caller puts (`auto_json`). Not thread-safe on one object; no globals.
 * Links libjson-c only, so that isle-runtime can carry it statically.
 */
#pragma once

#include <json-c/json_object.h>
#include <json-c/linkhash.h> /* json_object_object_foreach */
#include <stdbool.h>
#include <stddef.h>

#include "base/auto.h"
#include "base/err.h"

#define JSON_TEXT_SIZE_MAX    ((size_t)16 << 20)
#define JSON_DEPTH_MAX        64
#define JSON_LENGTH_MAX       65536
#define JSON_DECODE_BYTES_MAX ((size_t)64 << 20)

/* Parses one whole JSON text (RFC 8259): UTF-8 is validated, nothing may follow
 * the value but blanks; no comments, NaN, single quotes or raw control
 * characters. The value may be of any type. */
int json_parse(const char *text, size_t size, struct json_object **ret, struct err *err);

static inline void auto_json_cleanup(struct json_object **object)
{
        json_object_put(*object);
}
/* auto_json object = NULL; */
#define auto_json CLEANUP(auto_json_cleanup) struct json_object *

/* What a member is in C, and in JSON. */
enum json_kind {
        JSON_BOOL,    /* bool */
        JSON_INT,     /* int8_t … int64_t: number */
        JSON_UINT,    /* uint8_t … uint64_t: number */
        JSON_DOUBLE,  /* double: number */
        JSON_STRING,  /* char *: string */
        JSON_STRV,    /* char **: array of strings */
        JSON_MAP,     /* char ** of "key=value" in order: object of strings */
        JSON_SET,     /* char ** of keys: object whose values do not matter, written as {} */
        JSON_STRUCT,  /* an embedded struct: object */
        JSON_POINTER, /* struct *, NULL when absent: object */
        JSON_ARRAY,   /* struct * and a size_t length: array of objects */
        JSON_KEYED,   /* struct * and a size_t length: object of objects. The first member of the
                       * struct is a `char *` outside its shape, which holds the key */
        JSON_UINTV,   /* unsigned integers (uint32_t * …) and a size_t length: array of numbers */
        JSON_ENUM,    /* int, through a table of names: string */
        JSON_ANY,     /* struct json_object *, kept by reference: anything */
};

#define JSON_REQUIRED   1  /* absence is an error; always written */
#define JSON_KEEP_EMPTY 2  /* written even when zero, NULL or empty: 0, false, "", [], {}, null */
#define JSON_OPTIONAL   4  /* extra_offset names a bool has_member, set when present */
#define JSON_NULL       8  /* with KEEP_EMPTY: a NULL pointer is written as null, not "", [], {} */
#define JSON_OR_STRING  16 /* JSON_STRV: a lone string is taken as an array of one */

struct json_shape;

struct json_field {
        const char *name;
        enum json_kind kind;
        unsigned flags;
        size_t offset;
        size_t size;         /* of the member; of one element for JSON_UINTV */
        size_t extra_offset; /* of the bool has_member, or of the size_t length */
        const struct json_shape *shape;
        const char *const *names; /* JSON_ENUM: ends with NULL; the index is the value. Where 0
                                   * means unset its name is "", which is read as absent */
};

struct json_shape {
        const char *name; /* for errors about the whole: "user: expected object, found array" */
        size_t size;      /* of the struct */
        const struct json_field *fields;
        size_t length;
};

#define JSON_SHAPE(text, type, table)                                                              \
        {                                                                                          \
                .name = (text), .size = sizeof(type), .fields = (table),                           \
                .length = sizeof(table) / sizeof((table)[0])                                       \
        }

#define JSON_MEMBER_SIZE_(type, member) sizeof(((type *)0)->member)
/* Offset of a member that must be of the given type; anything else does not compile. */
#define JSON_OFFSET_OF_(type, member, wanted)                                                      \
        (offsetof(type, member) +                                                                  \
         0 * sizeof(char[_Generic(((type *)0)->member, wanted : 1, default                         \
                                  : -1)]))

/* BOOL, INT, UINT, DOUBLE, STRING, STRV, MAP, SET, ANY */
#define JSON_FIELD(type, key, kind_, member, flags_)                                               \
        {                                                                                          \
                .name = (key), .kind = (kind_), .flags = (flags_),                                 \
                .offset = offsetof(type, member), .size = JSON_MEMBER_SIZE_(type, member)          \
        }

/* As above, with a `bool has_member` that tells absent from zero. */
#define JSON_FIELD_OPT(type, key, kind_, member, has_member)                                       \
        {                                                                                          \
                .name = (key), .kind = (kind_), .flags = JSON_OPTIONAL,                            \
                .offset = offsetof(type, member), .size = JSON_MEMBER_SIZE_(type, member),         \
                .extra_offset = JSON_OFFSET_OF_(type, has_member, bool)                            \
        }

#define JSON_FIELD_STRUCT(type, key, member, shape_, flags_)                                       \
        {                                                                                          \
                .name = (key), .kind = JSON_STRUCT, .flags = (flags_),                             \
                .offset = offsetof(type, member), .size = JSON_MEMBER_SIZE_(type, member),         \
                .shape = (shape_)                                                                  \
        }

#define JSON_FIELD_POINTER(type, key, member, shape_, flags_)                                      \
        {                                                                                          \
                .name = (key), .kind = JSON_POINTER, .flags = (flags_),                            \
                .offset = offsetof(type, member), .size = JSON_MEMBER_SIZE_(type, member),         \
                .shape = (shape_)                                                                  \
        }

#define JSON_FIELD_ARRAY(type, key, member, length_member, shape_, flags_)                         \
        {                                                                                          \
                .name = (key), .kind = JSON_ARRAY, .flags = (flags_),                              \
                .offset = offsetof(type, member), .size = JSON_MEMBER_SIZE_(type, member),         \
                .extra_offset = JSON_OFFSET_OF_(type, length_member, size_t), .shape = (shape_)    \
        }

#define JSON_FIELD_KEYED(type, key, member, length_member, shape_, flags_)                         \
        {                                                                                          \
                .name = (key), .kind = JSON_KEYED, .flags = (flags_),                              \
                .offset = offsetof(type, member), .size = JSON_MEMBER_SIZE_(type, member),         \
                .extra_offset = JSON_OFFSET_OF_(type, length_member, size_t), .shape = (shape_)    \
        }

#define JSON_FIELD_UINTV(type, key, member, length_member, flags_)                                 \
        {                                                                                          \
                .name = (key), .kind = JSON_UINTV, .flags = (flags_),                              \
                .offset = offsetof(type, member), .size = sizeof(*((type *)0)->member),            \
                .extra_offset = JSON_OFFSET_OF_(type, length_member, size_t)                       \
        }

#define JSON_FIELD_ENUM(type, key, member, names_, flags_)                                         \
        {                                                                                          \
                .name = (key), .kind = JSON_ENUM, .flags = (flags_),                               \
                .offset = offsetof(type, member), .size = JSON_MEMBER_SIZE_(type, member),         \
                .names = (names_)                                                                  \
        }

/* Decodes into *out, whose former content is overwritten (not freed). On failure
 * *out is all zero. */
int json_decode(const struct json_shape *shape, struct json_object *object, void *out,
                struct err *err);
int json_decode_text(const struct json_shape *shape, const char *text, size_t size, void *out,
                     struct err *err);

/* Frees what the members own and zeroes them; not the struct itself. */
void json_free(const struct json_shape *shape, void *value);

/* The caller puts the object. */
struct json_object *json_encode(const struct json_shape *shape, const void *value);
/* On the heap. `pretty` indents by two blanks. */
char *json_encode_text(const struct json_shape *shape, const void *value, bool pretty);

/* Text of any object, on the heap; slashes are not escaped. NULL is "null". */
char *json_text(struct json_object *object, bool pretty);

/* JSON_MAP vectors. An entry is split at its first '='. A '=' inside a key (rare,
 * but a label may have one) is held as JSON_MAP_EQUALS, an ASCII separator that
 * keys are not allowed to contain; the functions below translate, and encoding
 * restores it. */
#define JSON_MAP_EQUALS '\x1d'

/* The value of a key, or NULL. */
const char *json_map_get(char *const *map, const char *key);
/* Sets or replaces; *map may be NULL. */
void json_map_set(char ***map, const char *key, const char *value);
void json_map_remove(char **map, const char *key);
/* Key of an entry, on the heap, as it is in JSON; *ret_value points into the entry. */
char *json_map_split(const char *entry, const char **ret_value);
