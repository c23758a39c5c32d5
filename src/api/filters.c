#include "api/filters.h"

#include <errno.h>
#include <json-c/json_object.h>
#include <regex.h>
#include <stdlib.h>

#include "base/str.h"
#include "codec/json.h"

static int collect_values(const char *key, struct json_object *values, char ***ret, struct err *err)
{
        auto_strv list = NULL;
        if (json_object_is_type(values, json_type_array)) {
                for (size_t i = 0; i < json_object_array_length(values); i++) {
                        struct json_object *item = json_object_array_get_idx(values, i);
                        if (!json_object_is_type(item, json_type_string))
                                return err_plain(err, EINVAL, "filters: %s[%zu]: expected string",
                                                 key, i);
                        strv_push(&list, json_object_get_string(item));
                }
        } else if (json_object_is_type(values, json_type_object)) {
                json_object_object_foreach(values, name, wanted)
                {
                        if (!json_object_is_type(wanted, json_type_boolean))
                                return err_plain(err, EINVAL, "filters: %s: expected true or false",
                                                 key);
                        if (json_object_get_boolean(wanted))
                                strv_push(&list, name);
                }
        } else if (values) {
                return err_plain(err, EINVAL, "filters: %s: expected an object or a list", key);
        }
        *ret = take_ptr(list);
        return 0;
}

int filters_parse(const char *text, struct filters *ret, struct err *err)
{
        if (str_empty(text)) {
                *ret = (struct filters){ 0 };
                return 0;
        }
        size_t size = strlen(text);
        if (size > FILTERS_SIZE_MAX)
                return err_plain(err, EINVAL, "filters are larger than %d bytes", FILTERS_SIZE_MAX);
        auto_json object = NULL;
        if (json_parse(text, size, &object, err) < 0 ||
            (object && !json_object_is_type(object, json_type_object)))
                return err_plain(err, EINVAL,
                                 "invalid filters: expected a JSON object such as "
                                 "{\"label\":[\"tier=web\"]}");
        auto_filters filters = { 0 };
        if (!object) { /* "null" */
                *ret = (struct filters){ 0 };
                return 0;
        }
        filters.items = xcalloc((size_t)json_object_object_length(object) + 1,
                                sizeof(*filters.items));
        json_object_object_foreach(object, key, values)
        {
                char **list = NULL;
                int r = collect_values(key, values, &list, err);
                if (r < 0)
                        return r;
                if (list)
                        filters.items[filters.length++] = (struct filter){ .key = xstrdup(key),
                                                                           .values = list };
        }
        *ret = filters;
        filters = (struct filters){ 0 };
        return 0;
}

void filters_finish(struct filters *filters)
{
        for (size_t i = 0; i < filters->length; i++) {
                free(filters->items[i].key);
                strv_free(filters->items[i].values);
        }
        free(filters->items);
        *filters = (struct filters){ 0 };
}

int filters_check(const struct filters *filters, const char *const *allowed, struct err *err)
{
        for (size_t i = 0; i < filters->length; i++) {
                bool known = false;
                for (size_t k = 0; allowed[k] && !known; k++)
                        known = streq(allowed[k], filters->items[i].key);
                if (!known)
                        return err_plain(err, EINVAL, "invalid filter '%s'", filters->items[i].key);
        }
        return 0;
}

char *const *filters_get(const struct filters *filters, const char *key)
{
        for (size_t i = 0; i < filters->length; i++)
                if (streq(filters->items[i].key, key))
                        return filters->items[i].values;
        return NULL;
}

bool filters_match(const struct filters *filters, const char *key, const char *value)
{
        char *const *values = filters_get(filters, key);
        return !values || (value && strv_contains(values, value));
}

/* Backtracking over counted repeats and back references is where glibc's matcher
 * needs time or memory without bound. */
static bool pattern_is_cheap(const char *pattern)
{
        return strlen(pattern) <= FILTERS_PATTERN_LENGTH_MAX && !strpbrk(pattern, "{\\");
}

static bool pattern_matches(const char *pattern, const char *value)
{
        regex_t compiled;
        if (!pattern_is_cheap(pattern) ||
            regcomp(&compiled, pattern, REG_EXTENDED | REG_NOSUB) != 0)
                return strstr(value, pattern) != NULL;
        bool matches = regexec(&compiled, value, 0, NULL, 0) == 0;
        regfree(&compiled);
        return matches;
}

bool filters_match_pattern(const struct filters *filters, const char *key, const char *value)
{
        char *const *values = filters_get(filters, key);
        if (!values)
                return true;
        for (; value && *values; values++)
                if (streq(value, *values) || pattern_matches(*values, value))
                        return true;
        return false;
}

static bool label_holds(char *const *labels, const char *wanted)
{
        const char *equals = strchr(wanted, '=');
        auto_free char *name = equals ? xstrndup(wanted, (size_t)(equals - wanted))
                                      : xstrdup(wanted);
        const char *value = json_map_get(labels, name);
        return value && (!equals || streq(value, equals + 1));
}

bool filters_match_labels(const struct filters *filters, const char *key, char *const *labels)
{
        char *const *values = filters_get(filters, key);
        for (; values && *values; values++)
                if (!label_holds(labels, *values))
                        return false;
        if (!streq(key, "label"))
                return true;
        for (values = filters_get(filters, "label!"); values && *values; values++)
                if (label_holds(labels, *values))
                        return false;
        return true;
}

int filters_bool(const struct filters *filters, const char *key, bool *ret, struct err *err)
{
        char *const *values = filters_get(filters, key);
        if (!values)
                return 0;
        static const char *const yes[] = { "true", "1", "t", "T", "TRUE", "True" };
        static const char *const no[] = { "false", "0", "f", "F", "FALSE", "False" };
        for (size_t i = 0; i < ELEMENTS(yes); i++) {
                if (streq(*values, yes[i]) || streq(*values, no[i])) {
                        *ret = streq(*values, yes[i]);
                        return 0;
                }
        }
        return err_plain(err, EINVAL, "invalid filter '%s=%s': expected true or false", key,
                         *values);
}
