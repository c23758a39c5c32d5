/* Vectors of a guest's buffers: copying from and to a place in them, and cutting out a
 * part. What they point to may change at any moment: copy first, then look. */
#pragma once

#include <stddef.h>
#include <sys/uio.h>

/* Return the bytes copied: fewer than `size` where the vectors end before. */
size_t vectors_read(const struct iovec *v, unsigned length, size_t offset, void *bytes,
                    size_t size);
size_t vectors_write(const struct iovec *v, unsigned length, size_t offset, const void *bytes,
                     size_t size);
size_t vectors_zero(const struct iovec *v, unsigned length, size_t offset, size_t size);
size_t vectors_size(const struct iovec *v, unsigned length);
/* The `size` bytes at `offset` as vectors of their own, as far as `max` of them reach;
 * returns how many. */
unsigned vectors_part(const struct iovec *v, unsigned length, size_t offset, size_t size,
                      struct iovec *ret, unsigned max);
