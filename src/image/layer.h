/* Layers: unpacked once, shared by all images and instances.
 *
 * A layer is known by its chain id (the digest of all diff ids up to it), because
 * directories that its tar uses without describing take their attributes from the
 * layers below.
 *
 * Building is a pipeline of threads, so that unpacking goes on while the blob is
 * still arriving:
 *
 *     caller (download, hash of the packed bytes) ─ring─▶ decompress, hash of the
 *     unpacked bytes ─ring─▶ untar
 *
 * Each ring is bounded (image/stream.h); the slowest stage sets the pace. Several
 * builds run at the same time, children before their parents are done: the
 * directories are separate, and only layer_commit() needs the parents.
 *
 * A build happens in ROOT/staging/<random>/fs and becomes visible by one rename.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/auto.h"
#include "base/err.h"
#include "codec/compress.h"
#include "codec/digest.h"

struct image_store;

/* ROOT/layers/<hex>/fs, heap. */
char *layer_path(struct image_store *st, const struct digest *chain_id);
/* There is a record and a directory. ret_size (unpacked) may be NULL. */
bool layer_ready(struct image_store *st, const struct digest *chain_id, uint64_t *ret_size_bytes);
/* ROOT/l/<short name>, heap; -ENOENT. */
int layer_short_path(struct image_store *st, const char *chain_id, char **ret, struct err *err);
/* Deletes record, link and directory (to the trash). Returns the unpacked bytes freed.
 * st->lock is held. */
uint64_t layer_delete(struct image_store *st, const struct digest *chain_id);

struct layer_build;
/* `packed_bytes` 0: unknown (no ratio guard). `diff_id` NULL: whatever comes. */
int layer_build_begin(struct image_store *st, enum compression compression, uint64_t packed_bytes,
                      const struct digest *diff_id, const atomic_bool *cancel,
                      struct layer_build **ret, struct err *err);
/* Packed bytes; a compress_sink. A failure further down shows here or in _finish. */
int layer_build_write(void *arg, const void *data, size_t size, struct err *err);
/* Packed bytes that went through decompression so far. Any thread. */
uint64_t layer_build_consumed(const struct layer_build *build);
/* Waits for the pipeline and checks the diff id. ret_diff_id may be NULL. */
int layer_build_finish(struct layer_build *build, struct digest *ret_diff_id, struct err *err);
/* Makes it visible as `chain_id`; the layers of `parents` (bottom first) are
 * committed already. `blob` may be NULL. */
int layer_build_commit(struct layer_build *build, const struct digest *chain_id,
                       const struct digest *parents, size_t parents_length,
                       const struct digest *blob, struct err *err);
uint64_t layer_build_size(const struct layer_build *build);
/* Whatever was not committed is deleted. Stops the threads. NULL ok. */
void layer_build_destroy(struct layer_build *build);
DEFINE_CLEANUP(auto_layer_build_cleanup, struct layer_build *, layer_build_destroy)
#define auto_layer_build CLEANUP(auto_layer_build_cleanup) struct layer_build *

/* Unpacks a blob of the content store. No commit. */
int layer_build_from_blob(struct image_store *st, const struct digest *blob,
                          const struct digest *diff_id, const atomic_bool *cancel,
                          void (*progress)(void *arg, uint64_t current, uint64_t total), void *arg,
                          struct layer_build **ret, struct err *err);

/* All layers of an image that are not there are unpacked from their blobs. */
int layers_ensure(struct image_store *st, char *const *diff_ids, char *const *layer_blobs,
                  const atomic_bool *cancel, struct err *err);
