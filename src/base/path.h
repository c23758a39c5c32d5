/* Paths as text: what they mean is for who walks them (sys/resolve.h). */
#pragma once

#include "base/err.h"

/* An absolute path without "//", "/." and "/..", or -EINVAL. Heap. */
int path_clean(const char *path, char **ret, struct err *err);

/* What docker's archive of a path calls it: the last component, and "." for the root and for what
 * ends in "/.", the content of a directory. A path that is not absolute is one beneath "/". Heap.
 */
char *path_archive_name(const char *path);
