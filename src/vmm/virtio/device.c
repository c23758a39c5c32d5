#include "vmm/virtio/device.h"

#include <string.h>

#include "base/log.h"
#include "vmm/snapshot/state.h"

void virtio_init(struct virtio_device *d, struct machine *machine, enum virtio_id id,
                 const char *name, const struct virtio_ops *ops, uint64_t features)
{
        d->device.state = &virtio_state;
        d->machine = machine;
        d->id = id;
        d->name = name;
        d->ops = ops;
        d->features = features | VIRTIO_RING_F_VERSION_1 | VIRTIO_RING_F_EVENT_IDX |
                      VIRTIO_RING_F_INDIRECT_DESC;
        d->dma = (struct dma){ .memory = &machine->memory, .iommu = machine->iommu };
        if (d->dma.iommu)
                d->features |= VIRTIO_RING_F_ACCESS_PLATFORM;
        pthread_mutex_init(&d->lock, NULL);
}

void virtio_finish(struct virtio_device *d)
{
        pthread_mutex_destroy(&d->lock);
}

void virtio_queue(struct virtio_device *d, uint16_t size_max)
{
        struct virtq *q = &d->queues[d->queues_length++];
        q->dma = &d->dma;
        q->size_max = size_max;
        virtq_reset(q);
}

void virtio_signal(struct virtio_device *d, unsigned queue)
{
        if (virtq_should_signal(&d->queues[queue]) && d->transport.interrupt)
                d->transport.interrupt(d->transport.arg, (int)queue);
}

void virtio_config_changed(struct virtio_device *d)
{
        atomic_fetch_add(&d->generation, 1);
        if (atomic_load(&d->status) & VIRTIO_STATUS_DRIVER_OK && d->transport.interrupt)
                d->transport.interrupt(d->transport.arg, -1);
}

void virtio_broken(struct virtio_device *d, const char *what)
{
        unsigned before = atomic_fetch_or(&d->status, VIRTIO_STATUS_NEEDS_RESET);
        if (before & VIRTIO_STATUS_NEEDS_RESET)
                return;
        err_plain(&d->broken, EIO, "%s: %s; the device waits for a reset by the guest", d->name,
                  what);
        log_debug("%s", d->broken.text);
        virtio_config_changed(d);
}

static void reset(struct virtio_device *d)
{
        if (atomic_load(&d->status) & VIRTIO_STATUS_DRIVER_OK && d->ops->stop)
                d->ops->stop(d);
        atomic_store(&d->status, 0);
        d->acked = 0;
        for (unsigned i = 0; i < d->queues_length; i++)
                virtq_reset(&d->queues[i]);
}

/* A driver that declines the IOMMU would give physical addresses, which go through it all the same:
 * it is told at once. */
bool virtio_agreed(const struct virtio_device *d)
{
        uint64_t needed = VIRTIO_RING_F_VERSION_1 | (d->features & VIRTIO_RING_F_ACCESS_PLATFORM);
        return !(d->acked & ~d->features) && (d->acked & needed) == needed;
}

void virtio_set_status(struct virtio_device *d, uint8_t status)
{
        unsigned before = atomic_load(&d->status);
        if (!status) {
                reset(d);
                return;
        }
        if (status & VIRTIO_STATUS_FEATURES_OK && !(before & VIRTIO_STATUS_FEATURES_OK) &&
            !virtio_agreed(d))
                status &= (uint8_t)~VIRTIO_STATUS_FEATURES_OK;
        if (!((status | before) & VIRTIO_STATUS_FEATURES_OK)) /* nothing was agreed on */
                status &= (uint8_t)~VIRTIO_STATUS_DRIVER_OK;
        /* A driver adds bits; NEEDS_RESET is ours. */
        atomic_fetch_or(&d->status, status & ~VIRTIO_STATUS_NEEDS_RESET);
        bool goes = status & VIRTIO_STATUS_DRIVER_OK && !(before & VIRTIO_STATUS_DRIVER_OK);
        if (!goes)
                return;
        for (unsigned i = 0; i < d->queues_length; i++)
                d->queues[i].event_index = d->acked & VIRTIO_RING_F_EVENT_IDX;
        if (d->ops->start)
                d->ops->start(d);
}

void virtio_set_ready(struct virtio_device *d, unsigned queue, bool ready)
{
        struct virtq *q = &d->queues[queue];
        if (atomic_load(&d->status) & VIRTIO_STATUS_DRIVER_OK)
                return; /* it may belong to another thread by now */
        if (!ready)
                virtq_reset(q);
        else if (!q->ready && virtq_start(q) < 0)
                virtio_broken(d, "a queue lies outside of memory");
}

void virtio_notified(struct virtio_device *d, unsigned queue)
{
        if (queue < d->queues_length && d->queues[queue].ready && virtio_live(d))
                d->ops->notify(d, queue);
}

uint32_t virtio_features_half(const struct virtio_device *d, unsigned half)
{
        return half < 2 ? (uint32_t)(d->features >> 32 * half) : 0;
}

void virtio_ack_half(struct virtio_device *d, unsigned half, uint32_t bits)
{
        if (half > 1 || atomic_load(&d->status) & VIRTIO_STATUS_FEATURES_OK)
                return;
        d->acked = (d->acked & ~(0xffffffffull << 32 * half)) | (uint64_t)bits << 32 * half;
}

uint64_t virtio_config_read(const struct virtio_device *d, unsigned offset, unsigned size)
{
        uint64_t value = 0;
        for (unsigned i = 0; i < size && offset + i < d->config_size; i++)
                value |= (uint64_t)d->config[offset + i] << 8 * i;
        return value;
}

void virtio_config_write(struct virtio_device *d, unsigned offset, unsigned size, uint64_t value)
{
        if (!d->ops->config_written || offset >= d->config_size)
                return;
        for (unsigned i = 0; i < size && offset + i < d->config_size; i++)
                d->config[offset + i] = (uint8_t)(value >> 8 * i);
        d->ops->config_written(d, offset, size);
}
