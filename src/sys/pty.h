/* Pseudo-terminals and passing descriptors over Unix sockets.
 * Source: ioctl_tty(2), unix(7); the console-socket protocol is runc's
 * (docs/terminals.md): one message with the pty's name as data and the master
 * as SCM_RIGHTS. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <termios.h>

#include "base/err.h"

/* Opens `ptmx` under `dirfd`, unlocks it and opens the other end without using
 * any path (TIOCGPTPEER). Both are CLOEXEC and O_NOCTTY. */
int pty_open(int dirfd, const char *ptmx, int *ret_master, int *ret_slave, struct err *err);
int pty_resize(int fd, unsigned rows, unsigned columns, struct err *err);
/* Raw mode; the old one in *ret_saved, to be given to tcsetattr. */
int pty_make_raw(int fd, struct termios *ret_saved, struct err *err);

/* The other end's newlines come as they were written: whoever shows them, shows them
 * on a terminal that adds what it needs, or keeps them in a file that needs nothing. */
int pty_plain_newlines(int fd, struct err *err);
bool pty_has_plain_newlines(int fd);

/* Connects to a Unix stream socket at a path of any length. */
int pty_connect(const char *socket_path, int *ret_fd, struct err *err);
/* Sends `data` with one descriptor. */
int pty_send_fd(int socket_fd, int fd, const void *data, size_t size, struct err *err);
/* Receives one descriptor (CLOEXEC) and up to `size` bytes of data; *ret_size
 * may be NULL. -EPROTO where no descriptor came. */
int pty_receive_fd(int socket_fd, int *ret_fd, void *data, size_t size, size_t *ret_size,
                   struct err *err);
