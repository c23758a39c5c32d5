/* Accesses of a driver from the fuzzer to a device on MMIO that echoes its chains. The input is
 * a list of accesses of eight bytes each: offset (12 bits), kind, and what is written; and all
 * of it is the guest's memory. */
#include "vmm/virtio/mmio_transport.c"

#include "vmm/virtio/tests/fuzz_echo.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool line_up[LAYOUT_GSIS];
static void set_line(void *provider, unsigned gsi, bool raised)
{
        (void)provider;
        if (gsi < LAYOUT_IRQ_MMIO_FIRST || gsi >= LAYOUT_IRQ_MMIO_FIRST + LINES)
                abort();
        line_up[gsi] = raised;
}

static const struct irq_ops irq_ops = { .line = set_line };

static void access_once(struct machine *m, const uint8_t bytes[8])
{
        uint64_t value = 0;
        uint32_t word;
        unsigned size = 1u << (bytes[1] >> 4 & 3);
        uint64_t offset = bytes[0] | (bytes[1] & 15u) << 8;
        memcpy(&word, bytes + 4, sizeof(word));
        uint64_t at = LAYOUT_VIRTIO_MMIO + (bytes[2] & 1u) * LAYOUT_VIRTIO_MMIO_STEP + offset;
        if (bytes[1] & 0x80)
                bus_read(&m->mmio, at, size, &value);
        else
                bus_write(&m->mmio, at, size, word);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct machine *m = fuzz_machine_get();
        static struct virtio_device d;
        struct err err = { 0 };
        m->irq.ops = &irq_ops;
        list_init(&m->devices);
        bus_init(&m->mmio, "MMIO");
        echo_init(&d, m);
        if (virtio_mmio_create(m, &err) < 0 || virtio_add(&d, 0, &err) < 0)
                abort();
        uint8_t *ram = memory_at(&m->memory, gpa(0), FUZZ_BYTES);
        memset(ram, 0, FUZZ_BYTES);
        memcpy(ram, data, size < FUZZ_BYTES ? size : FUZZ_BYTES);
        for (size_t at = 0; at + 8 <= size; at += 8)
                access_once(m, data + at);
        virtio_remove(&d);
        if (echo_started || line_up[LAYOUT_IRQ_MMIO_FIRST])
                abort();
        virtio_finish(&d);
        destroy(&m->mmio_places->device);
        bus_finish(&m->mmio);
        return 0;
}
