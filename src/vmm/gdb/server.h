/* The gdb stub of a machine: `target remote` reaches it, one client at a time.
 *
 * It has a thread of its own, which waits for the client and, while the guest stands,
 * reads and writes its vCPUs. A client that comes stops the guest; one that goes, by
 * whatever way, takes its breakpoints with it, and the guest goes on.
 *
 * The listening socket is opened by whoever makes the machine, while it still may.
 *
 * Threads: the loop's, but for what it does itself.
 */
#pragma once

#include "vmm/machine.h"

struct gdb_server;

/* `where` as QEMU writes it: tcp:[HOST]:PORT (the loopback where no host is named), or
 * unix:PATH. */
int gdb_listen(const char *where, int *ret_fd, struct err *err);
/* The path of a Unix socket, which is to be removed afterwards; else NULL. */
const char *gdb_socket_path(const char *where);

/* `listen_fd` is borrowed. With `wait` the guest stands until a client lets it go. The
 * machine owns the server. */
int gdb_server_create(struct machine *machine, int listen_fd, bool wait, struct gdb_server **ret,
                      struct err *err);
/* Begins to serve. The vCPUs have their threads. NULL is no server. */
int gdb_server_start(struct gdb_server *server, struct err *err);
