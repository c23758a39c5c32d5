/* Volumes. */
#include "engine/volume.h"

#include <errno.h>

#include "api/docker/volume_json.h"
#include "api/filters.h"
#include "api/reply.h"
#include "api/routes.h"
#include "base/str.h"

struct json_object *volume_json(const struct volume *volume, int64_t size_bytes)
{
        struct json_object *o = json_object_new_object();
        put_time(o, "CreatedAt", volume->created_ns);
        put_string(o, "Driver", "local");
        put_map(o, "Labels", volume->labels);
        put_string(o, "Mountpoint", volume->mountpoint);
        put_string(o, "Name", volume->name);
        put_map(o, "Options", volume->options);
        put_string(o, "Scope", "local");
        if (size_bytes >= 0) {
                struct json_object *usage = put_object(o, "UsageData");
                put_int(usage, "RefCount", volume->users);
                put_int(usage, "Size", size_bytes);
        }
        return o;
}

/* Docker writes null for a volume made without options; tools tell apart. */
static struct json_object *one(const struct volume *volume)
{
        struct json_object *o = volume_json(volume, -1);
        if (!volume->options)
                json_object_object_add(o, "Options", NULL);
        if (!volume->labels)
                json_object_object_add(o, "Labels", NULL);
        return o;
}

static void created(void *arg, int r, const struct err *err, struct volume *volume)
{
        struct http_request *request = call_take(arg);
        if (!request)
                return;
        if (r < 0)
                api_fail(request, r, err);
        else
                http_reply_json(request, 201, one(volume));
}

static void create_begin(struct http_request *request, void *arg)
{
        struct api *api = arg;
        struct volume_request body = { 0 };
        if (!api_body_decode(request, &volume_request_shape, &body))
                return;
        volume_create(api->engine, &body, created, call_create(api, request));
        json_free(&volume_request_shape, &body);
}

static void inspect_begin(struct http_request *request, void *arg)
{
        struct api *api = arg;
        struct err err = { 0 };
        const struct volume *volume = volume_find(api->engine, http_request_param(request, "name"),
                                                  &err);
        if (volume)
                http_reply_json(request, 200, one(volume));
        else
                api_fail(request, -ENOENT, &err);
}

static int list_filters(struct http_request *request, struct filters *ret, int *ret_dangling,
                        struct err *err)
{
        static const char *const allowed[] = {
                "dangling", "driver", "label", "label!", "name", NULL
        };
        bool dangling = false;
        int r = filters_parse(http_request_query(request, "filters"), ret, err);
        if (r >= 0)
                r = filters_check(ret, allowed, err);
        if (r >= 0)
                r = filters_bool(ret, "dangling", &dangling, err);
        if (r >= 0)
                *ret_dangling = filters_get(ret, "dangling") ? dangling : -1;
        return r;
}

static void list_begin(struct http_request *request, void *arg)
{
        struct api *api = arg;
        auto_filters filters = { 0 };
        struct err err = { 0 };
        int dangling = -1;
        int r = list_filters(request, &filters, &dangling, &err);
        if (r < 0) {
                api_fail(request, r, &err);
                return;
        }
        struct json_object *reply = json_object_new_object();
        struct json_object *list = put_array(reply, "Volumes");
        for (struct volume *v = volume_first(api->engine); v; v = volume_next(v))
                if ((dangling < 0 || dangling == (v->users == 0)) &&
                    filters_match(&filters, "driver", "local") &&
                    filters_match_pattern(&filters, "name", v->name) &&
                    filters_match_labels(&filters, "label", v->labels))
                        push_json(list, one(v));
        put_json(reply, "Warnings", NULL);
        http_reply_json(request, 200, reply);
}

static void remove_begin(struct http_request *request, void *arg)
{
        struct api *api = arg;
        volume_remove(api->engine, http_request_param(request, "name"),
                      http_request_query_bool(request, "force", false), call_done,
                      call_create(api, request));
}

static void pruned(void *arg, int r, const struct err *err, char *const *removed,
                   uint64_t reclaimed_bytes)
{
        struct http_request *request = call_take(arg);
        if (!request)
                return;
        if (r < 0) {
                api_fail(request, r, err);
                return;
        }
        struct json_object *reply = json_object_new_object();
        put_strings(reply, "VolumesDeleted", removed);
        put_int(reply, "SpaceReclaimed", (int64_t)reclaimed_bytes);
        http_reply_json(request, 200, reply);
}

static void prune_begin(struct http_request *request, void *arg)
{
        struct api *api = arg;
        struct prune_filter filter = { 0 };
        struct err err = { 0 };
        int r = prune_filter_parse(http_request_query(request, "filters"), &filter, &err);
        if (r < 0) {
                api_fail(request, r, &err);
                return;
        }
        /* Before 1.42 a prune took named volumes too. */
        unsigned version = http_request_version(request);
        filter.all |= version && version < 42;
        volume_prune(api->engine, &filter, pruned, call_create(api, request));
        prune_filter_finish(&filter);
}

const struct http_route docker_volume_routes[] = {
        { "GET", "/volumes", list_begin, HTTP_BODY_NONE },
        { "POST", "/volumes/create", create_begin, HTTP_BODY_BUFFERED },
        { "POST", "/volumes/prune", prune_begin, HTTP_BODY_NONE },
        { "GET", "/volumes/{name}", inspect_begin, HTTP_BODY_NONE },
        { "DELETE", "/volumes/{name}", remove_begin, HTTP_BODY_NONE },
};
const size_t docker_volume_routes_length = ELEMENTS(docker_volume_routes);
