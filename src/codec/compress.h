/* Streaming compression: gzip, zstd, and none.
 *
 * Push interface, no I/O of its own: bytes go in with _write, what comes out is
 * handed to a sink. The sink's data is valid during the call only; a sink that
 * returns negative stops the stream and that value is returned (its story is
 * kept).
 *
 * Decompression tells the format from its first bytes (COMPRESSION_AUTO), reads
 * gzip files of several members and zstd streams of several frames (skippable
 * ones too), and verifies checksums. Damaged data is -EBADMSG, an incomplete
 * stream is -EBADMSG at _finish, bytes after the last gzip member that begin no
 * other are damage. Memory is bounded whatever the input says: 0.3 MiB, and for
 * zstd its window, of which more than 128 MiB is refused (what docker, podman
 * and buildkit write stays under 8 MiB). How much may come out is the sink's
 * business: a quota is counted there.
 *
 * One stream belongs to one thread at a time. After an error only _destroy may
 * be called.
 */
#pragma once

#include <stddef.h>

#include "base/auto.h"
#include "base/err.h"

enum compression {
        COMPRESSION_NONE,
        COMPRESSION_GZIP,
        COMPRESSION_ZSTD,
        COMPRESSION_AUTO, /* decompression only: by magic, NONE when none matches */
};

#define COMPRESSION_MAGIC_SIZE 4

/* What the first bytes of a stream say; NONE where they match nothing. */
enum compression compression_detect(const void *data, size_t size);
/* "none", "gzip", "zstd" */
const char *compression_name(enum compression compression);

/* 0 or -errno. */
typedef int compress_sink(void *arg, const void *data, size_t size, struct err *err);

struct decompressor;
int decompressor_create(enum compression compression, compress_sink *sink, void *arg,
                        struct decompressor **ret, struct err *err);
int decompressor_write(struct decompressor *d, const void *data, size_t size, struct err *err);
/* The input is complete. */
int decompressor_finish(struct decompressor *d, struct err *err);
/* What was given or, with AUTO, found (AUTO while too little has been seen). */
enum compression decompressor_format(const struct decompressor *d);
void decompressor_destroy(struct decompressor *d);

DEFINE_CLEANUP(auto_decompressor_cleanup, struct decompressor *, decompressor_destroy)
#define auto_decompressor CLEANUP(auto_decompressor_cleanup) struct decompressor *

#define COMPRESS_LEVEL_DEFAULT (-1)

struct compressor;
/* `level` is 1 … 9 for gzip, 1 … 19 for zstd, or COMPRESS_LEVEL_DEFAULT. The
 * output is the same for the same input and level: gzip has no time stamp. */
int compressor_create(enum compression compression, int level, compress_sink *sink, void *arg,
                      struct compressor **ret, struct err *err);
int compressor_write(struct compressor *c, const void *data, size_t size, struct err *err);
int compressor_finish(struct compressor *c, struct err *err);
void compressor_destroy(struct compressor *c);

DEFINE_CLEANUP(auto_compressor_cleanup, struct compressor *, compressor_destroy)
#define auto_compressor CLEANUP(auto_compressor_cleanup) struct compressor *
