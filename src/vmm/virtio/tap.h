/* Tap interfaces: the host's end of a guest's network cable. See Linux's
 * Documentation/networking/tuntap.rst. */
#pragma once

#include <stdbool.h>

#include "base/err.h"
#include "vmm/virtio/net.h"

/* `pairs` descriptors of the tap `name`, non-blocking, whose packets begin with a
 * virtio_net_hdr of 12 bytes. Makes the interface where it does not exist; sets
 * `mtu` where it is not 0; brings it up. All but the first are detached. */
int tap_open(const char *name, unsigned pairs, uint32_t mtu, int ret_fds[NET_PAIRS],
             struct err *err);
/* A descriptor of a tap that somebody else opened, with IFF_VNET_HDR and one queue; it is
 * ours from now on, and was brought up by whoever made it. */
int tap_adopt(int fd, int *ret_fd, struct err *err);
/* Whether `fds` are as tap_open() opens them, queues of one tap; the name is for stories. */
int tap_check(const int *fds, unsigned pairs, const char *name, struct err *err);
/* What the reader of this tap can deal with: TUN_F_*. */
int tap_set_offloads(int fd, unsigned flags);
int tap_attach(int fd, bool attached);
