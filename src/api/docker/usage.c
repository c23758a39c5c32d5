/* Disk use: docker system df. The image store is asked on a worker, the engine
 * afterwards; the answer is put together when both have spoken. */
#include "engine/usage.h"

#include <stdlib.h>

#include "api/docker/container_json.h"
#include "api/docker/image_json.h"
#include "api/docker/volume_json.h"
#include "api/reply.h"
#include "api/routes.h"
#include "api/task.h"
#include "base/clock.h"
#include "base/str.h"
#include "engine/volume.h"
#include "image/image.h"

struct usage {
        struct task task;
        struct image_uses uses;
        struct image_disk_usage disk;
        struct json_object *images; /* GET /images/json with containers and shared sizes */
};

static void usage_finish(struct task *task)
{
        struct usage *usage = (struct usage *)task;
        image_uses_finish(&usage->uses);
        json_object_put(usage->images);
}

static int64_t users_of(const struct image_uses *uses, const char *image_id)
{
        int64_t users = 0;
        for (size_t i = 0; i < uses->length; i++)
                users += streq(uses->items[i].image_id, image_id);
        return users;
}

static void usage_run(struct task *task)
{
        struct usage *usage = (struct usage *)task;
        struct image_store *store = task->api->images;
        struct image **images = NULL;
        size_t length = 0;
        task->r = image_usage(store, usage->uses.items, usage->uses.length, &usage->disk,
                              &task->err);
        if (task->r >= 0)
                task->r = image_list(store, NULL, &images, &length, &task->err);
        if (task->r < 0)
                return;
        usage->images = json_object_new_array();
        for (size_t i = 0; i < length; i++) {
                uint64_t shared = 0;
                image_shared_size(store, images[i], &shared, NULL);
                push_json(usage->images,
                          image_summary(images[i], users_of(&usage->uses, images[i]->id.text),
                                        (int64_t)shared));
        }
        image_list_free(images, length);
}

/* The second half: what the image store said, waiting for the engine. */
struct second {
        struct call *call;
        struct json_object *reply;
};

static int64_t bytes_of(const struct usage_entry *entries, size_t length, const char *id)
{
        for (size_t i = 0; i < length; i++)
                if (streq(entries[i].id, id))
                        return (int64_t)entries[i].bytes;
        return 0;
}

static void put_containers(struct json_object *object, struct engine *engine,
                           const struct engine_usage *usage)
{
        struct json_object *list = put_array(object, "Containers");
        int64_t now_ns = clock_realtime_ns();
        for (struct instance *i = instance_first(engine); i; i = instance_next(i)) {
                int64_t bytes = bytes_of(usage->instances, usage->instances_length, i->id);
                struct container_sizes sizes = { true, (uint64_t)bytes, (uint64_t)bytes };
                push_json(list, container_summary(i, &sizes, now_ns));
        }
}

static void put_volumes(struct json_object *object, struct engine *engine,
                        const struct engine_usage *usage)
{
        struct json_object *list = put_array(object, "Volumes");
        for (struct volume *v = volume_first(engine); v; v = volume_next(v))
                push_json(list,
                          volume_json(v, bytes_of(usage->volumes, usage->volumes_length, v->name)));
}

static void used(void *arg, int r, const struct err *err, const struct engine_usage *usage)
{
        auto_free struct second *second = arg;
        struct engine *engine = second->call->api->engine;
        struct http_request *request = call_take(second->call);
        if (!request || r < 0) {
                json_object_put(second->reply);
                if (request)
                        api_fail(request, r, err);
                return;
        }
        put_containers(second->reply, engine, usage);
        put_volumes(second->reply, engine, usage);
        put_array(second->reply, "BuildCache");
        http_reply_json(request, 200, second->reply);
}

static void usage_reply(struct task *task)
{
        const struct usage *usage = (struct usage *)task;
        struct second *second = new0(struct second);
        second->call = call_create(task->api, task->request);
        second->reply = json_object_new_object();
        put_int(second->reply, "LayersSize", (int64_t)usage->disk.layers_bytes);
        put_json(second->reply, "Images", json_object_get(usage->images));
        engine_usage(task->api->engine, used, second);
}

static void usage_begin(struct http_request *request, void *arg)
{
        struct usage *usage = new0(struct usage);
        image_uses_collect(arg, &usage->uses);
        usage->task.run = usage_run;
        usage->task.reply = usage_reply;
        usage->task.finish = usage_finish;
        task_submit(arg, request, &usage->task);
}

const struct http_route docker_usage_routes[] = {
        { "GET", "/system/df", usage_begin, HTTP_BODY_NONE },
};
const size_t docker_usage_routes_length = ELEMENTS(docker_usage_routes);
