/* A volume in docker's JSON. */
#pragma once

#include <stdint.h>

#include "codec/json.h"

struct volume;

/* With UsageData where size_bytes >= 0. The caller puts it. */
struct json_object *volume_json(const struct volume *volume, int64_t size_bytes);
