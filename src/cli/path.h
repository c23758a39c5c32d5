/* Paths as text: nothing here looks at a file system (but for the working
 * directory). */
#pragma once

#include <stdbool.h>

/* Absolute, without ".", ".." and double slashes. Heap. */
char *path_absolute(const char *path);

/* As above, but a trailing "/" or "/." stays: it says "a directory" and "what is in
 * it" to cp. Heap. */
char *path_absolute_kept(const char *path);

/* Whether it ends in "/" or "/.", or is ".". */
bool path_asserts_directory(const char *path);

/* Cuts the last component off: "/a/b" and "/a/b/" are "/a" and "b"; "/a/b/." is
 * "/a/b" and "."; "/" is "/" and "". Both on the heap. */
void path_split(const char *path, char **ret_directory, char **ret_base);

/* Joins a directory and a relative path, or gives the path where it is absolute. */
char *path_join(const char *directory, const char *path);
