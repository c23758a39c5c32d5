#include <stdint.h>

#include "base/str.h"
#include "codec/json.h"

static struct json_object *encode_members(const struct json_shape *shape, const char *value);

/* json-c answers NULL when memory is exhausted, which is fatal here (STYLE rule 11). */
static struct json_object *must(struct json_object *object)
{
        if (!object)
                abort();
        return object;
}

/* A member as read from the struct. The json_object functions copy. */
static uint64_t load_unsigned(const void *member, size_t size)
{
        switch (size) {
        case 1:
                return *(const uint8_t *)member;
        case 2:
                return *(const uint16_t *)member;
        case 4:
                return *(const uint32_t *)member;
        case 8:
                return *(const uint64_t *)member;
        default:
                abort(); /* the table is wrong */
        }
}

static int64_t load_signed(const void *member, size_t size)
{
        uint64_t bits = load_unsigned(member, size);
        unsigned shift = (unsigned)(64 - 8 * size);
        return (int64_t)(bits << shift) >> shift;
}

static const char *enum_name(const struct json_field *field, int value)
{
        for (int i = 0; field->names[i]; i++)
                if (i == value)
                        return field->names[i];
        return "";
}

static struct json_object *encode_strv(char *const *v)
{
        struct json_object *array = must(json_object_new_array());
        for (; v && *v; v++)
                json_object_array_add(array, must(json_object_new_string(*v)));
        return array;
}

static struct json_object *encode_map(char *const *map)
{
        struct json_object *object = must(json_object_new_object());
        for (; map && *map; map++) {
                const char *value;
                auto_free char *key = json_map_split(*map, &value);
                json_object_object_add(object, key, must(json_object_new_string(value)));
        }
        return object;
}

static struct json_object *encode_set(char *const *set)
{
        struct json_object *object = must(json_object_new_object());
        for (; set && *set; set++)
                json_object_object_add(object, *set, must(json_object_new_object()));
        return object;
}

static struct json_object *encode_array(const struct json_shape *shape, const char *elements,
                                        size_t length)
{
        struct json_object *array = must(json_object_new_array());
        for (size_t i = 0; i < length; i++)
                json_object_array_add(array, encode_members(shape, elements + i * shape->size));
        return array;
}

static struct json_object *encode_keyed(const struct json_shape *shape, const char *elements,
                                        size_t length)
{
        struct json_object *object = must(json_object_new_object());
        for (size_t i = 0; i < length; i++) {
                const char *element = elements + i * shape->size;
                json_object_object_add(object, *(char *const *)(const void *)element,
                                       encode_members(shape, element));
        }
        return object;
}

static struct json_object *encode_uintv(const char *numbers, size_t size, size_t length)
{
        struct json_object *array = must(json_object_new_array());
        for (size_t i = 0; i < length; i++)
                json_object_array_add(array, must(json_object_new_uint64(
                                                     load_unsigned(numbers + i * size, size))));
        return array;
}

/* Whether a member holds more than its zero value. */
static bool is_set(const struct json_field *field, const char *value)
{
        const void *member = value + field->offset;
        const void *extra = value + field->extra_offset;

        if (field->flags & JSON_OPTIONAL)
                return *(const bool *)extra;
        switch (field->kind) {
        case JSON_BOOL:
                return *(const bool *)member;
        case JSON_INT:
        case JSON_UINT:
                return load_unsigned(member, field->size) != 0;
        case JSON_DOUBLE:
                return *(const double *)member < 0 || *(const double *)member > 0;
        case JSON_STRING:
                return !str_empty(*(char *const *)member);
        case JSON_STRV:
        case JSON_MAP:
        case JSON_SET:
                return *(char **const *)member && **(char **const *)member;
        case JSON_POINTER:
        case JSON_ANY:
                return *(void *const *)member != NULL;
        case JSON_ARRAY:
        case JSON_KEYED:
        case JSON_UINTV:
                return *(const size_t *)extra > 0;
        case JSON_ENUM:
                return *enum_name(field, *(const int *)member) != '\0';
        case JSON_STRUCT:
                return true; /* decided by what it encodes to */
        }
        abort(); /* the table is wrong */
}

static bool is_pointer_kind(enum json_kind kind)
{
        return kind == JSON_STRING || kind == JSON_STRV || kind == JSON_MAP || kind == JSON_SET ||
               kind == JSON_POINTER || kind == JSON_ARRAY || kind == JSON_KEYED ||
               kind == JSON_UINTV;
}

/* The member, whatever it holds. A NULL result is JSON's null. */
static struct json_object *encode_field(const struct json_field *field, const char *value)
{
        const void *member = value + field->offset;
        const void *pointer = is_pointer_kind(field->kind) ? *(void *const *)member : NULL;
        size_t length = 0;

        if (field->kind == JSON_ARRAY || field->kind == JSON_KEYED || field->kind == JSON_UINTV)
                length = *(const size_t *)(const void *)(value + field->extra_offset);
        switch (field->kind) {
        case JSON_BOOL:
                return must(json_object_new_boolean(*(const bool *)member));
        case JSON_INT:
                return must(json_object_new_int64(load_signed(member, field->size)));
        case JSON_UINT:
                return must(json_object_new_uint64(load_unsigned(member, field->size)));
        case JSON_DOUBLE:
                return must(json_object_new_double(*(const double *)member));
        case JSON_STRING:
                return must(json_object_new_string(pointer ? pointer : ""));
        case JSON_STRV:
                return encode_strv(pointer);
        case JSON_MAP:
                return encode_map(pointer);
        case JSON_SET:
                return encode_set(pointer);
        case JSON_STRUCT:
                return encode_members(field->shape, member);
        case JSON_POINTER:
                return pointer ? encode_members(field->shape, pointer) : NULL;
        case JSON_ARRAY:
                return encode_array(field->shape, pointer, length);
        case JSON_KEYED:
                return encode_keyed(field->shape, pointer, length);
        case JSON_UINTV:
                return encode_uintv(pointer, field->size, length);
        case JSON_ENUM:
                return must(json_object_new_string(enum_name(field, *(const int *)member)));
        case JSON_ANY:
                return json_object_get(*(struct json_object *const *)member);
        }
        abort(); /* the table is wrong */
}

static void encode_member(const struct json_field *field, const char *value,
                          struct json_object *into)
{
        bool always = field->flags & (JSON_REQUIRED | JSON_KEEP_EMPTY);
        bool set = is_set(field, value);
        struct json_object *encoded = NULL;

        if (!set && !always)
                return;
        bool null = !set && (field->flags & JSON_OPTIONAL);
        if ((field->flags & JSON_NULL) && is_pointer_kind(field->kind) &&
            !*(void *const *)(const void *)(value + field->offset))
                null = true;
        if (!null)
                encoded = encode_field(field, value);
        if (field->kind == JSON_STRUCT && !always && json_object_object_length(encoded) == 0) {
                json_object_put(encoded);
                return;
        }
        json_object_object_add(into, field->name, encoded);
}

static struct json_object *encode_members(const struct json_shape *shape, const char *value)
{
        struct json_object *object = must(json_object_new_object());
        for (size_t i = 0; i < shape->length; i++)
                encode_member(&shape->fields[i], value, object);
        return object;
}

struct json_object *json_encode(const struct json_shape *shape, const void *value)
{
        return encode_members(shape, value);
}

char *json_encode_text(const struct json_shape *shape, const void *value, bool pretty)
{
        auto_json object = json_encode(shape, value);
        return json_text(object, pretty);
}

static void free_elements(const struct json_field *field, char *value, bool keyed)
{
        char *elements = *(void **)(void *)(value + field->offset);
        size_t length = *(size_t *)(void *)(value + field->extra_offset);

        for (size_t i = 0; i < length; i++) {
                char *element = elements + i * field->shape->size;
                if (keyed)
                        free(*(char **)(void *)element);
                json_free(field->shape, element);
        }
        free(elements);
}

static void free_member(const struct json_field *field, char *value)
{
        void *member = value + field->offset;
        void *pointer;

        switch (field->kind) {
        case JSON_STRING:
        case JSON_UINTV:
                free(*(void **)member);
                break;
        case JSON_STRV:
        case JSON_MAP:
        case JSON_SET:
                strv_free(*(char ***)member);
                break;
        case JSON_STRUCT:
                json_free(field->shape, member);
                break;
        case JSON_POINTER:
                pointer = *(void **)member;
                if (pointer)
                        json_free(field->shape, pointer);
                free(pointer);
                break;
        case JSON_ARRAY:
        case JSON_KEYED:
                free_elements(field, value, field->kind == JSON_KEYED);
                break;
        case JSON_ANY:
                json_object_put(*(struct json_object **)member);
                break;
        case JSON_BOOL:
        case JSON_INT:
        case JSON_UINT:
        case JSON_DOUBLE:
        case JSON_ENUM:
                break;
        }
}

void json_free(const struct json_shape *shape, void *value)
{
        for (size_t i = 0; i < shape->length; i++)
                free_member(&shape->fields[i], value);
        memset(value, 0, shape->size);
}
