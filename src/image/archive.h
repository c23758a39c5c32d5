/* What load, import and save share: a stream that may be compressed read as a tar,
 * and images made from blobs that are here. */
#pragma once

#include <stdatomic.h>
#include <stddef.h>

#include "base/auto.h"
#include "base/err.h"
#include "codec/digest.h"
#include "codec/tar.h"

struct image;
struct ingest;
struct lease;

/* A descriptor read and decompressed by a thread of its own. */
struct archive_source;
int archive_source_open(int fd, const atomic_bool *cancel, struct archive_source **ret,
                        struct err *err);
/* A tar_read. */
ssize_t archive_source_read(void *arg, const void **ret_block, struct err *err);
void archive_source_close(struct archive_source *source);
DEFINE_CLEANUP(auto_archive_source_cleanup, struct archive_source *, archive_source_close)
#define auto_archive_source CLEANUP(auto_archive_source_cleanup) struct archive_source *

/* Makes a blob of unknown digest visible and leased in one step, so that GC does
 * not come between. */
int archive_commit_blob(struct lease *lease, struct ingest *ingest, struct digest *ret,
                        struct err *err);

/* An image whose layers are blobs of the content store. */
struct archive_image {
        const char *config;
        size_t config_size;
        const struct digest *layers; /* packed, bottom first */
        size_t layers_length;
        char *const *names;            /* canonical; NULL: none */
        const struct digest *manifest; /* of one that is a blob already; NULL: make one */
        const atomic_bool *cancel;
};
/* Writes what is missing (configuration, manifest), unpacks layers, records. ret may
 * be NULL. */
int archive_commit_image(struct lease *lease, const struct archive_image *made, struct image **ret,
                         struct err *err);
