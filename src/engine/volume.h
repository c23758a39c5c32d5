/* Volumes: named directories ROOT/volumes/NAME/_data that outlive instances.
 * Driver "local" only; its options type, o, device (nfs, tmpfs …) are refused. */
#pragma once

#include "engine/instance.h"

struct volume {
        char *name;
        char *mountpoint;
        char **labels;  /* map */
        char **options; /* map */
        bool anonymous;
        int64_t created_ns;
        unsigned users; /* instances that mount it */
        struct volume_private *private;
};

/* The body of POST /volumes/create. */
struct volume_request {
        char *name; /* "" draws a random id: an anonymous volume */
        char *driver;
        char **driver_opts;                      /* map */
        char **labels;                           /* map */
        struct json_object *cluster_volume_spec; /* refused */
};
extern const struct json_shape volume_request_shape;

typedef void volume_created(void *arg, int r, const struct err *err, struct volume *volume);
/* An existing one of that name is success (as docker). */
void volume_create(struct engine *engine, const struct volume_request *request,
                   volume_created *done, void *arg);
/* "get x: no such volume". */
struct volume *volume_find(struct engine *engine, const char *name, struct err *err);
/* By name, ascending. Do not return to the loop between. */
struct volume *volume_first(struct engine *engine);
struct volume *volume_next(struct volume *volume);
/* -EBUSY when in use: "remove x: volume is in use - [ids]". */
void volume_remove(struct engine *engine, const char *name, bool force, engine_done *done,
                   void *arg);
/* Unused anonymous ones, or all unused ones with filter->all. */
void volume_prune(struct engine *engine, const struct prune_filter *filter, engine_pruned *done,
                  void *arg);
