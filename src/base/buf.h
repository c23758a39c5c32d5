/* A growable byte buffer.
 *
 * `struct buf b = {0};` is an empty one. The bytes are always followed by a NUL
 * that does not count, so text can be read with buf_text(). Growth aborts when
 * memory is exhausted; a buffer that a stranger fills is given `limit_bytes`,
 * beyond which appends are refused with -ENOBUFS and change nothing.
 */
#pragma once

#include <stdarg.h>
#include <stddef.h>

struct buf {
        char *data;
        size_t size;        /* bytes held */
        size_t capacity;    /* bytes allocated, at least size + 1 when data */
        size_t limit_bytes; /* 0 is no limit */
};

void buf_finish(struct buf *buf);
/* Makes it empty, keeps the memory. */
void buf_reset(struct buf *buf);

int buf_append(struct buf *buf, const void *bytes, size_t size);
int buf_puts(struct buf *buf, const char *s);
int buf_putc(struct buf *buf, char c);
int buf_printf(struct buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));
int buf_vprintf(struct buf *buf, const char *format, va_list ap)
        __attribute__((format(printf, 2, 0)));

/* Room for `size` more bytes at the end, to be written by the caller and then
 * claimed with buf_commit(); NULL where the limit forbids it. */
void *buf_reserve(struct buf *buf, size_t size);
void buf_commit(struct buf *buf, size_t size);

/* Drops the first `size` bytes (at most what is held). */
void buf_consume(struct buf *buf, size_t size);

/* The text; "" for an empty buffer. Valid until the next append. */
const char *buf_text(const struct buf *buf);

/* Hands the text over to the caller (heap, never NULL) and empties the buffer. */
char *buf_take(struct buf *buf);

#define auto_buf __attribute__((cleanup(buf_finish))) struct buf
