/* Rows of containers, images and volumes for listing.h: what `ps`, `images` and
 * `volume ls` print, and `system df -v` too. Each takes the API's array and gives
 * an array that the caller puts. */
#pragma once

#include <stdbool.h>

#include "cli/listing.h"

struct json_object;

extern const struct listing container_listing, image_listing, volume_listing;

struct json_object *container_rows(struct json_object *containers, bool whole);
struct json_object *image_rows(struct json_object *images, bool whole);
struct json_object *volume_rows(struct json_object *volumes);
