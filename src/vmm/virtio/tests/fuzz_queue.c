/* Rings and descriptors from the fuzzer: the input is the guest's memory. Chains
 * are popped, read, written and pushed until the ring is empty or not sane. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/virtio/queue.h"

#define QUEUE_SIZE 16
#define RING_BYTES 0x1000

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static struct memory memory = { .fd = -1 };
        static struct virtq_chain chain;
        if (memory.fd < 0 && memory_init(&memory, 1u << 20, NULL, NULL) < 0)
                abort();
        uint8_t *ram = memory_at(&memory, gpa(0), RING_BYTES);
        memset(ram, 0, RING_BYTES);
        memcpy(ram, data, size < RING_BYTES ? size : RING_BYTES);
        const struct dma dma = { .memory = &memory };
        struct virtq q = { .dma = &dma,
                           .size_max = QUEUE_SIZE,
                           .size = QUEUE_SIZE,
                           .event_index = size & 1,
                           .descriptors = gpa(0),
                           .available = gpa(16 * QUEUE_SIZE),
                           .used = gpa(0x800) };
        if (virtq_start(&q) < 0)
                abort();
        uint8_t bytes[64];
        for (unsigned i = 0; i < 4 * QUEUE_SIZE && virtq_pop(&q, &chain) > 0; i++) {
                size_t n = virtq_read(&chain, 0, bytes, sizeof(bytes));
                size_t written = virtq_write(&chain, 0, bytes, n);
                if (n > chain.out_bytes || written > chain.in_bytes)
                        abort();
                virtq_push(&q, &chain, written);
                virtq_should_signal(&q);
                virtq_want_notify(&q, true);
        }
        return 0;
}
