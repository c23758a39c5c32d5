/* Events: what happened, as `docker events` tells it.
 *
 * Emitted on the loop thread; the last EVENTS_KEPT are kept for `since`.
 * Actions and attributes are docker's ("container" "die" exitCode=1 image=… name=…).
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define EVENTS_KEPT 256

struct engine;

struct engine_event {
        const char *type;        /* container, image, volume, network, daemon */
        const char *action;      /* create, start, die, "exec_create: sh", pull … */
        const char *id;          /* of the actor */
        char *const *attributes; /* map: "key=value" */
        int64_t time_ns;
};

/* Emits now; everything is copied. For rooms above (image pull, tag …) too. */
void engine_event_emit(struct engine *engine, const char *type, const char *action, const char *id,
                       char *const *attributes);

/* Which events: each list is a strv of alternatives, NULL matches all; an event
 * must match every list. The keys are those of docker's `filters`. */
struct event_filter {
        char **type, **action /* "event" */, **container, **image, **volume, **network, **label;
};

/* Parses docker's filters={"type":["container"],"event":{"die":true}} (both
 * encodings). NULL or "" is everything. Unknown keys are an error. */
int event_filter_parse(const char *json, struct event_filter *ret, struct err *err);
void event_filter_finish(struct event_filter *filter);
int event_filter_matches(const struct event_filter *filter, const struct engine_event *event);

/* A subscription. `happened` is called for every matching event from now on
 * and, where since_ns > 0, at once for the kept ones from then on; never after
 * events_unsubscribe(). The event is valid during the call only. Unsubscribing
 * inside the callback is legal. */
struct event_subscription;
struct event_subscription *events_subscribe(
        struct engine *engine, const struct event_filter *filter /* copied; NULL: all */,
        int64_t since_ns, void (*happened)(void *arg, const struct engine_event *event), void *arg);
void events_unsubscribe(struct event_subscription *subscription);
