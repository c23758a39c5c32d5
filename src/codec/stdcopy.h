/* Docker's multiplexed stream: standard output and error of a container without
 * a terminal share one connection in frames of an 8-byte header (stream number,
 * three zero bytes, payload size in big endian) and the payload.
 *
 * A pure push parser: bytes go in as they arrive, in pieces of any size; payload
 * comes out through the sink in pieces too, so a frame of any size needs no
 * memory. The peer is the daemon or a monitor of an instance, but the parser trusts nothing.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum stdcopy_stream {
        STDCOPY_STDIN, /* what docker calls stdin goes to standard output */
        STDCOPY_STDOUT,
        STDCOPY_STDERR,
        STDCOPY_SYSTEM, /* an error of the daemon, as text */
};

#define STDCOPY_HEADER_SIZE 8

/* The header of a frame with so many bytes. */
void stdcopy_header(unsigned char header[STDCOPY_HEADER_SIZE], enum stdcopy_stream stream,
                    uint32_t size);

/* 0 or -errno, which ends the parsing. */
typedef int stdcopy_sink(void *arg, enum stdcopy_stream stream, const void *data, size_t size,
                         struct err *err);

/* All zero is the start. */
struct stdcopy {
        unsigned char header[STDCOPY_HEADER_SIZE];
        size_t header_size; /* bytes of the header here so far */
        uint32_t left;      /* payload bytes still to come */
};

/* -EBADMSG for what is no frame. */
int stdcopy_feed(struct stdcopy *copy, const void *data, size_t size, stdcopy_sink *sink, void *arg,
                 struct err *err);

/* Whether the input may end here: not within a frame. */
static inline int stdcopy_whole(const struct stdcopy *copy)
{
        return copy->header_size == 0 && copy->left == 0;
}
