#include "codec/json.h"

#include <json-c/json_tokener.h>
#include <stdint.h>

#include "base/str.h"
#include "codec/json_scan.h"

/* One step of the tokener over everything; NULL text is JSON null. */
static enum json_tokener_error tokenize(struct json_tokener *tokener, const char *text, size_t size,
                                        struct json_object **ret)
{
        struct json_object *object = json_tokener_parse_ex(tokener, text, (int)size);
        enum json_tokener_error result = json_tokener_get_error(tokener);

        /* A number at the very end could go on: a blank says that it does not. */
        if (result == json_tokener_continue) {
                object = json_tokener_parse_ex(tokener, " ", 1);
                result = json_tokener_get_error(tokener);
        }
        *ret = object;
        return result;
}

/* Line and column for people, both from 1. */
static void locate(const char *text, size_t offset, size_t *ret_line, size_t *ret_column)
{
        *ret_line = 1;
        *ret_column = 1;
        for (size_t i = 0; i < offset; i++) {
                *ret_column += 1;
                if (text[i] == '\n') {
                        *ret_line += 1;
                        *ret_column = 1;
                }
        }
}

int json_parse(const char *text, size_t size, struct json_object **ret, struct err *err)
{
        size_t line, column, where = 0;
        if (size > JSON_TEXT_SIZE_MAX)
                return err_plain(err, E2BIG, "JSON text of %zu bytes is beyond the limit of %zu",
                                 size, JSON_TEXT_SIZE_MAX);

        const char *problem = json_scan(text, &size, &where);
        if (problem) {
                locate(text, where, &line, &column);
                return err_plain(err, EBADMSG, "not JSON: %s in line %zu column %zu", problem, line,
                                 column);
        }

        struct json_tokener *tokener = json_tokener_new_ex(JSON_DEPTH_MAX);
        if (!tokener)
                return err_set(err, ENOMEM, "parse JSON");
        json_tokener_set_flags(tokener, JSON_TOKENER_STRICT);
        auto_json object = NULL;
        enum json_tokener_error result = tokenize(tokener, text, size, &object);
        where = json_tokener_get_parse_end(tokener);
        json_tokener_free(tokener);

        if (result == json_tokener_success) {
                *ret = take_ptr(object);
                return 0;
        }
        if (result == json_tokener_continue)
                return err_plain(err, EBADMSG, "not JSON: the text ends too early");
        locate(text, where < size ? where : size, &line, &column);
        return err_plain(err, EBADMSG, "not JSON: %s in line %zu column %zu",
                         json_tokener_error_desc(result), line, column);
}

char *json_text(struct json_object *object, bool pretty)
{
        int flags = JSON_C_TO_STRING_NOSLASHESCAPE;
        if (pretty)
                flags |= JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED;
        const char *text = json_object_to_json_string_ext(object, flags);
        if (!text)
                abort(); /* no memory */
        return xstrdup(text);
}

/* Maps: "key=value" vectors. */

static bool map_entry_is(const char *entry, const char *key)
{
        for (; *key; key++, entry++)
                if (*entry != (*key == '=' ? JSON_MAP_EQUALS : *key))
                        return false;
        return *entry == '=';
}

const char *json_map_get(char *const *map, const char *key)
{
        for (; map && *map; map++)
                if (map_entry_is(*map, key))
                        return *map + strlen(key) + 1;
        return NULL;
}

static char *map_entry(const char *key, const char *value)
{
        char *entry = xasprintf("%s=%s", key, value);
        size_t length = strlen(key);
        for (size_t i = 0; i < length; i++)
                if (entry[i] == '=')
                        entry[i] = JSON_MAP_EQUALS;
        return entry;
}

void json_map_set(char ***map, const char *key, const char *value)
{
        char *entry = map_entry(key, value);
        for (char **at = *map; at && *at; at++) {
                if (map_entry_is(*at, key)) {
                        free(*at);
                        *at = entry;
                        return;
                }
        }
        strv_push_take(map, entry);
}

void json_map_remove(char **map, const char *key)
{
        for (; map && *map; map++) {
                if (!map_entry_is(*map, key))
                        continue;
                free(*map);
                for (; *map; map++)
                        map[0] = map[1];
                return;
        }
}

char *json_map_split(const char *entry, const char **ret_value)
{
        size_t length = strcspn(entry, "=");
        char *key = xstrndup(entry, length);
        for (size_t i = 0; i < length; i++)
                if (key[i] == JSON_MAP_EQUALS)
                        key[i] = '=';
        *ret_value = entry[length] ? entry + length + 1 : entry + length;
        return key;
}
