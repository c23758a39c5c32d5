/* A stream of bytes from one thread to another, through a ring of blocks.
 *
 * The writer fills blocks, the reader borrows them one at a time without a copy.
 * Both ends block; memory is STREAM_BLOCKS * STREAM_BLOCK_SIZE, allocated by
 * mmap so that it goes back to the system when the stream ends.
 *
 * Either end may give up: the writer with an error code, which the reader gets
 * after what was written before; the reader by stream_abort, after which writes
 * fail with -EPIPE (the reader's own error tells why).
 */
#pragma once

#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"

#define STREAM_BLOCKS     8u
#define STREAM_BLOCK_SIZE (256u << 10)

struct stream;
struct stream *stream_create(void);
void stream_destroy(struct stream *stream); /* both ends are done */

/* Copies in. 0 or -EPIPE. */
int stream_write(struct stream *stream, const void *data, size_t size);
/* No more follows; r is 0, or the -errno the reader shall get. */
void stream_end(struct stream *stream, int r);

/* The next block, valid until the next call; 0 at the end; the writer's -errno. */
ssize_t stream_read(struct stream *stream, const void **ret);
void stream_abort(struct stream *stream);
