#include "cli/path.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/buf.h"
#include "base/str.h"

char *path_join(const char *directory, const char *path)
{
        return path[0] == '/' ? xstrdup(path) : xasprintf("%s/%s", directory, path);
}

char *path_absolute(const char *path)
{
        auto_free char *cwd = path[0] == '/' ? NULL : getcwd(NULL, 0);
        auto_free char *whole = path_join(cwd ? cwd : "", path);
        auto_buf clean = { 0 };
        for (const char *at = whole; *at;) {
                at += strspn(at, "/");
                size_t length = strcspn(at, "/");
                if (length == 2 && memcmp(at, "..", 2) == 0) {
                        while (clean.size && clean.data[--clean.size] != '/')
                                ;
                        if (clean.data)
                                clean.data[clean.size] = '\0';
                } else if (length && !(length == 1 && *at == '.')) {
                        buf_printf(&clean, "/%.*s", (int)length, at);
                }
                at += length;
        }
        return clean.size ? buf_take(&clean) : xstrdup("/");
}

bool path_asserts_directory(const char *path)
{
        return str_ends(path, "/") || str_ends(path, "/.") || streq(path, ".");
}

char *path_absolute_kept(const char *path)
{
        auto_free char *clean = path_absolute(path);
        bool dot = str_ends(path, "/.") || streq(path, ".");
        bool slash = str_ends(path, "/");
        const char *root = streq(clean, "/") ? "" : "/";
        return xasprintf("%s%s%s", clean, dot || slash ? root : "", dot ? "." : "");
}

void path_split(const char *path, char **ret_directory, char **ret_base)
{
        size_t length = strlen(path);
        while (length > 1 && path[length - 1] == '/')
                length--;
        size_t base = length;
        while (base > 0 && path[base - 1] != '/')
                base--;
        size_t directory = base;
        while (directory > 1 && path[directory - 1] == '/')
                directory--;
        *ret_directory = directory ? xstrndup(path, directory) : xstrdup(".");
        *ret_base = xstrndup(path + base, length - base);
}
