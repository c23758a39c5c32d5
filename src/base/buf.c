#include "base/buf.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"

#define BUF_FIRST_CAPACITY 64

void buf_finish(struct buf *buf)
{
        free(buf->data);
        *buf = (struct buf){ .limit_bytes = buf->limit_bytes };
}

void buf_reset(struct buf *buf)
{
        buf->size = 0;
        if (buf->data)
                buf->data[0] = '\0';
}

void *buf_reserve(struct buf *buf, size_t size)
{
        size_t need;
        if (__builtin_add_overflow(buf->size, size, &need) ||
            __builtin_add_overflow(need, 1, &need))
                return NULL;
        if (buf->limit_bytes && need - 1 > buf->limit_bytes)
                return NULL;
        if (need > buf->capacity) {
                size_t capacity = buf->capacity ? buf->capacity : BUF_FIRST_CAPACITY;
                while (capacity < need)
                        capacity = capacity > SIZE_MAX / 2 ? need : capacity * 2;
                buf->data = xrealloc(buf->data, capacity, 1);
                buf->capacity = capacity;
                buf->data[buf->size] = '\0'; /* also where nothing is committed */
        }
        return buf->data + buf->size;
}

void buf_commit(struct buf *buf, size_t size)
{
        buf->size += size;
        buf->data[buf->size] = '\0';
}

int buf_append(struct buf *buf, const void *bytes, size_t size)
{
        void *room = buf_reserve(buf, size);
        if (!room)
                return -ENOBUFS;
        if (size)
                memcpy(room, bytes, size);
        buf_commit(buf, size);
        return 0;
}

int buf_puts(struct buf *buf, const char *s)
{
        return buf_append(buf, s, strlen(s));
}

int buf_putc(struct buf *buf, char c)
{
        return buf_append(buf, &c, 1);
}

int buf_vprintf(struct buf *buf, const char *format, va_list ap)
{
        va_list again;
        va_copy(again, ap);
        int length = vsnprintf(NULL, 0, format, again);
        va_end(again);
        if (length < 0)
                return -EINVAL;
        char *room = buf_reserve(buf, (size_t)length);
        if (!room)
                return -ENOBUFS;
        vsnprintf(room, (size_t)length + 1, format, ap);
        buf->size += (size_t)length;
        return 0;
}

int buf_printf(struct buf *buf, const char *format, ...)
{
        va_list ap;
        va_start(ap, format);
        int r = buf_vprintf(buf, format, ap);
        va_end(ap);
        return r;
}

void buf_consume(struct buf *buf, size_t size)
{
        if (size >= buf->size) {
                buf_reset(buf);
                return;
        }
        memmove(buf->data, buf->data + size, buf->size - size + 1);
        buf->size -= size;
}

const char *buf_text(const struct buf *buf)
{
        return buf->data ? buf->data : "";
}

char *buf_take(struct buf *buf)
{
        if (!buf->data)
                return xstrdup("");
        char *data = buf->data;
        *buf = (struct buf){ .limit_bytes = buf->limit_bytes };
        return data;
}
