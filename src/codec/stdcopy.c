#include "codec/stdcopy.h"

#include <errno.h>
#include <string.h>

void stdcopy_header(unsigned char header[STDCOPY_HEADER_SIZE], enum stdcopy_stream stream,
                    uint32_t size)
{
        memset(header, 0, STDCOPY_HEADER_SIZE);
        header[0] = (unsigned char)stream;
        for (unsigned i = 0; i < 4; i++)
                header[4 + i] = (unsigned char)(size >> (24 - 8 * i));
}

static int open_frame(struct stdcopy *copy, struct err *err)
{
        const unsigned char *h = copy->header;
        if (h[0] > STDCOPY_SYSTEM || h[1] || h[2] || h[3])
                return err_plain(err, EBADMSG, "unrecognized stream frame %02x%02x%02x%02x", h[0],
                                 h[1], h[2], h[3]);
        copy->left = (uint32_t)h[4] << 24 | (uint32_t)h[5] << 16 | (uint32_t)h[6] << 8 | h[7];
        if (copy->left == 0)
                copy->header_size = 0;
        return 0;
}

int stdcopy_feed(struct stdcopy *copy, const void *data, size_t size, stdcopy_sink *sink, void *arg,
                 struct err *err)
{
        const unsigned char *at = data;
        while (size > 0) {
                size_t step;
                int r = 0;
                if (copy->left == 0) {
                        step = STDCOPY_HEADER_SIZE - copy->header_size;
                        step = step < size ? step : size;
                        memcpy(copy->header + copy->header_size, at, step);
                        copy->header_size += step;
                        if (copy->header_size == STDCOPY_HEADER_SIZE)
                                r = open_frame(copy, err);
                } else {
                        step = copy->left < size ? copy->left : size;
                        copy->left -= (uint32_t)step;
                        r = sink(arg, (enum stdcopy_stream)copy->header[0], at, step, err);
                        if (copy->left == 0)
                                copy->header_size = 0;
                }
                if (r < 0)
                        return r;
                at += step;
                size -= step;
        }
        return 0;
}
