#include "api/api.h"

#include <stdlib.h>

#include "api/reply.h"
#include "api/routes.h"
#include "base/clock.h"
#include "base/str.h"
#include "http/server.h"
#include "loop/loop.h"

#define DRAIN_NS (2 * NS_PER_S)

static const struct {
        const struct http_route *routes;
        const size_t *length;
} topics[] = {
        { docker_system_routes, &docker_system_routes_length },
        { docker_container_list_routes, &docker_container_list_routes_length },
        { docker_container_routes, &docker_container_routes_length },
        { docker_attach_routes, &docker_attach_routes_length },
        { docker_exec_routes, &docker_exec_routes_length },
        { docker_archive_routes, &docker_archive_routes_length },
        { docker_stats_routes, &docker_stats_routes_length },
        { docker_image_transfer_routes, &docker_image_transfer_routes_length },
        { docker_image_routes, &docker_image_routes_length },
        { docker_volume_routes, &docker_volume_routes_length },
        { docker_network_routes, &docker_network_routes_length },
        { docker_event_routes, &docker_event_routes_length },
        { docker_usage_routes, &docker_usage_routes_length },
        { isle_image_routes, &isle_image_routes_length },
        { docker_refused_routes, &docker_refused_routes_length },
};

/* Every route is entered here: the client's version is checked, and the headers
 * that docker sends with every reply are set. The route's own row is its data. */
static void enter(struct http_request *request, void *arg)
{
        const struct http_route *route = http_request_route(request)->data;
        unsigned version = http_request_version(request);
        http_reply_header(request, "Api-Version", API_VERSION);
        http_reply_header(request, "Ostype", "linux");
        http_reply_header(request, "Docker-Experimental", "false");
        http_reply_header(request, "Server", "Isle/" ISLE_VERSION " (linux)");
        if (version > API_VERSION_MINOR)
                api_fail_argument(request,
                                  "client version 1.%u is too new. Maximum supported API version "
                                  "is " API_VERSION,
                                  version);
        else if (version && version < API_VERSION_MIN_MINOR)
                api_fail_argument(request,
                                  "client version 1.%u is too old. Minimum supported API version "
                                  "is " API_VERSION_MIN ", please upgrade your client to a newer "
                                  "version",
                                  version);
        else
                route->begin(request, arg);
}

int api_create(const struct api *parts, struct api **ret, struct err *err)
{
        (void)err;
        struct api *api = xmemdup(parts, sizeof(*parts));
        api->transfers = 0;
        api->routes_length = 0;
        for (size_t i = 0; i < ELEMENTS(topics); i++)
                api->routes_length += *topics[i].length;
        api->routes = xcalloc(api->routes_length, sizeof(*api->routes));
        struct http_route *next = api->routes;
        for (size_t i = 0; i < ELEMENTS(topics); i++) {
                for (size_t k = 0; k < *topics[i].length; k++, next++) {
                        *next = topics[i].routes[k];
                        next->data = &topics[i].routes[k];
                        next->begin = enter;
                }
        }
        *ret = api;
        return 0;
}

bool api_drain(struct api *api)
{
        int64_t deadline_ns = clock_monotonic_ns() + DRAIN_NS;
        while (api->transfers > 0) {
                int64_t left_ns = deadline_ns - clock_monotonic_ns();
                if (left_ns <= 0)
                        return false;
                loop_step(api->loop, left_ns);
        }
        return true;
}

void api_destroy(struct api *api)
{
        if (!api)
                return;
        free(api->routes);
        free(api);
}

const struct http_route *api_routes(const struct api *api, size_t *ret_length)
{
        *ret_length = api->routes_length;
        return api->routes;
}
