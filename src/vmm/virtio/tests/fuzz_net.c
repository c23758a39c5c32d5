/* Packets of the guest go to the other end of a socket pair, which gives back some. */
#include <sys/socket.h>

#include "vmm/virtio/net.c"

#include "vmm/virtio/tests/fuzz_device.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static struct net_pair pair;
        static struct net net = { .pairs = &pair, .pairs_length = 1, .attached = 1 };
        static int ends[2] = { -1, -1 };
        static uint8_t packet[HEADER + FRAME_MAX];
        struct err err = { 0 };
        if (ends[0] < 0) {
                if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) < 0)
                        abort();
                pair.net = &net;
                pair.fd = ends[0];
                if (worker_create("unused", JAIL_NET, work, &pair, -1, &pair.worker, &err) < 0)
                        abort();
                virtio_init(&net.virtio, fuzz_machine_get(), VIRTIO_NET, "virtio-net", &ops,
                            BIT(VIRTIO_NET_F_MRG_RXBUF) | BIT(VIRTIO_NET_F_CTRL_VQ));
                for (unsigned i = 0; i < 3; i++)
                        virtio_queue(&net.virtio, QUEUE_SIZE);
                net.virtio.config_size = 12;
        }
        fuzz_device_begin(&net.virtio, data, size);
        if (size & 2)
                net.virtio.acked &= ~BIT(VIRTIO_NET_F_MRG_RXBUF);
        for (size_t n = 1; n < sizeof(packet); n *= 7)
                if (send(ends[1], packet, HEADER + n < sizeof(packet) ? HEADER + n : n, 0) < 0)
                        break;
        work(&pair);
        notify(&net.virtio, 2);
        pair.held = 0;
        while (recv(ends[1], packet, sizeof(packet), 0) > 0 ||
               recv(ends[0], packet, sizeof(packet), 0) > 0) {
        }
        return 0;
}
