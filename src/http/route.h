/* Matching a path against the table of routes. Pure; see server.h for the patterns. */
#pragma once

#include <stddef.h>

#include "base/buf.h"
#include "http/server.h"

#define ROUTE_PARAMS_LIMIT 4

struct route_param {
        const char *name; /* within the pattern */
        size_t name_length;
        char *value; /* decoded, heap */
};

struct route_match {
        const struct http_route *route;
        struct route_param params[ROUTE_PARAMS_LIMIT];
        size_t length;
};

/* Takes "/v1.44" off the front: returns the rest and the 44, or `path` and 0. */
const char *route_skip_version(const char *path, unsigned *ret_version);

/* `path` is still percent-encoded. -ENOENT where no pattern fits; -EOPNOTSUPP where
 * one does but not for this method, with the fitting ones in `allow` ("GET, HEAD");
 * -EINVAL for a bad escape. */
int route_find(const struct http_route *routes, size_t length, const char *method, const char *path,
               struct route_match *ret, struct buf *allow);
void route_match_finish(struct route_match *match);

/* Whether a pattern is one the matcher can serve. */
bool route_is_valid(const struct http_route *route);
