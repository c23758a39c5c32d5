/* The host's side of a guest's vsock connections: Unix sockets, as Firecracker has it.
 *
 *   guest to host    a connection to port P of the host (CID 2) is one to the Unix
 *                    socket PATH_P, where a program of the host listens
 *   host to guest    a program connects to PATH and writes "CONNECT P\n"; when the
 *                    guest has accepted on its port P it reads "OK <host port>\n"
 *
 * Knows packets, not rings: vsock_peers_take() is given what the guest sent,
 * vsock_peers_give() makes what the guest shall get. Streams only; anything else is
 * answered by a reset.
 *
 * The guest is a stranger: it never makes the host hold more than VSOCK_BUFFER bytes a
 * connection and VSOCK_CONNECTIONS connections, and reaches no other path.
 *
 * Belongs to one thread.
 *
 * Source: VIRTIO 1.2, section 5.10.
 */
#pragma once

#include <linux/virtio_vsock.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/err.h"

#define VSOCK_BUFFER      262144u /* bytes of one connection that the host's reader has not taken */
#define VSOCK_CONNECTIONS 1024
#define VSOCK_HOST_CID    2

struct vsock_peers;

/* A socket that listens at `path`, which must not exist; removing it is the caller's. */
int vsock_listen(const char *path, int *ret_fd, struct err *err);
/* `listen_fd` stays the caller's. `path` is where this process reaches the directory in
 * which PATH_P are. */
int vsock_peers_create(int listen_fd, const char *path, uint32_t guest_cid,
                       struct vsock_peers **ret, struct err *err);
void vsock_peers_destroy(struct vsock_peers *peers);
/* Ends every connection, as when the guest's driver has gone. */
void vsock_peers_reset(struct vsock_peers *peers);

/* Readable when vsock_peers_poll() has something to do. */
int vsock_peers_fd(const struct vsock_peers *peers);
void vsock_peers_poll(struct vsock_peers *peers);

/* A packet of the guest: its header, and its data, which are header->len bytes. */
void vsock_peers_take(struct vsock_peers *peers, const struct virtio_vsock_hdr *header,
                      const struct iovec *data, unsigned length);
/* The next packet for the guest into *ret and, where it has data, the room given.
 * False: there is none. `size` bytes of room, at least one. */
bool vsock_peers_give(struct vsock_peers *peers, const struct iovec *room, unsigned length,
                      size_t size, struct virtio_vsock_hdr *ret);
