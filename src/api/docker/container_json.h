/* Instances in docker's JSON: a row of the list, and inspect's whole. */
#pragma once

#include <stdint.h>

#include "codec/json.h"

struct api;
struct instance;

/* SizeRw and SizeRootFs are there only where known. */
struct container_sizes {
        bool known;
        uint64_t rw_bytes, total_bytes;
};

/* One element of GET /containers/json. The caller puts it. */
struct json_object *container_summary(struct instance *instance,
                                      const struct container_sizes *sizes, int64_t now_ns);
/* GET /containers/{id}/json. */
struct json_object *container_details(const struct api *api, struct instance *instance,
                                      const struct container_sizes *sizes);

/* "none", "host", or NULL where the instance uses another's network. */
const char *container_network(const struct instance *instance);
/* The fixed id of one of the networks above. */
const char *network_id(const char *name);
