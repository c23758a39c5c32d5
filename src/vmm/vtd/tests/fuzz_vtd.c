/* Registers and tables from the fuzzer: the input is guest memory, and a list of eight bytes each:
 * what is done (a register written or read, memory reached, a message sent, a virtqueue looked at)
 * and with which value. */
#include "vmm/virtio/queue.h"
#include "vmm/vtd/tests/unit.h"

#define BYTES   0x4000u
#define ACTIONS 256u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The bytes that a device reaches are memory, all of them. */
static void reach(struct machine *m, uint16_t source, uint64_t address, uint64_t size, bool write)
{
        const struct dma dma = { &m->memory, m->iommu, source };
        struct dma_part part;
        if (!dma_at(&dma, address, size, write, &part))
                return;
        if (!part.size_bytes || part.size_bytes > size ||
            memory_at(&m->memory, part.at, part.size_bytes) != part.host)
                abort();
        if (write)
                part.host[part.size_bytes - 1] ^= 1;
}

static void look(struct machine *m, uint16_t source, uint64_t at)
{
        static struct virtq_chain chain;
        const struct dma dma = { &m->memory, m->iommu, source };
        struct virtq q = { .dma = &dma,
                           .size_max = 16,
                           .size = 16,
                           .descriptors = gpa(at & ~0xfull),
                           .available = gpa((at & ~0xfull) + 0x100),
                           .used = gpa((at & ~0xfull) + 0x200) };
        uint8_t bytes[64];
        if (virtq_start(&q) < 0)
                return;
        for (unsigned i = 0; i < 32 && virtq_pop(&q, &chain) > 0; i++) {
                size_t n = virtq_read(&chain, 0, bytes, sizeof(bytes));
                virtq_push(&q, &chain, virtq_write(&chain, 0, bytes, n));
                virtq_should_signal(&q);
                virtq_want_notify(&q, true);
        }
}

static void act(struct machine *m, const uint8_t bytes[8])
{
        uint32_t value;
        memcpy(&value, bytes + 4, sizeof(value));
        unsigned at = bytes[1] | (bytes[2] & 3u) << 8;
        uint64_t wide = (uint64_t)value << (bytes[3] & 63);
        switch (bytes[0] & 7) {
        case 0:
        case 1:
                set_reg(m, at, bytes[0] & 8 ? 8 : 4, wide);
                break;
        case 2:
                (void)reg(m, at, 1u << (bytes[3] & 3));
                break;
        case 3:
                reach(m, bytes[1], wide, 1 + bytes[2] * 64u, bytes[0] & 8);
                break;
        case 4:
                irq_message(&m->irq, bytes[1] - 1, 0xfee00000 | (value & 0xfffff), bytes[2]);
                break;
        case 5:
                look(m, bytes[1], wide);
                break;
        default:
                loop_step(m->loop, 0);
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static struct machine *m;
        struct err err;
        if (!m) {
                m = unit_create();
        } else {
                bus_init(&m->mmio, "MMIO");
                if (vtd_create(m, &err) < 0)
                        abort();
        }
        uint8_t *ram = memory_at(&m->memory, gpa(0), BYTES);
        memset(ram, 0, BYTES);
        memcpy(ram, data, size < BYTES ? size : BYTES);
        for (size_t n = 0; n < ACTIONS && 8 * n + 8 <= size; n++)
                act(m, data + 8 * n);
        while (loop_step(m->loop, 0)) /* messages that wait */
                ;
        machine_remove_device(m, machine_last_device(m));
        bus_finish(&m->mmio);
        return 0;
}
