#include "vmm/virtio/balloon.c"

#include "vmm/virtio/tests/fuzz_device.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static struct balloon b;
        if (!b.virtio.queues_length) {
                pthread_mutex_init(&b.lock, NULL);
                virtio_init(&b.virtio, fuzz_machine_get(), VIRTIO_BALLOON, "virtio-balloon", &ops,
                            BIT(VIRTIO_BALLOON_F_STATS_VQ) | BIT(VIRTIO_BALLOON_F_REPORTING));
                for (unsigned i = 0; i < QUEUES; i++)
                        virtio_queue(&b.virtio, QUEUE_SIZE);
        }
        fuzz_device_begin(&b.virtio, data, size);
        b.has_stats_chain = false;
        work(&b);
        atomic_store(&b.stats_wanted, true);
        work(&b);
        return 0;
}
