/* Containers: create, inspect, and everything that changes their state. */
#include "engine/instance.h"

#include <errno.h>
#include <stdlib.h>

#include "api/docker/container_json.h"
#include "api/reply.h"
#include "api/routes.h"
#include "api/task.h"
#include "base/str.h"
#include "image/image.h"
#include "oci/platform.h"

struct instance *api_instance(struct api *api, struct http_request *request)
{
        struct err err = { 0 };
        struct instance *instance = instance_find(api->engine, http_request_param(request, "id"),
                                                  &err);
        if (!instance)
                api_fail(request, err.code ? -err.code : -ENOENT, &err);
        return instance;
}

/* --- create --- */

struct creation {
        struct task task;
        char *name;
        char *platform;
        struct instance_spec spec;
};

static void creation_free(struct task *task)
{
        struct creation *creation = (struct creation *)task;
        spec_finish(&creation->spec);
        free(creation->name);
        free(creation->platform);
}

static void created(void *arg, int r, const struct err *err, struct instance *instance,
                    char *const *warnings)
{
        struct http_request *request = call_take(arg);
        if (!request)
                return;
        if (r < 0) {
                api_fail(request, r, err);
                return;
        }
        struct json_object *reply = json_object_new_object();
        put_string(reply, "Id", instance->id);
        put_strings(reply, "Warnings", warnings);
        http_reply_json(request, 201, reply);
}

static void create_checked(struct task *task)
{
        struct creation *creation = (struct creation *)task;
        instance_create(task->api->engine, creation->name, &creation->spec, created,
                        call_create(task->api, task->request));
}

/* An image of another platform than asked for counts as missing, so that the client pulls. */
static void check_platform(struct task *task)
{
        struct creation *creation = (struct creation *)task;
        struct oci_platform wanted = { 0 };
        auto_image image = NULL;
        const char *name = creation->spec.config.image;
        task->r = oci_platform_parse(creation->platform, &wanted, &task->err);
        if (task->r < 0)
                return;
        task->r = image_resolve(task->api->images, name ? name : "", &image, &task->err);
        if (task->r >= 0) {
                struct oci_platform offer = { .architecture = image->architecture,
                                              .os = image->os,
                                              .variant = image->variant };
                if (oci_platform_score(&offer, &wanted) == 0)
                        task->r = err_plain(&task->err, ENOENT,
                                            "image with reference %s was found but does not match "
                                            "the specified platform: wanted %s, actual: %s/%s",
                                            name, creation->platform, image->os,
                                            image->architecture);
        }
        oci_platform_finish(&wanted);
}

static void create_begin(struct http_request *request, void *arg)
{
        struct api *api = arg;
        struct err err = { 0 };
        struct instance_spec spec = { 0 };
        size_t size;
        const char *body = http_request_body(request, &size);
        const char *name = http_request_query(request, "name");
        const char *platform = http_request_query(request, "platform");
        if (size == 0) {
                api_fail_argument(request, "invalid JSON: got EOF while reading request body");
                return;
        }
        int r = spec_decode_create(body, size, &spec, &err);
        if (r < 0) {
                api_fail(request, r, &err);
        } else if (!str_empty(platform)) {
                struct creation *creation = new0(struct creation);
                creation->name = name ? xstrdup(name) : NULL;
                creation->platform = xstrdup(platform);
                creation->spec = spec;
                creation->task.run = check_platform;
                creation->task.reply = create_checked;
                creation->task.finish = creation_free;
                task_submit(api, request, &creation->task);
        } else {
                instance_create(api->engine, name, &spec, created, call_create(api, request));
                spec_finish(&spec);
        }
}

/* --- inspect --- */

struct sizing {
        struct call *call;
        struct instance *instance;
};

static void sized(void *arg, int r, const struct err *err, uint64_t rw_bytes, uint64_t total_bytes)
{
        auto_free struct sizing *sizing = arg;
        struct api *api = sizing->call->api;
        struct http_request *request = call_take(sizing->call);
        struct container_sizes sizes = { true, rw_bytes, total_bytes };
        if (request && r < 0)
                api_fail(request, r, err);
        else if (request)
                http_reply_json(request, 200, container_details(api, sizing->instance, &sizes));
        instance_unref(sizing->instance);
}

static void inspect_begin(struct http_request *request, void *arg)
{
        struct api *api = arg;
        struct instance *instance = api_instance(api, request);
        if (!instance)
                return;
        if (!http_request_query_bool(request, "size", false)) {
                http_reply_json(request, 200, container_details(api, instance, NULL));
                return;
        }
        struct sizing *sizing = new0(struct sizing);
        sizing->call = call_create(api, request);
        sizing->instance = instance_ref(instance);
        instance_measure(instance, sized, sizing);
}

/* --- state --- */

static void start_begin(struct http_request *request, void *arg)
{
        struct api *api = arg;
        const char *keys = http_request_query(request, "detachKeys");
        struct err err = { 0 };
        struct instance *instance = api_instance(api, request);
        if (!instance)
                return;
        if (!str_empty(keys) && detach_keys_check(keys, &err) < 0)
                api_fail_argument(request, "%s", err_text(&err));
        else if (http_request_query(request, "checkpoint"))
                api_fail_unsupported(request, "starting from a checkpoint is not supported yet");
        else
                instance_start(instance, keys, call_done, call_create(api, request));
}

/* The arguments of stop and restart: `signal`, and `t` in seconds, -1 for ever. */
static bool stop_arguments(struct http_request *request, int *ret_signal, int64_t *ret_timeout_s)
{
        const char *signal = http_request_query(request, "signal");
        struct err err = { 0 };
        int64_t timeout_s = INSTANCE_TIMEOUT_DEFAULT;
        if (!api_query_i64(request, "t", &timeout_s))
                return false;
        int signo = str_empty(signal) ? 0 : instance_signal_parse(signal, &err);
        if (signo < 0) {
                api_fail_argument(request, "%s", err_text(&err));
                return false;
        }
        *ret_signal = signo;
        *ret_timeout_s = timeout_s < 0 && timeout_s != INSTANCE_TIMEOUT_DEFAULT
                                 ? INSTANCE_TIMEOUT_NEVER
                                 : timeout_s;
        return true;
}

static void stop_begin(struct http_request *request, void *arg)
{
        struct api *api = arg;
        int signo;
        int64_t timeout_s;
        struct instance *instance = api_instance(api, request);
        if (instance && stop_arguments(request, &signo, &timeout_s))
                instance_stop(instance, signo, timeout_s, call_done, call_create(api, request));
}

static void restart_begin(struct http_request *request, void *arg)
{
        struct api *api = arg;
        int signo;
        int64_t timeout_s;
        struct instance *instance = api_instance(api, request);
        if (instance && stop_arguments(request, &signo, &timeout_s))
                instance_restart(instance, signo, timeout_s, call_done, call_create(api, request));
}

static void kill_begin(struct http_request *request, void *arg)
{
        struct api *api = arg;
        const char *signal = http_request_query(request, "signal");
        struct err err = { 0 };
        struct instance *instance = api_instance(api, request);
        if (!instance)
                return;
        int signo = instance_signal_parse(str_empty(signal) ? "KILL" : signal, &err);
        if (signo < 0)
                api_fail_argument(request, "%s", err_text(&err));
        else
                instance_kill(instance, signo, call_done, call_create(api, request));
}

static void pause_begin(struct http_request *request, void *arg)
{
        struct api *api = arg;
        struct instance *instance = api_instance(api, request);
        if (instance)
                instance_pause(instance, call_done, call_create(api, request));
}

static void unpause_begin(struct http_request *request, void *arg)
{
        struct api *api = arg;
        struct instance *instance = api_instance(api, request);
        if (instance)
                instance_unpause(instance, call_done, call_create(api, request));
}

static void remove_begin(struct http_request *request, void *arg)
{
        struct api *api = arg;
        bool force = http_request_query_bool(request, "force", false);
        bool volumes = http_request_query_bool(request, "v", false);
        struct instance *instance = api_instance(api, request);
        if (!instance)
                return;
        if (http_request_query_bool(request, "link", false))
                api_fail_unsupported(request, "container links are not supported");
        else
                instance_remove(instance, force, volumes, call_done, call_create(api, request));
}

static void rename_begin(struct http_request *request, void *arg)
{
        struct api *api = arg;
        const char *name = http_request_query(request, "name");
        struct instance *instance = api_instance(api, request);
        if (!instance)
                return;
        if (str_empty(name))
                api_fail_argument(request, "Neither old nor new names may be empty");
        else
                instance_rename(instance, name, call_done, call_create(api, request));
}

static void updated(void *arg, int r, const struct err *err, char *const *warnings)
{
        struct http_request *request = call_take(arg);
        if (!request)
                return;
        if (r < 0) {
                api_fail(request, r, err);
                return;
        }
        struct json_object *reply = json_object_new_object();
        put_strings(reply, "Warnings", warnings);
        http_reply_json(request, 200, reply);
}

static void update_begin(struct http_request *request, void *arg)
{
        struct api *api = arg;
        struct host_config host = { 0 };
        struct instance *instance = api_instance(api, request);
        if (!instance || !api_body_decode(request, &update_shape, &host))
                return;
        instance_update(instance, &host, updated, call_create(api, request));
        json_free(&update_shape, &host);
}

static void resize_begin(struct http_request *request, void *arg)
{
        struct err err = { 0 };
        int64_t rows = -1, columns = -1;
        struct instance *instance = api_instance(arg, request);
        if (!instance || !api_query_i64(request, "h", &rows) ||
            !api_query_i64(request, "w", &columns))
                return;
        if (rows < 0 || columns < 0 || rows > UINT16_MAX || columns > UINT16_MAX) {
                api_fail_argument(request, "h and w must be given and be sizes of a terminal");
                return;
        }
        int r = instance_resize(instance, (uint16_t)rows, (uint16_t)columns, &err);
        if (r < 0)
                api_fail(request, r, &err);
        else
                http_reply(request, 200, "text/plain; charset=utf-8", "", 0);
}

/* --- wait: the head goes at once, the body when it is time; `docker run` waits
 * for the head before it starts the container --- */

struct waiting {
        struct http_request *request;
        struct instance_wait *wait;
};

static void wait_done(void *arg, int exit_code, const char *error)
{
        auto_free struct waiting *waiting = arg;
        struct json_object *reply = json_object_new_object();
        put_int(reply, "StatusCode", exit_code);
        if (error)
                put_string(put_object(reply, "Error"), "Message", error);
        http_request_on_close(waiting->request, NULL, NULL);
        stream_json(waiting->request, reply);
        http_stream_end(waiting->request);
}

static void wait_gone(void *arg)
{
        auto_free struct waiting *waiting = arg;
        instance_wait_cancel(waiting->wait);
}

static void wait_begin(struct http_request *request, void *arg)
{
        static const struct {
                const char *name;
                enum instance_condition condition;
        } conditions[] = { { "not-running", WAIT_NOT_RUNNING },
                           { "next-exit", WAIT_NEXT_EXIT },
                           { "removed", WAIT_REMOVED } };
        const char *name = http_request_query(request, "condition");
        struct instance *instance = api_instance(arg, request);
        if (!instance)
                return;
        size_t i = 0;
        while (i < ELEMENTS(conditions) && !str_empty(name) && !streq(conditions[i].name, name))
                i++;
        if (i == ELEMENTS(conditions)) {
                api_fail_argument(request, "invalid condition: \"%s\"", name);
                return;
        }
        struct waiting *waiting = new0(struct waiting);
        waiting->request = request;
        waiting->wait = instance_wait(instance, conditions[i].condition, wait_done, waiting);
        http_request_on_close(request, wait_gone, waiting);
        http_stream_begin(request, 200, "application/json");
}

/* --- looking inside --- */

static void topped(void *arg, int r, const struct err *err, const struct instance_top *top)
{
        struct http_request *request = call_take(arg);
        if (!request)
                return;
        if (r < 0) {
                api_fail(request, r, err);
                return;
        }
        struct json_object *reply = json_object_new_object();
        put_strings(reply, "Titles", top->titles);
        struct json_object *rows = put_array(reply, "Processes");
        for (char ***row = top->rows; row && *row; row++) {
                struct json_object *values = json_object_new_array();
                for (char **value = *row; *value; value++)
                        push_string(values, *value);
                push_json(rows, values);
        }
        http_reply_json(request, 200, reply);
}

static void top_begin(struct http_request *request, void *arg)
{
        struct api *api = arg;
        struct instance *instance = api_instance(api, request);
        if (instance)
                instance_top(instance, http_request_query(request, "ps_args"), topped,
                             call_create(api, request));
}

static void changed(void *arg, int r, const struct err *err, const struct instance_change *changes,
                    size_t length)
{
        struct http_request *request = call_take(arg);
        if (!request)
                return;
        if (r < 0) {
                api_fail(request, r, err);
                return;
        }
        struct json_object *reply = json_object_new_array();
        for (size_t i = 0; i < length; i++) {
                struct json_object *change = json_object_new_object();
                put_int(change, "Kind", changes[i].kind);
                put_string(change, "Path", changes[i].path);
                push_json(reply, change);
        }
        http_reply_json(request, 200, reply);
}

static void changes_begin(struct http_request *request, void *arg)
{
        struct api *api = arg;
        struct instance *instance = api_instance(api, request);
        if (instance)
                instance_changes(instance, changed, call_create(api, request));
}

const struct http_route docker_container_routes[] = {
        { "POST", "/containers/create", create_begin, HTTP_BODY_BUFFERED },
        { "GET", "/containers/{id}/json", inspect_begin, HTTP_BODY_NONE },
        { "POST", "/containers/{id}/start", start_begin, HTTP_BODY_NONE },
        { "POST", "/containers/{id}/stop", stop_begin, HTTP_BODY_NONE },
        { "POST", "/containers/{id}/restart", restart_begin, HTTP_BODY_NONE },
        { "POST", "/containers/{id}/kill", kill_begin, HTTP_BODY_NONE },
        { "POST", "/containers/{id}/pause", pause_begin, HTTP_BODY_NONE },
        { "POST", "/containers/{id}/unpause", unpause_begin, HTTP_BODY_NONE },
        { "POST", "/containers/{id}/wait", wait_begin, HTTP_BODY_NONE },
        { "POST", "/containers/{id}/rename", rename_begin, HTTP_BODY_NONE },
        { "POST", "/containers/{id}/update", update_begin, HTTP_BODY_BUFFERED },
        { "POST", "/containers/{id}/resize", resize_begin, HTTP_BODY_NONE },
        { "GET", "/containers/{id}/top", top_begin, HTTP_BODY_NONE },
        { "GET", "/containers/{id}/changes", changes_begin, HTTP_BODY_NONE },
        { "DELETE", "/containers/{id}", remove_begin, HTTP_BODY_NONE },
};
const size_t docker_container_routes_length = ELEMENTS(docker_container_routes);
