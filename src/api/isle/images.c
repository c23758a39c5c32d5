/* /isle/v1/images: what Docker's API has not.
 *
 *     POST /isle/v1/images/verify?name=NAME   name absent: all images
 *         200, a stream of JSON records, one a line:
 *         {"kind":"layer blob","image":"4f0c…","digest":"sha256:…","good":true,"problem":""}
 *         and at the end {"checked":12,"bad":0}; a failure on the way is docker's
 *         last record {"errorDetail":{"message":…},"error":…}
 *     POST /isle/v1/images/gc
 *         200 {"Blobs":1,"Layers":0,"Partials":2,"SpaceReclaimed":123}
 */
#include <stdlib.h>

#include "api/reply.h"
#include "api/routes.h"
#include "api/task.h"
#include "api/transfer.h"
#include "base/str.h"
#include "image/image.h"

struct verification {
        struct transfer transfer;
        char *name; /* NULL: all */
        int64_t checked;
};

static void verify_finish(struct transfer *transfer)
{
        free(((struct verification *)transfer)->name);
}

static void verify_report(void *arg, const struct image_check *check)
{
        struct verification *verification = arg;
        struct json_object *record = json_object_new_object();
        put_string(record, "kind", check->kind);
        put_string(record, "image", check->image);
        put_string(record, "digest", check->digest);
        put_bool(record, "good", check->good);
        put_string(record, "problem", check->problem);
        transfer_record(&verification->transfer, record);
        verification->checked++;
}

static void verify_run(struct transfer *transfer)
{
        struct verification *verification = (struct verification *)transfer;
        transfer->r = image_verify(transfer->api->images, verification->name, verify_report,
                                   verification, &transfer->err);
}

static void verify_done(struct transfer *transfer)
{
        struct json_object *record = json_object_new_object();
        put_int(record, "checked", ((struct verification *)transfer)->checked);
        put_int(record, "bad", transfer->r);
        transfer_record(transfer, record);
}

static void verify_begin(struct http_request *request, void *arg)
{
        const char *name = http_request_query(request, "name");
        struct verification *verification = new0(struct verification);
        verification->name = str_empty(name) ? NULL : xstrdup(name);
        verification->transfer.run = verify_run;
        verification->transfer.done = verify_done;
        verification->transfer.finish = verify_finish;
        transfer_submit(arg, request, &verification->transfer);
}

struct collection {
        struct task task;
        struct image_gc_result result;
};

static void gc_run(struct task *task)
{
        task->r = image_gc(task->api->images, &((struct collection *)task)->result, &task->err);
}

static void gc_reply(struct task *task)
{
        const struct image_gc_result *result = &((struct collection *)task)->result;
        struct json_object *reply = json_object_new_object();
        put_int(reply, "Blobs", (int64_t)result->blobs);
        put_int(reply, "Layers", (int64_t)result->layers);
        put_int(reply, "Partials", (int64_t)result->partials);
        put_int(reply, "SpaceReclaimed", (int64_t)result->bytes);
        http_reply_json(task->request, 200, reply);
}

static void gc_begin(struct http_request *request, void *arg)
{
        struct collection *collection = new0(struct collection);
        collection->task.run = gc_run;
        collection->task.reply = gc_reply;
        task_submit(arg, request, &collection->task);
}

const struct http_route isle_image_routes[] = {
        { "POST", "/isle/v1/images/verify", verify_begin, HTTP_BODY_NONE },
        { "POST", "/isle/v1/images/gc", gc_begin, HTTP_BODY_NONE },
};
const size_t isle_image_routes_length = ELEMENTS(isle_image_routes);
