#include "api/base64.h"

#include <errno.h>
#include <stdint.h>

#include "base/auto.h"
#include "base/str.h"

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

char *base64_encode(const void *data, size_t size)
{
        const uint8_t *in = data;
        char *out = xcalloc(size / 3 + 2, 4), *p = out;
        for (size_t i = 0; i < size; i += 3) {
                size_t left = size - i;
                uint32_t group = (uint32_t)in[i] << 16 | (left > 1 ? (uint32_t)in[i + 1] << 8 : 0) |
                                 (left > 2 ? in[i + 2] : 0);
                *p++ = alphabet[group >> 18];
                *p++ = alphabet[group >> 12 & 63];
                *p++ = left > 1 ? alphabet[group >> 6 & 63] : '=';
                *p++ = left > 2 ? alphabet[group & 63] : '=';
        }
        *p = 0;
        return out;
}

static int digit_value(char c)
{
        if (c == '-')
                return 62;
        if (c == '_')
                return 63;
        const char *at = c ? strchr(alphabet, c) : NULL;
        return at ? (int)(at - alphabet) : -1;
}

int base64_decode(const char *text, char **ret_data, size_t *ret_size)
{
        size_t length = strlen(text), size = 0;
        while (length > 0 && text[length - 1] == '=')
                length--;
        if (length % 4 == 1)
                return -EINVAL;
        auto_free char *out = xmalloc(length / 4 * 3 + 4);
        uint32_t group = 0;
        for (size_t i = 0; i < length; i++) {
                int value = digit_value(text[i]);
                if (value < 0)
                        return -EINVAL;
                group = group << 6 | (uint32_t)value;
                if (i % 4 == 0)
                        continue;
                out[size++] = (char)(group >> (6 - 2 * (i % 4)));
        }
        out[size] = 0;
        *ret_size = size;
        *ret_data = take_ptr(out);
        return 0;
}
