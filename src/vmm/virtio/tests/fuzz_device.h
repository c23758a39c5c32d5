/* What the fuzz targets of devices share: the input is the guest's memory, and the
 * rings lie where the target says. Each target includes its device's source, so that
 * it can call its work on this thread. */
#pragma once

#include <stdlib.h>
#include <string.h>

#include "vmm/virtio/device.h"

#define FUZZ_QUEUE_SIZE 16
#define FUZZ_RING_STEP  0x1000 /* descriptors, available at 0x100, used at 0x800 */
#define FUZZ_BYTES      0x8000

static struct machine fuzz_machine = { .memory = { .fd = -1 } };

static inline struct machine *fuzz_machine_get(void)
{
        if (fuzz_machine.memory.fd < 0 &&
            memory_init(&fuzz_machine.memory, 1u << 20, NULL, NULL) < 0)
                abort();
        fuzz_machine.vcpus_length = 1;
        return &fuzz_machine;
}

/* A driver has come, with all features, and put `data` into memory. */
static inline void fuzz_device_begin(struct virtio_device *d, const uint8_t *data, size_t size)
{
        uint8_t *ram = memory_at(&fuzz_machine.memory, gpa(0), FUZZ_BYTES);
        memset(ram, 0, FUZZ_BYTES);
        memcpy(ram, data, size < FUZZ_BYTES ? size : FUZZ_BYTES);
        d->acked = size & 1 ? d->features : d->features & ~VIRTIO_RING_F_EVENT_IDX;
        for (unsigned i = 0; i < d->queues_length; i++) {
                struct virtq *q = &d->queues[i];
                virtq_reset(q);
                q->size = FUZZ_QUEUE_SIZE;
                q->descriptors = gpa(i * FUZZ_RING_STEP);
                q->available = gpa(i * FUZZ_RING_STEP + 0x100);
                q->used = gpa(i * FUZZ_RING_STEP + 0x800);
                q->event_index = d->acked & VIRTIO_RING_F_EVENT_IDX;
                if (virtq_start(q) < 0)
                        abort();
        }
        atomic_store(&d->status, VIRTIO_STATUS_DRIVER_OK);
}
