/* Trees of files: copying a directory into a volume, measuring. All of it blocks. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

/* Bytes allocated, hard links once; 0 where it cannot be read. Other mounts are left out. */
uint64_t tree_bytes(const char *path);
bool tree_is_empty(int dir_fd);
/* Copies the content, owner, mode and attributes of directory `from` onto directory `to`:
 * files (holes kept where the file system can share blocks), directories, links, devices.
 * Follows no link and leaves other mounts out. */
int tree_copy(int from_fd, int to_fd, struct err *err);
