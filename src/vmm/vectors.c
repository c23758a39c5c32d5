#include "vmm/vectors.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

unsigned vectors_part(const struct iovec *v, unsigned length, size_t offset, size_t size,
                      struct iovec *ret, unsigned max)
{
        unsigned n = 0;
        for (unsigned i = 0; i < length && size && n < max; i++) {
                if (offset >= v[i].iov_len) {
                        offset -= v[i].iov_len;
                        continue;
                }
                size_t here = v[i].iov_len - offset;
                if (here > size)
                        here = size;
                ret[n++] = (struct iovec){ (uint8_t *)v[i].iov_base + offset, here };
                size -= here;
                offset = 0;
        }
        return n;
}

static size_t copy(const struct iovec *v, unsigned length, size_t offset, void *bytes, size_t size,
                   bool out)
{
        size_t done = 0;
        for (unsigned i = 0; i < length && done < size; i++) {
                if (offset >= v[i].iov_len) {
                        offset -= v[i].iov_len;
                        continue;
                }
                size_t here = v[i].iov_len - offset;
                if (here > size - done)
                        here = size - done;
                uint8_t *theirs = (uint8_t *)v[i].iov_base + offset;
                uint8_t *ours = (uint8_t *)bytes + done;
                memcpy(out ? ours : theirs, out ? theirs : ours, here);
                done += here;
                offset = 0;
        }
        return done;
}

size_t vectors_read(const struct iovec *v, unsigned length, size_t offset, void *bytes, size_t size)
{
        return copy(v, length, offset, bytes, size, true);
}

size_t vectors_write(const struct iovec *v, unsigned length, size_t offset, const void *bytes,
                     size_t size)
{
        return copy(v, length, offset, (void *)bytes, size, false);
}

size_t vectors_zero(const struct iovec *v, unsigned length, size_t offset, size_t size)
{
        size_t done = 0;
        struct iovec part;
        while (done < size && vectors_part(v, length, offset + done, size - done, &part, 1)) {
                memset(part.iov_base, 0, part.iov_len);
                done += part.iov_len;
        }
        return done;
}

size_t vectors_size(const struct iovec *v, unsigned length)
{
        size_t size = 0;
        for (unsigned i = 0; i < length; i++)
                size += v[i].iov_len;
        return size;
}
