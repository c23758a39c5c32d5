#include "engine/events.h"

#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "codec/json.h"
#include "engine/core.h"

struct kept_event {
        struct engine_event event; /* type NULL: an empty slot */
};

struct event_subscription {
        struct engine *engine;
        struct list node;
        struct event_filter filter;
        int64_t since_ns;
        bool replayed;
        bool dead;
        bool busy; /* its callback runs */
        void (*happened)(void *arg, const struct engine_event *event);
        void *arg;
};

/* -- filters ------------------------------------------------------------------- */

static const struct {
        const char *key;
        size_t offset;
} filter_keys[] = {
        { "type", offsetof(struct event_filter, type) },
        { "event", offsetof(struct event_filter, action) },
        { "container", offsetof(struct event_filter, container) },
        { "image", offsetof(struct event_filter, image) },
        { "volume", offsetof(struct event_filter, volume) },
        { "network", offsetof(struct event_filter, network) },
        { "label", offsetof(struct event_filter, label) },
};

static char ***filter_list(struct event_filter *filter, size_t index)
{
        return (char ***)(void *)((char *)filter + filter_keys[index].offset);
}

/* ["a","b"] or {"a":true,"b":true}. */
static int add_values(struct json_object *values, const char *key, char ***list, struct err *err)
{
        if (json_object_get_type(values) == json_type_array) {
                for (size_t i = 0; i < json_object_array_length(values); i++) {
                        struct json_object *value = json_object_array_get_idx(values, i);
                        if (json_object_get_type(value) != json_type_string)
                                return err_plain(err, EINVAL, "invalid filter '%s'", key);
                        strv_push(list, json_object_get_string(value));
                }
                return 0;
        }
        if (json_object_get_type(values) != json_type_object)
                return err_plain(err, EINVAL, "invalid filter '%s'", key);
        json_object_object_foreach(values, name, wanted)
        {
                if (json_object_get_boolean(wanted))
                        strv_push(list, name);
        }
        return 0;
}

int event_filter_parse(const char *json, struct event_filter *ret, struct err *err)
{
        struct event_filter filter = { 0 };
        if (str_empty(json)) {
                *ret = filter;
                return 0;
        }
        auto_json object = NULL;
        int r = json_parse(json, strlen(json), &object, err);
        if (r < 0)
                return err_wrap(err, "invalid filter");
        if (json_object_get_type(object) != json_type_object)
                return err_plain(err, EINVAL, "invalid filter: not an object");
        json_object_object_foreach(object, key, values)
        {
                size_t i = 0;
                while (i < ELEMENTS(filter_keys) && !streq(filter_keys[i].key, key))
                        i++;
                if (streq(key, "scope") || streq(key, "daemon"))
                        continue;
                if (i == ELEMENTS(filter_keys))
                        r = err_plain(err, EINVAL, "invalid filter '%s'", key);
                else
                        r = add_values(values, key, filter_list(&filter, i), err);
                if (r < 0) {
                        event_filter_finish(&filter);
                        return r;
                }
        }
        *ret = filter;
        return 0;
}

void event_filter_finish(struct event_filter *filter)
{
        for (size_t i = 0; i < ELEMENTS(filter_keys); i++)
                strv_free(*filter_list(filter, i));
        *filter = (struct event_filter){ 0 };
}

/* The action up to a colon: "exec_create: sh" is an "exec_create". */
static bool action_matches(char *const *wanted, const char *action)
{
        size_t length = strcspn(action, ":");
        for (; *wanted; wanted++)
                if (streq(*wanted, action) ||
                    (strlen(*wanted) == length && strncmp(*wanted, action, length) == 0))
                        return true;
        return false;
}

/* An actor of this type, by id, id prefix or its attribute `name`. */
static bool actor_matches(char *const *wanted, const char *type, const struct engine_event *event)
{
        if (!streq(event->type, type))
                return false;
        const char *name = json_map_get(event->attributes, "name");
        for (; *wanted; wanted++)
                if (str_starts(event->id, *wanted) || streq(name, *wanted))
                        return true;
        return false;
}

/* A container event counts for its image too. A name without tag matches any tag. */
static bool image_matches(char *const *wanted, const struct engine_event *event)
{
        if (actor_matches(wanted, "image", event))
                return true;
        const char *image = json_map_get(event->attributes,
                                         streq(event->type, "image") ? "name" : "image");
        for (; image && *wanted; wanted++) {
                const char *rest = str_after(image, *wanted);
                if (rest && (!*rest || (*rest == ':' && !strchr(rest, '/'))))
                        return true;
        }
        return false;
}

static bool labels_match(char *const *wanted, const struct engine_event *event)
{
        for (; *wanted; wanted++) {
                const char *equals = strchr(*wanted, '=');
                auto_free char *key = xstrndup(*wanted,
                                               (size_t)(strchrnul(*wanted, '=') - *wanted));
                const char *value = json_map_get(event->attributes, key);
                if (!value || (equals && !streq(value, equals + 1)))
                        return false;
        }
        return true;
}

int event_filter_matches(const struct event_filter *f, const struct engine_event *event)
{
        return (!f->type || strv_contains(f->type, event->type)) &&
               (!f->action || action_matches(f->action, event->action)) &&
               (!f->container || actor_matches(f->container, "container", event)) &&
               (!f->volume || actor_matches(f->volume, "volume", event)) &&
               (!f->network || actor_matches(f->network, "network", event)) &&
               (!f->image || image_matches(f->image, event)) &&
               (!f->label || labels_match(f->label, event));
}

/* -- emitting ------------------------------------------------------------------ */

static void kept_finish(struct kept_event *kept)
{
        free((char *)kept->event.type);
        free((char *)kept->event.action);
        free((char *)kept->event.id);
        strv_free((char **)kept->event.attributes);
        kept->event = (struct engine_event){ 0 };
}

static void subscription_free(struct event_subscription *subscription)
{
        list_remove(&subscription->node);
        event_filter_finish(&subscription->filter);
        free(subscription);
}

static void offer(struct event_subscription *subscription, const struct engine_event *event)
{
        if (subscription->dead || !event_filter_matches(&subscription->filter, event))
                return;
        subscription->busy = true;
        subscription->happened(subscription->arg, event);
        subscription->busy = false;
}

/* Frees those that unsubscribed while they or others were called. */
static void sweep(struct engine *engine)
{
        list_for_each_safe (struct event_subscription, s, &engine->subscriptions, node)
                if (s->dead && !s->busy)
                        subscription_free(s);
}

void engine_event_emit(struct engine *engine, const char *type, const char *action, const char *id,
                       char *const *attributes)
{
        if (!engine->kept)
                engine->kept = xcalloc(EVENTS_KEPT, sizeof(*engine->kept));
        struct kept_event *kept = &engine->kept[engine->kept_next++ % EVENTS_KEPT];
        kept_finish(kept);
        kept->event = (struct engine_event){
                .type = xstrdup(type),
                .action = xstrdup(action),
                .id = xstrdup(id),
                .attributes = strv_copy(attributes),
                .time_ns = clock_realtime_ns(),
        };
        /* Callbacks may subscribe: new ones come at the end and replay this one
         * themselves. */
        struct list *last = engine->subscriptions.prev;
        if (list_empty(&engine->subscriptions))
                return;
        for (struct list *at = engine->subscriptions.next;; at = at->next) {
                struct event_subscription *s = container_of(at, struct event_subscription, node);
                if (s->replayed)
                        offer(s, &kept->event);
                if (at == last)
                        break;
        }
        sweep(engine);
}

struct event_subscription *events_subscribe(
        struct engine *engine, const struct event_filter *filter, int64_t since_ns,
        void (*happened)(void *arg, const struct engine_event *event), void *arg)
{
        struct event_subscription *s = new0(struct event_subscription);
        *s = (struct event_subscription){
                .engine = engine, .since_ns = since_ns, .happened = happened, .arg = arg
        };
        for (size_t i = 0; filter && i < ELEMENTS(filter_keys); i++) {
                char **list = *filter_list((struct event_filter *)filter, i);
                *filter_list(&s->filter, i) = list ? strv_copy(list) : NULL;
        }
        list_append(&engine->subscriptions, &s->node);
        size_t first = engine->kept_next > EVENTS_KEPT ? engine->kept_next - EVENTS_KEPT : 0;
        for (size_t i = first; since_ns > 0 && i < engine->kept_next && !s->dead; i++) {
                const struct kept_event *kept = &engine->kept[i % EVENTS_KEPT];
                if (kept->event.type && kept->event.time_ns >= since_ns)
                        offer(s, &kept->event);
        }
        s->replayed = true;
        return s;
}

void events_unsubscribe(struct event_subscription *subscription)
{
        if (subscription)
                subscription->dead = true;
        /* Freed at the next event or the engine's end: an emit may be walking the list. */
}

void events_finish(struct engine *engine)
{
        list_for_each_safe (struct event_subscription, s, &engine->subscriptions, node)
                subscription_free(s);
        for (size_t i = 0; engine->kept && i < EVENTS_KEPT; i++)
                kept_finish(&engine->kept[i]);
        free(engine->kept);
}
