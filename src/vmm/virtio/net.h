/* virtio network card (VIRTIO 1.2, section 5.1) at a tap interface: eth0 in a Linux guest.
 *
 * Checksums and segmentation stay with whoever can do them: packets carry their
 * virtio_net_hdr through the tap both ways, so that between two guests, or guest and
 * host, a 64 KiB segment is one packet. Mergeable receive buffers, a control queue,
 * and one thread per pair of queues.
 *
 * Frames that the kernel does not take (no carrier, a header that is not sane) are
 * dropped and counted, as a card would.
 */
#pragma once

#include "vmm/machine.h"

#define NET_PAIRS   8
#define NET_MTU_MIN 68
#define NET_MTU_MAX 65521

struct worker;

struct net_options {
        const int *fds; /* `pairs` of tap_open(); stay the caller's, and outlive the machine */
        uint8_t mac[6];
        unsigned pairs;               /* 1 to NET_PAIRS */
        uint32_t mtu;                 /* 0: as the tap has it */
        uint64_t bytes_per_s;         /* each way; 0: no limit */
        unsigned slot;                /* a kept PCI slot; 0: the next free one */
        struct worker *const *spares; /* a thread for each pair; NULL: makes its own */
};

int virtio_net_create(struct machine *machine, const struct net_options *options, struct err *err);

/* "02:00:00:00:00:01"; -EINVAL for anything else, and for group addresses and zero. */
int net_parse_mac(const char *text, uint8_t ret[6]);
/* A locally administered address that this host always gives to this name. */
void net_mac_of_name(const char *name, uint8_t ret[6]);
