/* The content-addressed store: blobs, named by their digest.
 *
 *     <root>/content/blobs/sha256/<hex>   whole, verified when written, 0444
 *     <root>/content/ingest/<hex>         begun, resumable
 *     <root>/content/ingest/new-<random>  begun, digest not known beforehand
 *
 * A blob appears by rename(2) after its size and digest were found right, so a
 * crash leaves a partial or nothing. Nothing is fsynced here (image/durable.h).
 * sha512 digests live in blobs/sha512.
 *
 * Threads: safe, except that one digest must have one writer at a time: the
 * caller holds its flight (image/flight.h).
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/auto.h"
#include "base/err.h"
#include "codec/digest.h"

struct content;
int content_open(int rootfd, struct content **ret, struct err *err);
void content_close(struct content *content);

/* True where the blob is there, with that size unless it is UINT64_MAX. */
bool content_has(struct content *content, const struct digest *digest, uint64_t size_bytes);
/* -ENOENT where it is not. ret_size may be NULL. */
int content_open_blob(struct content *content, const struct digest *digest, int *ret_fd,
                      uint64_t *ret_size, struct err *err);
/* A small blob, its digest checked: -EBADMSG. *ret_data is followed by a NUL. */
int content_read(struct content *content, const struct digest *digest, size_t limit_bytes,
                 char **ret_data, size_t *ret_size, struct err *err);
/* Stores a small blob that the caller has; `digest` must be its digest. */
int content_write(struct content *content, const struct digest *digest, const void *data,
                  size_t size, struct err *err);
/* Recomputes the digest. -EBADMSG, -ENOENT, -ECANCELED. */
int content_verify(struct content *content, const struct digest *digest, const atomic_bool *cancel,
                   struct err *err);
/* Missing is fine. Returns the bytes freed. */
uint64_t content_delete(struct content *content, const struct digest *digest);

/* Walks all blobs (partial = false) or what was begun (true; `digest` is zeroed
 * for nameless ones, which are deleted by content_delete_partial(name)). The
 * callback may delete the blob it is told of. */
typedef int content_visit(void *arg, const struct digest *digest, const char *name,
                          uint64_t size_bytes, int64_t mtime_ns, struct err *err);
int content_walk(struct content *content, bool partial, content_visit *visit, void *arg,
                 struct err *err);
void content_delete_partial(struct content *content, const char *name);

/* ---- writing ----------------------------------------------------------- */

struct ingest;

/* Begins the blob, or goes on with what an interrupted one left: *ret_offset
 * bytes are there already and must be replayed before the first write.
 * `size_bytes` UINT64_MAX: unknown. */
int ingest_begin(struct content *content, const struct digest *expected, uint64_t size_bytes,
                 struct ingest **ret, uint64_t *ret_offset, struct err *err);
/* Of unknown digest, with at most `limit_bytes`. */
int ingest_begin_new(struct content *content, uint64_t limit_bytes, struct ingest **ret,
                     struct err *err);
/* Feeds the bytes that are there through the hash and to `sink` (may be NULL). */
int ingest_replay(struct ingest *ingest,
                  int (*sink)(void *arg, const void *data, size_t size, struct err *err), void *arg,
                  struct err *err);
/* Starts over: what is there is thrown away. */
int ingest_restart(struct ingest *ingest, struct err *err);
/* More than the expected size is -EFBIG. */
int ingest_write(struct ingest *ingest, const void *data, size_t size, struct err *err);
uint64_t ingest_offset(const struct ingest *ingest);
/* Verifies and makes the blob visible. On a wrong digest or size the partial is
 * deleted (-EBADMSG). ret_digest may be NULL. Afterwards only _destroy. */
int ingest_commit(struct ingest *ingest, struct digest *ret_digest, struct err *err);
/* Without a commit, a blob of known digest keeps its partial for a resume, others
 * vanish. NULL ok. */
void ingest_destroy(struct ingest *ingest);
DEFINE_CLEANUP(auto_ingest_cleanup, struct ingest *, ingest_destroy)
#define auto_ingest CLEANUP(auto_ingest_cleanup) struct ingest *
