#include "vmm/virtio/rng.c"

#include "vmm/virtio/tests/fuzz_device.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static struct rng rng;
        if (!rng.virtio.queues_length) {
                virtio_init(&rng.virtio, fuzz_machine_get(), VIRTIO_RNG, "virtio-rng", &ops, 0);
                virtio_queue(&rng.virtio, 64);
        }
        fuzz_device_begin(&rng.virtio, data, size);
        notify(&rng.virtio, 0);
        return 0;
}
