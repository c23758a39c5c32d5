#include "monitor/detach.h"

#include <string.h>

bool detach_scan(struct detach *detach, const uint8_t *in, size_t size, uint8_t *out,
                 size_t *ret_size)
{
        size_t length = 0;
        for (size_t i = 0; i < size; i++) {
                if (detach->length && in[i] == detach->keys[detach->matched]) {
                        if (++detach->matched == detach->length) {
                                detach->matched = 0;
                                *ret_size = length;
                                return true;
                        }
                        continue;
                }
                memcpy(out + length, detach->keys, detach->matched);
                length += detach->matched;
                detach->matched = 0;
                if (detach->length && in[i] == detach->keys[0] && detach->length > 1)
                        detach->matched = 1;
                else
                        out[length++] = in[i];
        }
        *ret_size = length;
        return false;
}
