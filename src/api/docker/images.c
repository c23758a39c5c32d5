/* Images: list, inspect, history, tag, remove, prune. */
#include <errno.h>
#include <stdlib.h>

#include "api/docker/image_json.h"
#include "api/filters.h"
#include "api/reply.h"
#include "api/routes.h"
#include "api/task.h"
#include "base/clock.h"
#include "base/str.h"
#include "engine/logs.h"
#include "image/image.h"

/* --- list --- */

struct listing {
        struct task task;
        struct filters filters;
        bool shared; /* tell shared sizes */
        struct image_uses uses;
        struct image **images;
        size_t length;
        int64_t *shared_bytes;
};

static void listing_finish(struct task *task)
{
        struct listing *listing = (struct listing *)task;
        filters_finish(&listing->filters);
        image_uses_finish(&listing->uses);
        image_list_free(listing->images, listing->length);
        free(listing->shared_bytes);
}

/* docker's filters as the image store knows them; strings are borrowed. */
static int image_filter_from(const struct filters *filters, struct image_filter *ret,
                             struct err *err)
{
        struct image_filter f = { .dangling = -1 };
        bool dangling;
        char *const *before = filters_get(filters, "before");
        char *const *since = filters_get(filters, "since");
        char *const *until = filters_get(filters, "until");
        f.references = (char **)filters_get(filters, "reference");
        f.labels = (char **)filters_get(filters, "label");
        f.before = before ? *before : NULL;
        f.since = since ? *since : NULL;
        if (until && log_time_parse(*until, clock_realtime_ns(), &f.until_ns, err) < 0)
                return -EINVAL;
        if (filters_get(filters, "dangling")) {
                int r = filters_bool(filters, "dangling", &dangling, err);
                if (r < 0)
                        return r;
                f.dangling = dangling;
        }
        *ret = f;
        return 0;
}

static void listing_run(struct task *task)
{
        struct listing *listing = (struct listing *)task;
        struct image_filter filter;
        task->r = image_filter_from(&listing->filters, &filter, &task->err);
        if (task->r >= 0)
                task->r = image_list(task->api->images, &filter, &listing->images, &listing->length,
                                     &task->err);
        if (task->r < 0 || !listing->shared)
                return;
        listing->shared_bytes = xcalloc(listing->length + 1, sizeof(int64_t));
        for (size_t i = 0; i < listing->length; i++) {
                uint64_t bytes = 0;
                if (image_shared_size(task->api->images, listing->images[i], &bytes, NULL) >= 0)
                        listing->shared_bytes[i] = (int64_t)bytes;
        }
}

static void listing_reply(struct task *task)
{
        struct listing *listing = (struct listing *)task;
        struct json_object *reply = json_object_new_array();
        for (size_t i = 0; i < listing->length; i++) {
                const struct image *image = listing->images[i];
                if (!filters_match_labels(&listing->filters, "label", image->spec.config.labels))
                        continue;
                push_json(reply, image_summary(image, -1,
                                               listing->shared ? listing->shared_bytes[i] : -1));
        }
        http_reply_json(task->request, 200, reply);
}

static void list_begin(struct http_request *request, void *arg)
{
        static const char *const allowed[] = { "before",    "dangling", "label", "label!",
                                               "reference", "since",    "until", NULL };
        struct filters filters = { 0 };
        struct err err = { 0 };
        int r = filters_parse(http_request_query(request, "filters"), &filters, &err);
        if (r >= 0)
                r = filters_check(&filters, allowed, &err);
        if (r < 0) {
                filters_finish(&filters);
                api_fail(request, r, &err);
                return;
        }
        struct listing *listing = new0(struct listing);
        listing->filters = filters;
        listing->shared = http_request_query_bool(request, "shared-size", false);
        listing->task.run = listing_run;
        listing->task.reply = listing_reply;
        listing->task.finish = listing_finish;
        task_submit(arg, request, &listing->task);
}

/* --- one image --- */

struct look {
        struct task task;
        char *name;
        struct image *image;
        struct image_history_entry *history;
        size_t history_length;
};

static void look_finish(struct task *task)
{
        struct look *look = (struct look *)task;
        free(look->name);
        image_unref(look->image);
        image_history_free(look->history, look->history_length);
}

static void look_submit(struct http_request *request, void *api, void (*run)(struct task *),
                        void (*reply)(struct task *))
{
        struct look *look = new0(struct look);
        look->name = xstrdup(http_request_param(request, "name"));
        look->task.run = run;
        look->task.reply = reply;
        look->task.finish = look_finish;
        task_submit(api, request, &look->task);
}

static void inspect_run(struct task *task)
{
        struct look *look = (struct look *)task;
        task->r = image_resolve(task->api->images, look->name, &look->image, &task->err);
}

static void inspect_reply(struct task *task)
{
        http_reply_json(task->request, 200, image_details(((struct look *)task)->image));
}

static void inspect_begin(struct http_request *request, void *arg)
{
        look_submit(request, arg, inspect_run, inspect_reply);
}

static void history_run(struct task *task)
{
        struct look *look = (struct look *)task;
        task->r = image_history(task->api->images, look->name, &look->history,
                                &look->history_length, &task->err);
}

static void history_reply(struct task *task)
{
        const struct look *look = (struct look *)task;
        struct json_object *reply = json_object_new_array();
        for (size_t i = 0; i < look->history_length; i++) {
                const struct image_history_entry *entry = &look->history[i];
                struct json_object *o = json_object_new_object();
                put_string(o, "Id", entry->id);
                put_int(o, "Created", entry->created_ns / NS_PER_S);
                put_string(o, "CreatedBy", entry->created_by);
                if (entry->tags)
                        put_strings(o, "Tags", entry->tags);
                else
                        put_json(o, "Tags", NULL);
                put_int(o, "Size", (int64_t)entry->size_bytes);
                put_string(o, "Comment", entry->comment);
                push_json(reply, o);
        }
        http_reply_json(task->request, 200, reply);
}

static void history_begin(struct http_request *request, void *arg)
{
        look_submit(request, arg, history_run, history_reply);
}

/* --- tag --- */

struct tagging {
        struct task task;
        char *name, *new_reference;
        struct image *image;
};

static void tagging_finish(struct task *task)
{
        struct tagging *tagging = (struct tagging *)task;
        free(tagging->name);
        free(tagging->new_reference);
        image_unref(tagging->image);
}

static void tag_run(struct task *task)
{
        struct tagging *tagging = (struct tagging *)task;
        struct image_store *images = task->api->images;
        task->r = image_tag(images, tagging->name, tagging->new_reference, &task->err);
        if (task->r >= 0)
                task->r = image_resolve(images, tagging->new_reference, &tagging->image,
                                        &task->err);
}

static void tag_reply(struct task *task)
{
        const struct tagging *tagging = (struct tagging *)task;
        image_event_emit(task->api, "tag", tagging->image->id.text, tagging->new_reference);
        http_reply(task->request, 201, NULL, NULL, 0);
}

static void tag_begin(struct http_request *request, void *arg)
{
        const char *repo = http_request_query(request, "repo");
        const char *tag = http_request_query(request, "tag");
        if (str_empty(repo)) {
                api_fail_argument(request, "repo must name the new reference");
                return;
        }
        struct tagging *tagging = new0(struct tagging);
        tagging->name = xstrdup(http_request_param(request, "name"));
        tagging->new_reference = str_empty(tag) ? xstrdup(repo) : xasprintf("%s:%s", repo, tag);
        tagging->task.run = tag_run;
        tagging->task.reply = tag_reply;
        tagging->task.finish = tagging_finish;
        task_submit(arg, request, &tagging->task);
}

/* --- remove and prune --- */

struct removing {
        struct task task;
        char *name;
        bool force, dangling_only;
        struct filters filters;
        struct image_uses uses;
        struct image_removal removal;
};

/* What was removed is told even where the client has gone or a later step failed. */
static void removing_finish(struct task *task)
{
        struct removing *removing = (struct removing *)task;
        image_removal_emit(task->api, &removing->removal);
        free(removing->name);
        filters_finish(&removing->filters);
        image_uses_finish(&removing->uses);
        image_removal_finish(&removing->removal);
}

static void removing_submit(struct http_request *request, struct api *api,
                            struct removing *removing, void (*run)(struct task *),
                            void (*reply)(struct task *))
{
        image_uses_collect(api, &removing->uses);
        removing->task.run = run;
        removing->task.reply = reply;
        removing->task.finish = removing_finish;
        task_submit(api, request, &removing->task);
}

static void remove_run(struct task *task)
{
        struct removing *removing = (struct removing *)task;
        task->r = image_remove(task->api->images, removing->name, removing->force,
                               removing->uses.items, removing->uses.length, &removing->removal,
                               &task->err);
}

static void remove_reply(struct task *task)
{
        http_reply_json(task->request, 200,
                        image_removal_json(&((struct removing *)task)->removal));
}

static void remove_begin(struct http_request *request, void *arg)
{
        struct removing *removing = new0(struct removing);
        removing->name = xstrdup(http_request_param(request, "name"));
        removing->force = http_request_query_bool(request, "force", false);
        removing_submit(request, arg, removing, remove_run, remove_reply);
}

static void prune_run(struct task *task)
{
        struct removing *removing = (struct removing *)task;
        struct image_filter filter;
        task->r = image_filter_from(&removing->filters, &filter, &task->err);
        if (task->r < 0)
                return;
        filter.dangling = -1;
        task->r = image_prune(task->api->images, removing->dangling_only, &filter,
                              removing->uses.items, removing->uses.length, &removing->removal,
                              &task->err);
}

static void prune_reply(struct task *task)
{
        const struct removing *removing = (struct removing *)task;
        struct json_object *reply = json_object_new_object();
        put_json(reply, "ImagesDeleted", image_removal_json(&removing->removal));
        put_int(reply, "SpaceReclaimed", (int64_t)removing->removal.reclaimed_bytes);
        http_reply_json(task->request, 200, reply);
}

static void prune_begin(struct http_request *request, void *arg)
{
        static const char *const allowed[] = { "dangling", "label", "until", NULL };
        struct removing *removing = new0(struct removing);
        struct err err = { 0 };
        removing->dangling_only = true;
        int r = filters_parse(http_request_query(request, "filters"), &removing->filters, &err);
        if (r >= 0)
                r = filters_check(&removing->filters, allowed, &err);
        if (r >= 0)
                r = filters_bool(&removing->filters, "dangling", &removing->dangling_only, &err);
        if (r < 0) {
                api_fail(request, r, &err);
                filters_finish(&removing->filters);
                free(removing);
                return;
        }
        removing_submit(request, arg, removing, prune_run, prune_reply);
}

const struct http_route docker_image_routes[] = {
        { "GET", "/images/json", list_begin, HTTP_BODY_NONE },
        { "POST", "/images/prune", prune_begin, HTTP_BODY_NONE },
        { "GET", "/images/{name*}/json", inspect_begin, HTTP_BODY_NONE },
        { "GET", "/images/{name*}/history", history_begin, HTTP_BODY_NONE },
        { "POST", "/images/{name*}/tag", tag_begin, HTTP_BODY_NONE },
        { "DELETE", "/images/{name*}", remove_begin, HTTP_BODY_NONE },
};
const size_t docker_image_routes_length = ELEMENTS(docker_image_routes);
