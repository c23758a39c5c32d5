/* GET /containers/json with docker's filters, and prune. */
#include <errno.h>
#include <stdlib.h>

#include "api/docker/container_json.h"
#include "api/filters.h"
#include "api/reply.h"
#include "api/routes.h"
#include "base/clock.h"
#include "base/str.h"
#include "engine/instance.h"
#include "oci/reference.h"

static const char *const list_filters[] = { "ancestor", "before", "expose",  "exited",
                                            "health",   "id",     "is-task", "label",
                                            "label!",   "name",   "network", "publish",
                                            "since",    "status", "volume",  NULL };

/* What a request asks for. */
struct selection {
        struct filters filters;
        bool all, size;
        int64_t limit;               /* 0: none */
        int64_t before_ns, since_ns; /* created before and after; 0: any */
        char **ancestors;            /* familiar names with tag, beside what was written */
};

static void selection_finish(struct selection *selection)
{
        filters_finish(&selection->filters);
        strv_free(selection->ancestors);
}

static int check_values(const struct filters *filters, const char *key, const char *const *allowed,
                        struct err *err)
{
        for (char *const *v = filters_get(filters, key); v && *v; v++) {
                bool known = false;
                for (size_t i = 0; allowed[i] && !known; i++)
                        known = streq(allowed[i], *v);
                if (!known)
                        return err_plain(err, EINVAL, "invalid filter '%s=%s'", key, *v);
        }
        return 0;
}

static int check_selection(const struct filters *filters, struct err *err)
{
        static const char *const states[] = { "created",  "running", "paused", "restarting",
                                              "removing", "exited",  "dead",   NULL };
        static const char *const healths[] = { "none", "starting", "healthy", "unhealthy", NULL };
        int r = filters_check(filters, list_filters, err);
        if (r >= 0)
                r = check_values(filters, "status", states, err);
        if (r >= 0)
                r = check_values(filters, "health", healths, err);
        for (char *const *v = filters_get(filters, "exited"); r >= 0 && v && *v; v++) {
                int64_t code;
                if (str_to_i64(*v, &code) < 0)
                        r = err_plain(err, EINVAL, "invalid filter 'exited=%s'", *v);
        }
        return r;
}

/* The creation time of the instance that a before or since filter names. */
static int creation_time(struct engine *engine, const struct filters *filters, const char *key,
                         int64_t *ret_ns, struct err *err)
{
        char *const *values = filters_get(filters, key);
        if (!values)
                return 0;
        const struct instance *instance = instance_find(engine, *values, err);
        if (!instance)
                return -ENOENT;
        *ret_ns = instance->created_ns;
        return 0;
}

static int selection_parse(struct engine *engine, struct http_request *request,
                           struct selection *ret, struct err *err)
{
        struct selection s = { 0 };
        s.all = http_request_query_bool(request, "all", false);
        s.size = http_request_query_bool(request, "size", false);
        int r = filters_parse(http_request_query(request, "filters"), &s.filters, err);
        if (r >= 0)
                r = check_selection(&s.filters, err);
        if (r >= 0)
                r = creation_time(engine, &s.filters, "before", &s.before_ns, err);
        if (r >= 0)
                r = creation_time(engine, &s.filters, "since", &s.since_ns, err);
        const char *limit = http_request_query(request, "limit");
        if (r >= 0 && !str_empty(limit) && str_to_i64(limit, &s.limit) < 0)
                r = err_plain(err, EINVAL, "invalid value '%s' for limit: expected a number",
                              limit);
        for (char *const *v = filters_get(&s.filters, "ancestor"); r >= 0 && v && *v; v++) {
                auto_reference reference = { 0 };
                if (oci_reference_parse(*v, &reference, NULL) >= 0)
                        strv_push_take(&s.ancestors, oci_reference_familiar(&reference));
                strv_push(&s.ancestors, *v);
        }
        /* As docker: these questions are about all containers. */
        s.all |= s.limit > 0 || s.before_ns || s.since_ns || filters_get(&s.filters, "status") ||
                 filters_get(&s.filters, "exited");
        if (r < 0)
                selection_finish(&s);
        else
                *ret = s;
        return r;
}

static bool matches_ancestor(const struct selection *s, const struct instance *instance)
{
        if (!s->ancestors)
                return true;
        auto_reference reference = { 0 };
        auto_free char *familiar = NULL;
        const char *image = instance->spec.config.image;
        if (image && oci_reference_parse(image, &reference, NULL) >= 0)
                familiar = oci_reference_familiar(&reference);
        const char *hex = str_after(instance->image_id ? instance->image_id : "", "sha256:");
        for (char **v = s->ancestors; *v; v++) {
                const char *wanted_hex = str_after(*v, "sha256:");
                const char *prefix = wanted_hex ? wanted_hex : *v;
                if (streq(*v, image) || streq(*v, familiar) ||
                    (hex && strlen(prefix) >= 4 && str_starts(hex, prefix)))
                        return true;
        }
        return false;
}

static bool matches_volume(const struct filters *filters, const struct instance *instance)
{
        if (!filters_get(filters, "volume"))
                return true;
        for (size_t i = 0; i < instance->mounts_length; i++) {
                const struct instance_mount *mount = &instance->mounts[i];
                if (filters_match(filters, "volume", mount->name) ||
                    filters_match(filters, "volume", mount->destination) ||
                    filters_match(filters, "volume", mount->source))
                        return true;
        }
        return false;
}

static bool matches_exit(const struct filters *filters, const struct instance *instance)
{
        if (!filters_get(filters, "exited"))
                return true;
        if (instance->state != INSTANCE_EXITED && instance->state != INSTANCE_DEAD)
                return false;
        auto_free char *code = xasprintf("%d", instance->exit_code);
        return filters_match(filters, "exited", code);
}

static bool matches_network(const struct filters *filters, const struct instance *instance)
{
        const char *network = container_network(instance);
        return filters_match(filters, "network", network) ||
               (network && filters_match(filters, "network", network_id(network)));
}

static bool matches(const struct selection *s, const struct instance *instance)
{
        const struct filters *f = &s->filters;
        auto_free char *slashed = xasprintf("/%s", instance->name);
        bool task = false;
        if (!s->all && instance->pid == 0 && instance->state != INSTANCE_RESTARTING)
                return false;
        if (s->before_ns && instance->created_ns >= s->before_ns)
                return false;
        if (s->since_ns && instance->created_ns <= s->since_ns)
                return false;
        /* Nothing publishes or exposes ports, and nothing is a swarm task, yet. */
        filters_bool(f, "is-task", &task, NULL);
        if (task || filters_get(f, "publish") || filters_get(f, "expose"))
                return false;
        return filters_match_pattern(f, "id", instance->id) &&
               (filters_match_pattern(f, "name", instance->name) ||
                filters_match_pattern(f, "name", slashed)) &&
               filters_match_labels(f, "label", instance->spec.config.labels) &&
               filters_match(f, "status", instance_state_name(instance->state)) &&
               filters_match(f, "health", health_status_name(instance->health.status)) &&
               matches_exit(f, instance) && matches_volume(f, instance) &&
               matches_network(f, instance) && matches_ancestor(s, instance);
}

/* --- the list, measured one by one where sizes are wanted --- */

struct listing {
        struct call *call;
        struct instance **instances; /* referenced */
        struct container_sizes *sizes;
        size_t length, measured;
};

static void listing_free(struct listing *listing)
{
        for (size_t i = 0; i < listing->length; i++)
                instance_unref(listing->instances[i]);
        free(listing->instances);
        free(listing->sizes);
        free(listing);
}

static void listing_reply(struct listing *listing)
{
        struct http_request *request = call_take(listing->call);
        if (request) {
                struct json_object *reply = json_object_new_array();
                int64_t now_ns = clock_realtime_ns();
                for (size_t i = 0; i < listing->length; i++)
                        if (listing->instances[i]->state != INSTANCE_REMOVED)
                                push_json(reply, container_summary(listing->instances[i],
                                                                   &listing->sizes[i], now_ns));
                http_reply_json(request, 200, reply);
        }
        listing_free(listing);
}

static void listing_measured(void *arg, int r, const struct err *err, uint64_t rw_bytes,
                             uint64_t total_bytes)
{
        (void)err; /* one that cannot be measured is listed without sizes */
        struct listing *listing = arg;
        listing->sizes[listing->measured++] = (struct container_sizes){ r >= 0, rw_bytes,
                                                                        total_bytes };
        if (listing->measured == listing->length || !listing->call->request)
                listing_reply(listing);
        else
                instance_measure(listing->instances[listing->measured], listing_measured, listing);
}

static void list_begin(struct http_request *request, void *arg)
{
        struct api *api = arg;
        struct err err = { 0 };
        struct selection selection;
        int r = selection_parse(api->engine, request, &selection, &err);
        if (r < 0) {
                api_fail(request, r, &err);
                return;
        }
        struct listing *listing = new0(struct listing);
        size_t capacity = engine_counts(api->engine).total;
        listing->call = call_create(api, request);
        listing->instances = xcalloc(capacity + 1, sizeof(*listing->instances));
        listing->sizes = xcalloc(capacity + 1, sizeof(*listing->sizes));
        for (struct instance *i = instance_first(api->engine); i; i = instance_next(i)) {
                if (selection.limit > 0 && listing->length == (uint64_t)selection.limit)
                        break;
                if (listing->length < capacity && matches(&selection, i))
                        listing->instances[listing->length++] = instance_ref(i);
        }
        if (selection.size && listing->length > 0)
                instance_measure(listing->instances[0], listing_measured, listing);
        else
                listing_reply(listing);
        selection_finish(&selection);
}

/* --- prune --- */

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
        put_strings(reply, "ContainersDeleted", removed);
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
        instance_prune(api->engine, &filter, pruned, call_create(api, request));
        prune_filter_finish(&filter);
}

const struct http_route docker_container_list_routes[] = {
        { "GET", "/containers/json", list_begin, HTTP_BODY_NONE },
        { "POST", "/containers/prune", prune_begin, HTTP_BODY_NONE },
};
const size_t docker_container_list_routes_length = ELEMENTS(docker_container_list_routes);
