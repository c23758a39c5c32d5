#include "base/rand.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

void rand_bytes(void *bytes, size_t size)
{
        char *at = bytes;
        while (size > 0) {
                ssize_t n = getrandom(at, size, 0);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        abort();
                at += n;
                size -= (size_t)n;
        }
}

uint64_t rand_u64(void)
{
        uint64_t value;
        rand_bytes(&value, sizeof(value));
        return value;
}

void rand_hex(char *text, size_t length)
{
        static const char digits[] = "0123456789abcdef";
        rand_bytes(text, length);
        for (size_t i = 0; i < length; i++)
                text[i] = digits[(unsigned char)text[i] & 15];
        text[length] = '\0';
}
