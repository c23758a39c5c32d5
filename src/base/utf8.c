#include "base/utf8.h"

#include <string.h>

#include "base/buf.h"

size_t utf8_length(const void *text, size_t size)
{
        const unsigned char *s = text;
        if (s[0] < 0x80)
                return 1;
        size_t length = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
        if (s[0] < 0xc2 || s[0] > 0xf4 || size < length)
                return 0;
        for (size_t i = 1; i < length; i++)
                if ((s[i] & 0xc0) != 0x80)
                        return 0;
        if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
            (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
                return 0;
        return length;
}

char *utf8_clean(const void *bytes, size_t size)
{
        const char *s = bytes;
        struct buf text = { 0 };
        for (size_t i = 0; i < size;) {
                size_t length = s[i] ? utf8_length(s + i, size - i) : 0;
                if (length)
                        buf_append(&text, s + i, length);
                else
                        buf_puts(&text, "\xef\xbf\xbd");
                i += length ? length : 1;
        }
        return buf_take(&text);
}
