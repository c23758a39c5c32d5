/* What the image store writes into the state store, and how it is read back.
 *
 * Records are JSON, decoded by shapes: whatever stands there, decoding gives a
 * value or a clean error (fuzz_record). Digests are text and not verified here;
 * who uses one parses it.
 *
 *     image/ref/<canonical reference>   struct ref_record
 *     image/record/<image id hex>       struct image_record
 *     image/layer/<chain id hex>        struct layer_record
 *     image/lease/<id>                  struct lease_record
 *     image/snapshot/<instance id>      struct snapshot_record
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "codec/digest.h"
#include "codec/json.h"
#include "store/store.h"

#define RECORD_REF      "image/ref/"
#define RECORD_IMAGE    "image/record/"
#define RECORD_LAYER    "image/layer/"
#define RECORD_LEASE    "image/lease/"
#define RECORD_SNAPSHOT "image/snapshot/"

struct ref_record {
        char *image;    /* image id */
        char *manifest; /* what the registry calls it; NULL: made here */
};

struct image_record {
        char *id;
        char *manifest;     /* digest of the manifest blob */
        char **blobs;       /* digests of all that must stay: manifest, index, config, layers */
        char **layer_blobs; /* digests of packed layers, bottom first */
        char **chain_ids;   /* bottom first */
        int64_t pulled_ns;
        char *boot_id; /* of the boot it was written in */
        bool durable;  /* synced to disk */
};

struct layer_record {
        char *chain_id;
        char *diff_id;
        char *blob;       /* packed */
        char *short_name; /* in ROOT/l */
        uint64_t size_bytes;
        uint64_t entries;
        char *boot_id;
        bool durable;
};

struct lease_record {
        int64_t expires_ns; /* realtime; 0: held by a running process of this boot */
        char *boot_id;
        char **blobs;
        char **chain_ids;
};

struct snapshot_record {
        char *image;
        char **chain_ids; /* bottom first */
};

extern const struct json_shape ref_record_shape;
extern const struct json_shape image_record_shape;
extern const struct json_shape layer_record_shape;
extern const struct json_shape lease_record_shape;
extern const struct json_shape snapshot_record_shape;

/* -ENOENT where there is none; -EUCLEAN where it cannot be read. `out` is zeroed
 * by the caller and freed by json_free(). ret_revision may be NULL. */
int record_get(struct store *store, const char *prefix, const char *name,
               const struct json_shape *shape, void *out, uint64_t *ret_revision, struct err *err);
/* From a value that store_list gave. */
int record_decode(const struct store_value *value, const struct json_shape *shape, void *out,
                  struct err *err);
int record_put(struct store *store, const char *prefix, const char *name,
               const struct json_shape *shape, const void *record, struct err *err);
int record_delete(struct store *store, const char *prefix, const char *name, struct err *err);
