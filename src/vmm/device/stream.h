/* A byte stream between a guest's console device and the host.
 *
 * To the host: the device puts bytes in from a vCPU thread; they are written on
 * the loop's thread as the descriptor takes them. When the buffer is full the
 * device says so to its guest (a 16550 keeps THRE clear), so nothing is lost and
 * no vCPU waits for a slow reader.
 * From the host: `arrived` is called on the loop's thread with what was read, as
 * much as stream_want() last allowed; 0 stops reading.
 *
 * stream_put(), stream_room() and stream_want() are thread-safe; the rest belongs to the loop's
 * thread. The descriptors are the stream's (dup'ed by stream_create).
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "loop/loop.h"

#define STREAM_BUFFER_SIZE 16384

struct stream;

struct stream_ops {
        void (*arrived)(void *arg, const uint8_t *bytes, size_t size);
        /* Room again after stream_put() filled the buffer. */
        void (*drained)(void *arg);
};

/* in_fd and out_fd may be -1: nothing arrives, what is put vanishes. */
int stream_create(struct loop *loop, int in_fd, int out_fd, const struct stream_ops *ops, void *arg,
                  struct stream **ret, struct err *err);
/* Writes what is still buffered, as far as the reader takes it without waiting. */
void stream_destroy(struct stream *stream);

/* Returns how many bytes were taken. Where that fills the buffer, `drained` follows. */
size_t stream_put(struct stream *stream, const uint8_t *bytes, size_t size);
size_t stream_room(struct stream *stream);
/* How many bytes the device can take now. */
void stream_want(struct stream *stream, size_t size);

/* For snapshots: a copy of the up to STREAM_BUFFER_SIZE bytes that wait to be written; and in a new
 * stream these bytes put in, whereupon `drained` is called once from the loop, however much
 * they were. The loop's thread. */
size_t stream_waiting(struct stream *stream, uint8_t ret_bytes[STREAM_BUFFER_SIZE]);
void stream_restore(struct stream *stream, const uint8_t *bytes, size_t size);
