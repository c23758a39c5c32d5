/* The image store from inside: what the files of this room share.
 *
 * Lock order: a flight (image/flight.h) before `lock`; `lock` before the store's
 * own mutex. `lock` guards the decisions that span several records (what is a
 * tag's image, what may be deleted) and is held for microseconds: no network, no
 * unpacking, no fsync under it.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "base/str.h"
#include "image/content.h"
#include "image/flight.h"
#include "image/image.h"
#include "image/record.h"

#define BOOT_ID_SIZE         37
#define IMAGE_LAYERS_MAX     127 /* what docker allows; overlay's option page holds as many */
#define LEASE_TTL_DEFAULT_NS ((int64_t)24 * 3600 * 1000000000LL)

struct durable;
struct registry_pool;

struct image_store {
        char *root;
        int root_fd, layers_fd, staging_fd, links_fd, snapshots_fd, lock_fd;
        struct store *store; /* borrowed */
        struct content *content;
        struct flights flights;
        pthread_mutex_t lock;
        bool layers_held; /* by nothing but snapshots, as the last sweep found; true before it */
        char boot_id[BOOT_ID_SIZE];
        struct durable *durable;        /* NULL: no thread */
        struct registry_pool *registry; /* endpoints and settings of registries */

        struct layer_limits limits;
        unsigned parallel_layers;
        int64_t lease_ttl_ns;
        char *default_platform; /* "linux/arm64" or NULL */
        void (*notice)(void *arg, const char *text);
        void *notice_arg;
};

void image_notice(struct image_store *st, const char *format, ...)
        __attribute__((format(printf, 2, 3)));

/* Moves ROOT/<dir>/<name> out of sight at once, to be deleted by
 * image_empty_trash(). A missing one is success. */
int image_trash(struct image_store *st, int dirfd, const char *name, struct err *err);
/* Deletes what was moved out of sight. */
void image_empty_trash(struct image_store *st);
/* A fresh directory ROOT/staging/<ret_name>. */
#define STAGING_NAME_SIZE 24
int image_staging(struct image_store *st, char ret_name[STAGING_NAME_SIZE], struct err *err);

/* Decodes the image of a record. refs is what RECORD_REF lists. */
int image_load_record(struct image_store *st, const struct image_record *record,
                      const struct store_value *refs, size_t refs_length, struct image **ret,
                      struct err *err);
/* By image id. -ENOENT. */
int image_get(struct image_store *st, const struct digest *id, struct image **ret, struct err *err);

/* The id of what a person named; *ret_by_id (may be NULL): it was an id or its prefix. */
int image_find(struct image_store *st, const char *name_or_id, struct digest *ret, bool *ret_by_id,
               struct err *err);
/* Every image that can be read; the others are reported by image_notice(). */
int image_load_all(struct image_store *st, struct image ***ret, size_t *ret_length,
                   struct err *err);

/* ---- garbage (image/gc.c) ---------------------------------------------- */

/* Drops what nothing needs; st->lock is held. Deleted layers are added to `removal`
 * and bytes counted (both may be NULL). The trash is to be emptied afterwards. */
int image_sweep(struct image_store *st, struct image_removal *removal,
                struct image_gc_result *result, struct err *err);
void image_removal_add(struct image_removal *removal, bool untagged, const char *name);

/* ---- leases (image/lease.c) ------------------------------------------- */

/* What an operation needs and GC must leave alone. Made before anything is looked
 * up, so that what is found stays. A failed operation keeps its lease for
 * st->lease_ttl_ns under `name`, where the next attempt finds it. */
struct lease {
        struct image_store *st;
        char *name;
        struct lease_record record;
};
int lease_begin(struct image_store *st, const char *name, struct lease *ret, struct err *err);
void lease_add(struct lease *lease, const struct digest *blob, const struct digest *chain_id);
/* Writes what was added. */
int lease_save(struct lease *lease, struct err *err);
int lease_save_locked(struct lease *lease, struct err *err); /* st->lock is held */
/* `done`: what it protected has a record now, or is not wanted. */
void lease_end(struct lease *lease, bool done);
/* Those of operations that failed or died. With the store's lock held. */
int leases_drop_abandoned(struct image_store *st, struct err *err);

/* ---- committing images (image/commit.c) -------------------------------- */

/* Writes the image's record and points `references` (canonical, may be NULL) at
 * it, in one transaction; a reference that pointed elsewhere moves. */
int image_commit(struct image_store *st, const struct image_record *record, char *const *references,
                 const struct digest *manifest, struct err *err);
