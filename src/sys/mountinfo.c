#include "sys/mountinfo.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"

#define SIZE_MAX_BYTES ((size_t)16 << 20)

int mountinfo_read(const char *path, char ***ret_lines, struct err *err)
{
        auto_free char *text = NULL;
        int r = file_read(AT_FDCWD, path, SIZE_MAX_BYTES, &text, NULL, err);
        if (r == 0)
                *ret_lines = str_split(text, '\n');
        return r;
}

static bool is_octal(char c)
{
        return c >= '0' && c <= '7';
}

char *mountinfo_unescape(const char *text)
{
        char *copy = xstrdup(text), *to = copy;
        for (const char *from = copy; *from; to++) {
                if (*from == '\\' && is_octal(from[1]) && is_octal(from[2]) && is_octal(from[3])) {
                        *to = (char)((from[1] - '0') << 6 | (from[2] - '0') << 3 | (from[3] - '0'));
                        from += 4;
                } else {
                        *to = *from++;
                }
        }
        *to = '\0';
        return copy;
}
