/* Files of containers: docker cp and docker export. */
#include "engine/archive.h"

#include <stdlib.h>

#include "api/base64.h"
#include "api/reply.h"
#include "api/routes.h"
#include "base/str.h"

/* The path argument; answers 400 where it is missing. */
static const char *path_argument(struct http_request *request)
{
        const char *path = http_request_query(request, "path");
        if (str_empty(path)) {
                api_fail_argument(request, "bad parameter: the path cannot be empty");
                return NULL;
        }
        return path;
}

static void reply_stat_header(struct http_request *request, const struct archive_stat *stat)
{
        auto_free char *json = archive_stat_json(stat);
        auto_free char *header = base64_encode(json, strlen(json));
        http_reply_header(request, "X-Docker-Container-Path-Stat", header);
}

static void archive_ready(void *arg, int r, const struct err *err, const struct archive_stat *stat,
                          int fd)
{
        auto_fd stream = fd;
        struct http_request *request = call_take(arg);
        if (!request)
                return;
        if (r < 0) {
                api_fail(request, r, err);
                return;
        }
        if (stat)
                reply_stat_header(request, stat);
        if (stream >= 0)
                http_reply_fd(request, 200, "application/x-tar", take_fd(stream));
        else
                http_reply(request, 200, NULL, NULL, 0);
}

static void stat_begin(struct http_request *request, void *arg)
{
        struct api *api = arg;
        struct instance *instance = api_instance(api, request);
        const char *path = instance ? path_argument(request) : NULL;
        if (path)
                instance_archive_stat(instance, path, archive_ready, call_create(api, request));
}

static void get_begin(struct http_request *request, void *arg)
{
        struct api *api = arg;
        struct instance *instance = api_instance(api, request);
        const char *path = instance ? path_argument(request) : NULL;
        if (path)
                instance_archive_get(instance, path, archive_ready, call_create(api, request));
}

static void put_done(void *arg, int r, const struct err *err)
{
        struct http_request *request = call_take(arg);
        if (!request)
                return;
        if (r < 0)
                api_fail(request, r, err);
        else if (!http_request_body_complete(request))
                api_fail_argument(request, "the archive was cut short");
        else
                http_reply(request, 200, NULL, NULL, 0);
}

static void put_begin(struct http_request *request, void *arg)
{
        struct api *api = arg;
        struct instance *instance = api_instance(api, request);
        const char *path = instance ? path_argument(request) : NULL;
        struct archive_put_options options = {
                .no_overwrite_dir_non_dir = http_request_query_bool(request, "noOverwriteDirNonDir",
                                                                    false),
                .copy_uid_gid = http_request_query_bool(request, "copyUIDGID", false),
        };
        if (path)
                instance_archive_put(instance, path, &options, http_request_body_fd(request),
                                     put_done, call_create(api, request));
}

static void export_begin(struct http_request *request, void *arg)
{
        struct api *api = arg;
        struct instance *instance = api_instance(api, request);
        if (instance)
                instance_export(instance, archive_ready, call_create(api, request));
}

const struct http_route docker_archive_routes[] = {
        { "HEAD", "/containers/{id}/archive", stat_begin, HTTP_BODY_NONE },
        { "GET", "/containers/{id}/archive", get_begin, HTTP_BODY_NONE },
        { "PUT", "/containers/{id}/archive", put_begin, HTTP_BODY_PIPE },
        { "GET", "/containers/{id}/export", export_begin, HTTP_BODY_NONE },
};
const size_t docker_archive_routes_length = ELEMENTS(docker_archive_routes);
