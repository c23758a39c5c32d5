/* A guest's archive in memory, in frames, for relay_archive(). */
#pragma once

#include <string.h>
#include <sys/types.h>

#include "base/buf.h"
#include "codec/stdcopy.h"
#include "guest/relay.h"

struct framed {
        struct buf bytes;
        size_t at;
};

static inline void framed_put(struct framed *framed, enum stdcopy_stream stream, const void *data,
                              size_t size)
{
        unsigned char header[STDCOPY_HEADER_SIZE];
        stdcopy_header(header, stream, (uint32_t)size);
        buf_append(&framed->bytes, header, sizeof(header));
        buf_append(&framed->bytes, data, size);
}

static inline ssize_t framed_read(void *arg, void *room, size_t size, struct err *err)
{
        struct framed *framed = arg;
        size_t left = framed->bytes.size - framed->at;
        (void)err;
        size = left < size ? left : size;
        if (size)
                memcpy(room, framed->bytes.data + framed->at, size);
        framed->at += size;
        return (ssize_t)size;
}

static inline int framed_keep(void *arg, const void *data, size_t size, struct err *err)
{
        (void)err;
        return buf_append(arg, data, size);
}
