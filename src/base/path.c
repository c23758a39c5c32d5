#include "base/path.h"

#include <errno.h>
#include <string.h>

#include "base/auto.h"
#include "base/str.h"

int path_clean(const char *path, char **ret, struct err *err)
{
        if (!path || path[0] != '/')
                return err_plain(err, EINVAL, "invalid path '%s': must be absolute",
                                 path ? path : "");
        auto_strv parts = str_split(path, '/');
        char *clean = xmalloc(strlen(path) + 2), *at = clean;
        for (char **part = parts; *part; part++) {
                if (!**part || streq(*part, "."))
                        continue;
                if (streq(*part, "..")) {
                        while (at > clean && *--at != '/')
                                ;
                        continue;
                }
                *at++ = '/';
                at = stpcpy(at, *part);
        }
        if (at == clean)
                *at++ = '/';
        *at = '\0';
        *ret = clean;
        return 0;
}

char *path_archive_name(const char *path)
{
        auto_free char *absolute = xasprintf("/%s", path);
        auto_free char *clean = NULL;
        (void)path_clean(absolute, &clean, NULL); /* it is absolute */
        const char *last = strrchr(clean, '/') + 1;
        return xstrdup(!*last || str_ends(absolute, "/.") ? "." : last);
}
