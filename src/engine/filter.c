#include "engine/filter.h"

#include <errno.h>
#include <string.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/str.h"
#include "codec/json.h"
#include "engine/instance.h"
#include "engine/logs.h"

bool label_matches(char *const *labels, const char *wanted)
{
        const char *equals = strchr(wanted, '=');
        auto_free char *key = xstrndup(wanted, (size_t)(strchrnul(wanted, '=') - wanted));
        const char *value = json_map_get(labels, key);
        return value && (!equals || streq(value, equals + 1));
}

static int add_value(struct prune_filter *filter, const char *key, const char *value,
                     struct err *err)
{
        if (streq(key, "until"))
                return log_time_parse(value, clock_realtime_ns(), &filter->until_ns, err);
        if (streq(key, "label"))
                strv_push(&filter->labels, value);
        else if (streq(key, "label!"))
                strv_push(&filter->labels_not, value);
        else if (streq(key, "all"))
                filter->all = streq(value, "1") || streq(value, "true");
        else
                return err_plain(err, EINVAL, "invalid filter '%s'", key);
        return 0;
}

/* ["a","b"] or {"a":true}. */
static int add_values(struct prune_filter *filter, const char *key, struct json_object *values,
                      struct err *err)
{
        int r = 0;
        if (json_object_get_type(values) == json_type_array) {
                for (size_t i = 0; r == 0 && i < json_object_array_length(values); i++) {
                        struct json_object *value = json_object_array_get_idx(values, i);
                        if (json_object_get_type(value) != json_type_string)
                                return err_plain(err, EINVAL, "invalid filter '%s'", key);
                        r = add_value(filter, key, json_object_get_string(value), err);
                }
                return r;
        }
        if (json_object_get_type(values) != json_type_object)
                return err_plain(err, EINVAL, "invalid filter '%s'", key);
        json_object_object_foreach(values, name, wanted)
        {
                if (r == 0 && json_object_get_boolean(wanted))
                        r = add_value(filter, key, name, err);
        }
        return r;
}

int prune_filter_parse(const char *json, struct prune_filter *ret, struct err *err)
{
        struct prune_filter filter = { 0 };
        auto_json object = NULL;
        int r = 0;
        if (!str_empty(json)) {
                r = json_parse(json, strlen(json), &object, err);
                if (r < 0)
                        return err_wrap(err, "invalid filter");
                if (json_object_get_type(object) != json_type_object)
                        return err_plain(err, EINVAL, "invalid filter: not an object");
                json_object_object_foreach(object, key, values)
                {
                        if (r == 0)
                                r = add_values(&filter, key, values, err);
                }
        }
        if (r < 0) {
                prune_filter_finish(&filter);
                return r;
        }
        *ret = filter;
        return 0;
}

void prune_filter_finish(struct prune_filter *filter)
{
        strv_free(filter->labels);
        strv_free(filter->labels_not);
        *filter = (struct prune_filter){ 0 };
}
