/* What docker's clients may ask for and Isle does not do (yet): each a clear
 * answer that says what to do instead, in the last table so that it hides nothing. */
#include "api/reply.h"
#include "api/routes.h"
#include "base/str.h"

static void swarm_begin(struct http_request *request, void *arg)
{
        (void)arg;
        http_reply_error(request, 503,
                         "This node is not a swarm manager: clusters are not implemented yet");
}

static void build_begin(struct http_request *request, void *arg)
{
        (void)arg;
        api_fail_unsupported(request, "building images is not supported; build elsewhere and push "
                                      "to a registry, or use docker import or docker load");
}

static void search_begin(struct http_request *request, void *arg)
{
        (void)arg;
        http_reply_error(request, 404,
                         "searching registries is not supported; name the image you want, such as "
                         "docker.io/library/debian:12");
}

static void commit_begin(struct http_request *request, void *arg)
{
        (void)arg;
        api_fail_unsupported(request, "committing a container is not supported yet; use docker "
                                      "export and docker import");
}

static void checkpoint_begin(struct http_request *request, void *arg)
{
        if (api_instance(arg, request))
                api_fail_unsupported(request, "checkpoints are not supported yet");
}

static void distribution_begin(struct http_request *request, void *arg)
{
        (void)arg;
        api_fail_unsupported(request, "looking at an image in its registry is not supported; pull "
                                      "it and use docker image inspect");
}

/* `docker system prune` and `docker builder prune` ask; there is no build cache. */
static void build_prune_begin(struct http_request *request, void *arg)
{
        (void)arg;
        struct json_object *reply = json_object_new_object();
        put_array(reply, "CachesDeleted");
        put_int(reply, "SpaceReclaimed", 0);
        http_reply_json(request, 200, reply);
}

static void plugins_begin(struct http_request *request, void *arg)
{
        (void)arg;
        http_reply_json(request, 200, json_object_new_array());
}

static void plugin_begin(struct http_request *request, void *arg)
{
        (void)arg;
        http_reply_error(request, 404, "plugin \"%s\" not found",
                         http_request_param(request, "name"));
}

const struct http_route docker_refused_routes[] = {
        { "POST", "/build/prune", build_prune_begin, HTTP_BODY_NONE },
        { "POST", "/build/cancel", build_begin, HTTP_BODY_NONE },
        { "POST", "/build", build_begin, HTTP_BODY_NONE },
        { "POST", "/session", build_begin, HTTP_BODY_NONE },
        { "POST", "/grpc", build_begin, HTTP_BODY_NONE },
        { "GET", "/images/search", search_begin, HTTP_BODY_NONE },
        { "POST", "/commit", commit_begin, HTTP_BODY_NONE },
        { "GET", "/containers/{id}/checkpoints", checkpoint_begin, HTTP_BODY_NONE },
        { "POST", "/containers/{id}/checkpoints", checkpoint_begin, HTTP_BODY_NONE },
        { "GET", "/distribution/{name*}/json", distribution_begin, HTTP_BODY_NONE },
        { "GET", "/plugins", plugins_begin, HTTP_BODY_NONE },
        { "GET", "/plugins/{name*}/json", plugin_begin, HTTP_BODY_NONE },
        { "GET", "/swarm", swarm_begin, HTTP_BODY_NONE },
        { "POST", "/swarm/{verb}", swarm_begin, HTTP_BODY_NONE },
        { "GET", "/nodes", swarm_begin, HTTP_BODY_NONE },
        { "GET", "/nodes/{id}", swarm_begin, HTTP_BODY_NONE },
        { "GET", "/services", swarm_begin, HTTP_BODY_NONE },
        { "GET", "/services/{id}", swarm_begin, HTTP_BODY_NONE },
        { "POST", "/services/create", swarm_begin, HTTP_BODY_NONE },
        { "GET", "/tasks", swarm_begin, HTTP_BODY_NONE },
        { "GET", "/tasks/{id}", swarm_begin, HTTP_BODY_NONE },
        { "GET", "/secrets", swarm_begin, HTTP_BODY_NONE },
        { "GET", "/secrets/{id}", swarm_begin, HTTP_BODY_NONE },
        { "GET", "/configs", swarm_begin, HTTP_BODY_NONE },
        { "GET", "/configs/{id}", swarm_begin, HTTP_BODY_NONE },
};
const size_t docker_refused_routes_length = ELEMENTS(docker_refused_routes);
