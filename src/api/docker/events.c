/* The stream of events. */
#include "engine/events.h"

#include <stdlib.h>

#include "api/reply.h"
#include "api/routes.h"
#include "base/clock.h"
#include "base/str.h"
#include "engine/logs.h"
#include "loop/loop.h"

/* A client that has this much to read is cut off: events are never skipped silently. */
#define QUEUE_LIMIT_BYTES (4u << 20)

struct listener {
        struct http_request *request;
        struct event_subscription *subscription;
        struct loop_source *timer; /* NULL without `until` */
        int64_t until_ns;          /* 0: no end */
        bool over;                 /* an end is on its way */
};

static struct json_object *event_json(const struct engine_event *event)
{
        struct json_object *o = json_object_new_object();
        if (streq(event->type, "container") || streq(event->type, "image")) {
                const char *from = json_map_get(event->attributes, "image");
                put_string(o, "status", event->action);
                put_string(o, "id", event->id);
                if (from)
                        put_string(o, "from", from);
        }
        put_string(o, "Type", event->type);
        put_string(o, "Action", event->action);
        struct json_object *actor = put_object(o, "Actor");
        put_string(actor, "ID", event->id);
        put_map(actor, "Attributes", event->attributes);
        put_string(o, "scope", "local");
        put_int(o, "time", event->time_ns / NS_PER_S);
        put_int(o, "timeNano", event->time_ns);
        return o;
}

static void listener_free(struct listener *listener)
{
        events_unsubscribe(listener->subscription);
        loop_source_destroy(listener->timer);
        free(listener);
}

static void listener_end(void *arg)
{
        struct listener *listener = arg;
        http_request_on_close(listener->request, NULL, NULL);
        http_stream_end(listener->request);
        listener_free(listener);
}

static void listener_gone(void *arg)
{
        listener_free(arg);
}

static void happened(void *arg, const struct engine_event *event)
{
        struct listener *listener = arg;
        if (listener->over || (listener->until_ns && event->time_ns > listener->until_ns))
                return;
        if (http_stream_write(listener->request, "", 0) > QUEUE_LIMIT_BYTES) {
                listener->over = true;
                http_stream_abort(listener->request);
                return;
        }
        stream_json(listener->request, event_json(event));
}

static int arguments(struct http_request *request, struct event_filter *filter, int64_t *ret_since,
                     int64_t *ret_until, struct err *err)
{
        int64_t now_ns = clock_realtime_ns();
        const char *since = http_request_query(request, "since");
        const char *until = http_request_query(request, "until");
        int r = 0;
        if (!str_empty(since))
                r = log_time_parse(since, now_ns, ret_since, err);
        if (r >= 0 && !str_empty(until))
                r = log_time_parse(until, now_ns, ret_until, err);
        if (r >= 0 && *ret_since && *ret_until && *ret_since > *ret_until)
                r = err_plain(err, EINVAL, "since is later than until");
        if (r >= 0)
                r = event_filter_parse(http_request_query(request, "filters"), filter, err);
        return r;
}

static void events_begin(struct http_request *request, void *arg)
{
        struct api *api = arg;
        struct event_filter filter = { 0 };
        struct err err = { 0 };
        int64_t since_ns = 0;
        struct listener *listener = new0(struct listener);
        int r = arguments(request, &filter, &since_ns, &listener->until_ns, &err);
        if (r >= 0 && listener->until_ns)
                r = loop_timer(api->loop, listener_end, listener, &listener->timer, &err);
        if (r < 0) {
                event_filter_finish(&filter);
                free(listener);
                api_fail(request, r, &err);
                return;
        }
        listener->request = request;
        http_request_on_close(request, listener_gone, listener);
        http_stream_begin(request, 200, "application/json");
        listener->subscription = events_subscribe(api->engine, &filter, since_ns, happened,
                                                  listener);
        event_filter_finish(&filter);
        int64_t left_ns = listener->until_ns - clock_realtime_ns();
        if (listener->timer)
                loop_timer_arm(listener->timer, left_ns > 0 ? left_ns : 0);
}

const struct http_route docker_event_routes[] = {
        { "GET", "/events", events_begin, HTTP_BODY_NONE },
};
const size_t docker_event_routes_length = ELEMENTS(docker_event_routes);
