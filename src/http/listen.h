/* Listening sockets for a server. They are born non-blocking and close-on-exec. */
#pragma once

#include <sys/types.h>

#include "base/err.h"

/* A Unix socket at `path` with `mode`; `gid` -1 leaves the group alone. A stale
 * socket of a dead server is replaced, one that somebody answers on is
 * -EADDRINUSE, and anything else at the path is left alone (-EEXIST). */
int http_listen_unix(const char *path, mode_t mode, gid_t gid, int *ret_fd, struct err *err);

/* "HOST:PORT", "[V6]:PORT" or ":PORT"; port 0 picks one. */
int http_listen_tcp(const char *address, int *ret_fd, struct err *err);

/* "unix:///path" (mode 0660) or "tcp://host:port". */
int http_listen(const char *url, gid_t gid, int *ret_fd, struct err *err);
