/* Attach: the client's connection is handed to the instance's monitor. And logs. */
#include <errno.h>
#include <stdlib.h>

#include "api/reply.h"
#include "api/routes.h"
#include "base/auto.h"
#include "base/clock.h"
#include "base/str.h"
#include "engine/instance.h"
#include "engine/logs.h"

const char *api_stream_type(const struct http_request *request, bool tty)
{
        unsigned version = http_request_version(request);
        return tty || (version && version < 42) ? "application/vnd.docker.raw-stream"
                                                : "application/vnd.docker.multiplexed-stream";
}

struct attach {
        struct api *api;
        char id[INSTANCE_ID_SIZE];
        char *detach_keys;
        struct attach_options options;
};

static void attach_opened(void *arg, int fd, const void *early, size_t early_size)
{
        auto_free struct attach *attach = arg;
        auto_free char *keys = attach->detach_keys;
        auto_fd client = fd;
        if (client < 0)
                return;
        struct instance *instance = instance_find(attach->api->engine, attach->id, NULL);
        attach->options.detach_keys = keys;
        attach->options.early = early;
        attach->options.early_size = early_size;
        /* The head is out: what fails now shows as the end of the stream. */
        if (instance && early_size <= ATTACH_EARLY_MAX)
                instance_attach(instance, &attach->options, take_fd(client), NULL);
}

static bool attach_allowed(struct http_request *request, const struct instance *instance)
{
        if (instance->state == INSTANCE_PAUSED)
                http_reply_error(request, 409,
                                 "container %s is paused, unpause the container before attach",
                                 instance->id);
        else if (instance->state == INSTANCE_RESTARTING)
                http_reply_error(request, 409,
                                 "container %s is restarting, wait until the container is running",
                                 instance->id);
        else
                return true;
        return false;
}

static void attach_begin(struct http_request *request, void *arg)
{
        struct api *api = arg;
        const char *keys = http_request_query(request, "detachKeys");
        struct err err = { 0 };
        struct instance *instance = api_instance(api, request);
        if (!instance || !attach_allowed(request, instance))
                return;
        if (!str_empty(keys) && detach_keys_check(keys, &err) < 0) {
                api_fail_argument(request, "%s", err_text(&err));
                return;
        }
        struct attach *attach = new0(struct attach);
        attach->api = api;
        memcpy(attach->id, instance->id, sizeof(attach->id));
        attach->detach_keys = str_empty(keys) ? NULL : xstrdup(keys);
        attach->options.in = http_request_query_bool(request, "stdin", false);
        attach->options.out = http_request_query_bool(request, "stdout", false);
        attach->options.err = http_request_query_bool(request, "stderr", false);
        attach->options.logs = http_request_query_bool(request, "logs", false);
        attach->options.stream = http_request_query_bool(request, "stream", false);
        http_upgrade(request, api_stream_type(request, instance->spec.config.tty), attach_opened,
                     attach);
}

/* --- logs --- */

static int log_arguments(struct http_request *request, struct log_query *query, struct err *err)
{
        int64_t now_ns = clock_realtime_ns();
        const char *since = http_request_query(request, "since");
        const char *until = http_request_query(request, "until");
        const char *tail = http_request_query(request, "tail");
        query->out = http_request_query_bool(request, "stdout", false);
        query->err = http_request_query_bool(request, "stderr", false);
        query->follow = http_request_query_bool(request, "follow", false);
        query->timestamps = http_request_query_bool(request, "timestamps", false);
        query->details = http_request_query_bool(request, "details", false);
        query->tail = -1;
        if (!query->out && !query->err)
                return err_plain(err, EINVAL,
                                 "Bad parameters: you must choose at least one stream");
        if (!str_empty(since) && log_time_parse(since, now_ns, &query->since_ns, err) < 0)
                return err_wrap(err, "invalid value for \"since\"");
        if (!str_empty(until) && log_time_parse(until, now_ns, &query->until_ns, err) < 0)
                return err_wrap(err, "invalid value for \"until\"");
        /* As docker: what is not a number is "all". */
        if (!str_empty(tail) && (str_to_i64(tail, &query->tail) < 0 || query->tail < 0))
                query->tail = -1;
        return 0;
}

static void logs_begin(struct http_request *request, void *arg)
{
        struct log_query query = { 0 };
        struct err err = { 0 };
        int fd = -1;
        struct instance *instance = api_instance(arg, request);
        if (!instance)
                return;
        int r = log_arguments(request, &query, &err);
        if (r >= 0)
                r = instance_logs(instance, &query, &fd, &err);
        if (r < 0)
                api_fail(request, r, &err);
        else
                http_reply_fd(request, 200, api_stream_type(request, instance->spec.config.tty),
                              fd);
}

static void websocket_begin(struct http_request *request, void *arg)
{
        if (api_instance(arg, request))
                api_fail_unsupported(request, "attaching over a websocket is not supported; use "
                                              "POST /containers/{id}/attach");
}

const struct http_route docker_attach_routes[] = {
        { "POST", "/containers/{id}/attach", attach_begin, HTTP_BODY_NONE },
        { "GET", "/containers/{id}/attach/ws", websocket_begin, HTTP_BODY_NONE },
        { "GET", "/containers/{id}/logs", logs_begin, HTTP_BODY_NONE },
};
const size_t docker_attach_routes_length = ELEMENTS(docker_attach_routes);
