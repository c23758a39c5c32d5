/* A device for the fuzz targets of transports: it echoes its chains, and insists on what a
 * transport promises to a device. */
#pragma once

#include "vmm/virtio/tests/fuzz_device.h"

static bool echo_started;

static inline void echo_start(struct virtio_device *d)
{
        if (echo_started || !(d->acked & VIRTIO_RING_F_VERSION_1))
                abort();
        echo_started = true;
}

static inline void echo_stop(struct virtio_device *d)
{
        (void)d;
        if (!echo_started)
                abort();
        echo_started = false;
}

static inline void echo_notify(struct virtio_device *d, unsigned queue)
{
        static struct virtq_chain chain;
        uint8_t bytes[64];
        int r = 0;
        if (!echo_started || queue >= d->queues_length)
                abort();
        for (unsigned i = 0; i < 64 && (r = virtq_pop(&d->queues[queue], &chain)) > 0; i++) {
                size_t n = virtq_read(&chain, 0, bytes, sizeof(bytes));
                virtq_push(&d->queues[queue], &chain, virtq_write(&chain, 0, bytes, n));
        }
        if (r < 0)
                virtio_broken(d, "fuzz");
        else
                virtio_signal(d, queue);
}

static inline void echo_config_written(struct virtio_device *d, unsigned offset, unsigned size)
{
        if (offset >= d->config_size || size > 8)
                abort();
}

static const struct virtio_ops echo_ops = { echo_start, echo_stop, echo_notify,
                                            echo_config_written };

static inline void echo_init(struct virtio_device *d, struct machine *m)
{
        memset(d, 0, sizeof(*d));
        echo_started = false;
        virtio_init(d, m, VIRTIO_RNG, "fuzz", &echo_ops, 0);
        d->config_size = 12;
        virtio_queue(d, FUZZ_QUEUE_SIZE);
        virtio_queue(d, VIRTQ_SIZE_MAX);
}
