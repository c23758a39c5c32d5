/* Exec sessions. */
#include "engine/exec.h"

#include <errno.h>
#include <stdlib.h>

#include "api/reply.h"
#include "api/routes.h"
#include "base/auto.h"
#include "base/str.h"

static struct exec *find(struct api *api, struct http_request *request)
{
        struct err err = { 0 };
        struct exec *exec = exec_find(api->engine, http_request_param(request, "id"), &err);
        if (!exec)
                api_fail(request, err.code ? -err.code : -ENOENT, &err);
        return exec;
}

static void create_begin(struct http_request *request, void *arg)
{
        struct exec_config config = { 0 };
        const struct exec *exec = NULL;
        struct err err = { 0 };
        struct instance *instance = api_instance(arg, request);
        if (!instance || !api_body_decode(request, &exec_config_shape, &config))
                return;
        int r;
        if (!config.cmd || !*config.cmd)
                r = err_plain(&err, EINVAL, "No exec command specified");
        else if (!str_empty(config.detach_keys) && detach_keys_check(config.detach_keys, &err) < 0)
                r = -EINVAL;
        else
                r = exec_create(instance, &config, &exec, &err);
        json_free(&exec_config_shape, &config);
        if (r < 0) {
                api_fail(request, r, &err);
                return;
        }
        struct json_object *reply = json_object_new_object();
        put_string(reply, "Id", exec->id);
        http_reply_json(request, 201, reply);
}

/* --- start --- */

struct exec_start_body {
        bool detach, tty;
        uint32_t *console_size; /* rows, columns */
        size_t console_size_length;
};

static const struct json_field start_fields[] = {
        JSON_FIELD(struct exec_start_body, "Detach", JSON_BOOL, detach, 0),
        JSON_FIELD(struct exec_start_body, "Tty", JSON_BOOL, tty, 0),
        JSON_FIELD_UINTV(struct exec_start_body, "ConsoleSize", console_size, console_size_length,
                         0),
};
static const struct json_shape start_shape = JSON_SHAPE("exec start", struct exec_start_body,
                                                        start_fields);

struct starting {
        struct api *api;
        char id[INSTANCE_ID_SIZE];
        struct exec_start_options options;
};

static void exec_started(void *arg, int r, const struct err *err)
{
        (void)arg; /* the engine told the client, whose connection is the monitor's now */
        (void)r;
        (void)err;
}

static void start_opened(void *arg, int fd, const void *early, size_t early_size)
{
        auto_free struct starting *starting = arg;
        auto_fd client = fd;
        if (client < 0)
                return;
        struct exec *exec = exec_find(starting->api->engine, starting->id, NULL);
        if (!exec)
                return;
        starting->options.client_fd = take_fd(client);
        starting->options.early = early;
        starting->options.early_size = early_size;
        exec_start(exec, &starting->options, exec_started, starting->api);
}

static void detached(void *arg, int r, const struct err *err)
{
        struct http_request *request = call_take(arg);
        if (!request)
                return;
        if (r < 0)
                api_fail(request, r, err);
        else
                http_reply(request, 200, "text/plain; charset=utf-8", "", 0);
}

static uint16_t console_size(const struct exec_start_body *body, const struct exec *exec, size_t i)
{
        uint32_t size = 0;
        if (body->console_size_length == 2)
                size = body->console_size[i];
        else if (exec->config.console_size_length == 2)
                size = exec->config.console_size[i];
        return (uint16_t)(size > UINT16_MAX ? UINT16_MAX : size);
}

static void start_begin(struct http_request *request, void *arg)
{
        struct api *api = arg;
        struct exec_start_body body = { 0 };
        struct err err = { 0 };
        struct exec *exec = find(api, request);
        if (!exec || !api_body_decode(request, &start_shape, &body))
                return;
        struct exec_start_options options = { .detach = body.detach,
                                              .client_fd = -1,
                                              .tty = exec->config.tty,
                                              .rows = console_size(&body, exec, 0),
                                              .columns = console_size(&body, exec, 1) };
        json_free(&start_shape, &body);
        int r = exec_start_check(exec, &err);
        if (r < 0) {
                api_fail(request, r, &err);
        } else if (options.detach) {
                exec_start(exec, &options, detached, call_create(api, request));
        } else {
                struct starting *starting = new0(struct starting);
                starting->api = api;
                memcpy(starting->id, exec->id, sizeof(starting->id));
                starting->options = options;
                http_upgrade(request, api_stream_type(request, exec->config.tty), start_opened,
                             starting);
        }
}

static void resize_begin(struct http_request *request, void *arg)
{
        struct err err = { 0 };
        int64_t rows = -1, columns = -1;
        struct exec *exec = find(arg, request);
        if (!exec || !api_query_i64(request, "h", &rows) || !api_query_i64(request, "w", &columns))
                return;
        if (rows < 0 || columns < 0 || rows > UINT16_MAX || columns > UINT16_MAX) {
                api_fail_argument(request, "h and w must be given and be sizes of a terminal");
                return;
        }
        int r = exec_resize(exec, (uint16_t)rows, (uint16_t)columns, &err);
        if (r < 0)
                api_fail(request, r, &err);
        else
                http_reply(request, 200, "text/plain; charset=utf-8", "", 0);
}

static void inspect_begin(struct http_request *request, void *arg)
{
        const struct exec *exec = find(arg, request);
        if (!exec)
                return;
        const struct exec_config *config = &exec->config;
        struct json_object *o = json_object_new_object();
        put_string(o, "ID", exec->id);
        put_bool(o, "Running", exec->running);
        put_json(o, "ExitCode", exec->has_exit_code ? json_object_new_int(exec->exit_code) : NULL);
        struct json_object *process = put_object(o, "ProcessConfig");
        put_bool(process, "tty", config->tty);
        put_string(process, "entrypoint", config->cmd ? config->cmd[0] : "");
        put_strings(process, "arguments", config->cmd && config->cmd[0] ? config->cmd + 1 : NULL);
        put_bool(process, "privileged", config->privileged);
        if (!str_empty(config->user))
                put_string(process, "user", config->user);
        put_bool(o, "OpenStdin", config->attach_stdin);
        put_bool(o, "OpenStderr", config->attach_stderr);
        put_bool(o, "OpenStdout", config->attach_stdout);
        put_bool(o, "CanRemove", false);
        put_string(o, "ContainerID", exec->instance_id);
        put_string(o, "DetachKeys", config->detach_keys);
        put_int(o, "Pid", exec->pid);
        http_reply_json(request, 200, o);
}

const struct http_route docker_exec_routes[] = {
        { "POST", "/containers/{id}/exec", create_begin, HTTP_BODY_BUFFERED },
        { "POST", "/exec/{id}/start", start_begin, HTTP_BODY_BUFFERED },
        { "POST", "/exec/{id}/resize", resize_begin, HTTP_BODY_NONE },
        { "GET", "/exec/{id}/json", inspect_begin, HTTP_BODY_NONE },
};
const size_t docker_exec_routes_length = ELEMENTS(docker_exec_routes);
