/* virtio socket device (VIRTIO 1.2, section 5.10): AF_VSOCK in a Linux guest, Unix
 * sockets on the host. See vsock_peers.h for who reaches whom. */
#pragma once

#include "vmm/machine.h"

#define VSOCK_CID_MIN 3

struct vsock_options {
        int listen_fd;    /* stays the caller's, and outlives the machine */
        const char *path; /* of the sockets where programs of the host listen, less "_PORT" */
        uint32_t cid;
};

int virtio_vsock_create(struct machine *machine, const struct vsock_options *options,
                        struct err *err);
