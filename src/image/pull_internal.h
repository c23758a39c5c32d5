/* One pull, shared by pull.c (the calling thread) and pull_layer.c (its workers).
 *
 * Theory of operation
 * -------------------
 * The calling thread asks for index, manifest and configuration, writes a lease
 * over all their digests, and starts up to `parallel_layers` workers. A worker
 * takes the lowest layer nobody has, downloads and unpacks it in a pipeline
 * (image/layer.h), and hands the finished build over. Meanwhile the calling thread
 * commits builds bottom up (a layer's parents must be there), reports progress of
 * extraction, and passes a cancellation on.
 *
 * A worker holds the flight of its layer from before it looks whether the layer is
 * there until the layer is committed or given up; so of two pulls that share
 * layers one waits for the other. That cannot deadlock: a chain id contains its
 * parents', all pulls take layers bottom up, and commits wait for parents only.
 */
#pragma once

#include "image/image_store.h"
#include "image/layer.h"
#include "image/progress.h"
#include "image/registry.h"
#include "oci/image_spec.h"

enum pull_state { PULL_WAITING, PULL_BUSY, PULL_EXTRACTING, PULL_BUILT, PULL_COMMITTED };

struct pull_layer {
        struct digest blob, diff_id, chain_id;
        uint64_t size_bytes; /* packed */
        char short_id[IMAGE_SHORT_SIZE];
        char *flight;              /* held; NULL: not */
        enum pull_state state;     /* pull.mutex */
        struct layer_build *build; /* set until committed; NULL in PULL_BUILT: was there */
        struct progress_bar bar;
};

struct pull {
        struct image_store *st;
        const struct image_transfer *how;
        const char *platform; /* wanted; NULL: this machine's */
        struct oci_reference reference;
        struct registry *registry;
        struct progress progress;
        struct lease lease;
        atomic_bool stop; /* cancelled, or one part failed */

        struct registry_manifest index; /* .text NULL: there is none */
        struct registry_manifest manifest;
        struct oci_manifest parsed;
        struct oci_image_config config;
        struct digest config_digest;

        struct pull_layer *layers;
        struct digest *chain_ids;
        size_t layers_length;

        pthread_mutex_t mutex;
        pthread_cond_t changed;
        size_t next;    /* layer for the next free worker */
        size_t working; /* workers that run */
        int failed;     /* first -errno */
        struct err err;
};

void *pull_worker(void *arg);
/* Records the first failure and stops the others. */
void pull_fail(struct pull *pull, int r, const struct err *err);
void pull_set_state(struct pull *pull, struct pull_layer *layer, enum pull_state state);
