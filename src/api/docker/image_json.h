/* Images in docker's JSON, and who uses them. */
#pragma once

#include <stdint.h>

#include "codec/json.h"

struct api;
struct http_request;
struct image;
struct image_removal;
struct image_use;

/* What the image store must know about instances; taken on the loop's thread, free to
 * go to another. */
struct image_uses {
        struct image_use *items;
        size_t length;
};
void image_uses_collect(const struct api *api, struct image_uses *ret);
void image_uses_finish(struct image_uses *uses);

/* A row of GET /images/json; `containers` and `shared_bytes` are -1 where not asked for. */
struct json_object *image_summary(const struct image *image, int64_t containers,
                                  int64_t shared_bytes);
/* GET /images/{name}/json */
struct json_object *image_details(const struct image *image);
/* [{"Untagged":…},{"Deleted":…}] */
struct json_object *image_removal_json(const struct image_removal *removal);

/* docker's events of an image: `id` is its id or name, `name` goes into the attributes. */
void image_event_emit(struct api *api, const char *action, const char *id, const char *name);
void image_removal_emit(struct api *api, const struct image_removal *removal);
