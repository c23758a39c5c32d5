/* Disk use of instances and volumes, for `system df`. */
#pragma once

#include "engine/instance.h"

struct usage_entry {
        char *id; /* of the instance, or the volume's name */
        uint64_t bytes;
};
struct engine_usage {
        struct usage_entry *instances, *volumes;
        size_t instances_length, volumes_length;
};
/* `usage` is borrowed. */
typedef void engine_used(void *arg, int r, const struct err *err, const struct engine_usage *usage);
void engine_usage(struct engine *engine, engine_used *done, void *arg);
