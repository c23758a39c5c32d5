/* The API room: what `isled` answers on its sockets.
 *
 * Two families of routes on one server. `docker/` is the Docker Engine API
 * (API_VERSION_MIN to API_VERSION of its specification), with docker's JSON
 * shapes, status codes and error texts, so that docker's own command line and
 * libraries work unchanged. `isle/` is `/isle/v1/…`, for what Docker has not;
 * nothing is offered in both.
 *
 * One file a topic; each ends in its table of routes. A route's function runs on
 * the loop's thread and never blocks: it answers at once from the engine's
 * memory, or asks the engine to do something (reply.h: struct call), or gives
 * blocking work to a worker (task.h) or, for transfers as slow as their client,
 * to a thread of its own (transfer.h).
 *
 * Everything here belongs to the loop's thread unless said otherwise.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct engine;
struct http_server;
struct http_route;
struct image_store;
struct loop;
struct workers;

#define API_VERSION           "1.47"
#define API_VERSION_MIN       "1.24"
#define API_VERSION_MINOR     47
#define API_VERSION_MIN_MINOR 24

/* What /info tells about this daemon; the strings are the caller's and outlive the api. */
struct api_settings {
        const char *root_dir;
        const char *run_dir;
        const char *id; /* of this installation */
        char *const *insecure_registries;
};

struct api {
        struct loop *loop;
        struct workers *workers;
        struct image_store *images;
        struct engine *engine;
        struct api_settings settings;
        unsigned transfers; /* threads of transfer.h that run */
        struct http_route *routes;
        size_t routes_length;
};

/* Everything given must outlive the api. */
int api_create(const struct api *parts, struct api **ret, struct err *err);
/* After its server is destroyed: lets the transfers see that their clients are gone,
 * and end. False where some did not within two seconds; then the api, and what it was
 * given, must stay until the process ends. */
bool api_drain(struct api *api);
/* Drained. NULL is fine. */
void api_destroy(struct api *api);

/* The table for http_server_create(), whose `arg` is the api. */
const struct http_route *api_routes(const struct api *api, size_t *ret_length);
