/* Files that machines have in common, made once and kept: /var/cache/isle.
 *
 * Who uses one marks it by the time of its last access, whatever its mount says of that, and those
 * that nobody used for a week go when the next of their kind is made. Both happen under a lock of
 * the file, so that nothing goes between the look at it and its use. Who runs with one that is gone
 * keeps it. */
#pragma once

/* Opens a file to be used, read-only; -1 where there is none. */
int cache_use(int dirfd, const char *name);
void cache_remove_unused(const char *directory, const char *suffix);
