/* The tables of routes, one a topic, in the file named so, and what their
 * functions share. */
#pragma once

#include <stddef.h>

#include "api/api.h"
#include "http/server.h"

struct instance;

extern const struct http_route docker_system_routes[];
extern const size_t docker_system_routes_length;
extern const struct http_route docker_container_list_routes[];
extern const size_t docker_container_list_routes_length;
extern const struct http_route docker_container_routes[];
extern const size_t docker_container_routes_length;
extern const struct http_route docker_attach_routes[];
extern const size_t docker_attach_routes_length;
extern const struct http_route docker_exec_routes[];
extern const size_t docker_exec_routes_length;
extern const struct http_route docker_archive_routes[];
extern const size_t docker_archive_routes_length;
extern const struct http_route docker_stats_routes[];
extern const size_t docker_stats_routes_length;
extern const struct http_route docker_image_routes[];
extern const size_t docker_image_routes_length;
extern const struct http_route docker_image_transfer_routes[];
extern const size_t docker_image_transfer_routes_length;
extern const struct http_route docker_volume_routes[];
extern const size_t docker_volume_routes_length;
extern const struct http_route docker_network_routes[];
extern const size_t docker_network_routes_length;
extern const struct http_route docker_event_routes[];
extern const size_t docker_event_routes_length;
extern const struct http_route docker_usage_routes[];
extern const size_t docker_usage_routes_length;
extern const struct http_route docker_refused_routes[];
extern const size_t docker_refused_routes_length;
extern const struct http_route isle_image_routes[];
extern const size_t isle_image_routes_length;

/* The instance that the path's {id} names; answers and returns NULL where there is none. */
struct instance *api_instance(struct api *api, struct http_request *request);

/* Content type of an instance's output: raw with a terminal, and for clients older
 * than API 1.42; else multiplexed. */
const char *api_stream_type(const struct http_request *request, bool tty);
