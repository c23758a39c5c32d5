/* Accesses of a driver from the fuzzer to a device on PCI that echoes its chains. The input is a
 * list of accesses of eight bytes each: offset (two bytes), kind, and what is written; and all of
 * it is the guest's memory. Kind: where to (2 bits: the BAR, wherever it is, the device's
 * configuration, the host bridge's, ports 0xcf8 to 0xcff), size (2 bits), whether it reads. */
#include "vmm/virtio/pci_transport.c"

#include "vmm/layout.h"
#include "vmm/virtio/tests/fuzz_echo.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool line_up;

static void set_line(void *provider, unsigned gsi, bool raised)
{
        (void)provider;
        if (gsi < LAYOUT_IRQ_PCI_FIRST || gsi >= LAYOUT_IRQ_PCI_FIRST + 4)
                abort();
        line_up = raised;
}

static void message(void *provider, uint64_t address, uint32_t data)
{
        (void)provider, (void)address, (void)data;
}

static const struct irq_ops irq_ops = { .line = set_line, .message = message };

static void access_once(struct machine *m, struct virtio_device *d, const uint8_t bytes[8])
{
        const struct pci_function *f = &d->pci->function;
        uint64_t offset = bytes[0] | (uint64_t)bytes[1] << 8, value;
        unsigned where = bytes[2] & 3, size = 1u << (bytes[2] >> 2 & 3);
        struct bus *bus = where == 3 ? &m->pio : &m->mmio;
        const uint64_t places[] = { f->bars[0].mapped + offset % BAR_SIZE,
                                    LAYOUT_ECAM + (uint64_t)f->slot * 0x8000 + offset % 0x1000,
                                    LAYOUT_ECAM + offset % 0x1000, 0xcf8 + offset % 8 };
        if (where == 0 && !f->bars[0].mapped)
                return;
        if (bytes[2] & 0x80) {
                bus_read(bus, places[where], size, &value);
                return;
        }
        memset(&value, bytes[3], sizeof(value));
        memcpy(&value, bytes + 4, 4);
        bus_write(bus, places[where], size, value);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct machine *m = fuzz_machine_get();
        static struct virtio_device d;
        struct err err = { 0 };
        m->irq.ops = &irq_ops;
        m->outcome.kind = MACHINE_STOPPED; /* port 0xcf9 does that, and would tell vCPUs */
        m->vcpus_length = 0;
        list_init(&m->devices);
        bus_init(&m->mmio, "MMIO");
        bus_init(&m->pio, "PIO");
        echo_init(&d, m);
        if (pci_create(m, &err) < 0 || virtio_add(&d, 0, &err) < 0)
                abort();
        uint8_t *ram = memory_at(&m->memory, gpa(0), FUZZ_BYTES);
        memset(ram, 0, FUZZ_BYTES);
        memcpy(ram, data, size < FUZZ_BYTES ? size : FUZZ_BYTES);
        for (size_t at = 0; at + 8 <= size; at += 8)
                access_once(m, &d, data + at);
        virtio_remove(&d);
        if (echo_started || line_up)
                abort();
        virtio_finish(&d);
        machine_remove_device(m, machine_last_device(m));
        bus_finish(&m->mmio);
        bus_finish(&m->pio);
        return 0;
}
