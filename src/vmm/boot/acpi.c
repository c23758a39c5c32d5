#include "vmm/boot/acpi.h"

#include <stdio.h>
#include <string.h>

#include "base/auto.h"
#include "vmm/boot/aml.h"
#include "vmm/device/power.h"
#include "vmm/hotplug/ports.h"
#include "vmm/layout.h"

#define HEADER_SIZE   36
#define FADT_SIZE     276
#define FACS_SIZE     64
#define RSDP_SIZE     36
#define BOOT_LEGACY   0x0001 /* devices on the ISA ports */
#define BOOT_8042     0x0002
#define BOOT_NO_VGA   0x0004
#define FLAG_WBINVD   0x00000001u
#define FLAG_C1       0x00000004u
#define FLAG_NO_SLEEP 0x00000020u
#define FLAG_RESET    0x00000400u
#define RESET_FULL    0x06
#define IO_SPACE      1
#define RTC_CENTURY   0x32

struct tables {
        struct buf bytes;   /* as they lie from LAYOUT_ACPI on */
        uint32_t listed[4]; /* addresses in the XSDT */
        unsigned length;
};

static uint32_t here(struct tables *t)
{
        static const char zeros[16];
        while (t->bytes.size % 16)
                buf_append(&t->bytes, zeros, 1);
        return (uint32_t)(LAYOUT_ACPI + t->bytes.size);
}

static void set(struct tables *t, size_t at, uint64_t value, unsigned size)
{
        memcpy(t->bytes.data + at, &value, size);
}

static void put(struct tables *t, uint64_t value, unsigned size)
{
        buf_append(&t->bytes, &value, size);
}

static uint8_t sum(const char *bytes, size_t size)
{
        uint8_t s = 0;
        for (size_t i = 0; i < size; i++)
                s = (uint8_t)(s + (uint8_t)bytes[i]);
        return (uint8_t)-s;
}

/* Opens a table with its header; returns its address. */
static uint32_t begin(struct tables *t, const char *signature, unsigned revision)
{
        uint32_t address = here(t);
        buf_append(&t->bytes, signature, 4);
        put(t, 0, 4);
        put(t, revision, 2); /* and a zero checksum */
        buf_append(&t->bytes, "ISLE  ISLEVMM ", 14);
        put(t, 1, 4);
        buf_append(&t->bytes, "ISLE", 4);
        put(t, 1, 4);
        return address;
}

static void end(struct tables *t, uint32_t address)
{
        size_t at = address - LAYOUT_ACPI, size = t->bytes.size - at;
        set(t, at + 4, size, 4);
        t->bytes.data[at + 9] = (char)sum(t->bytes.data + at, size);
}

/* ---- DSDT ---- */

static void simple_device(struct aml *a, const char *name, const char *id, uint16_t port,
                          uint8_t length, int gsi)
{
        aml_device(a, name);
        aml_name_eisa(a, "_HID", id);
        aml_resources(a);
        aml_resource_io(a, port, length);
        if (gsi >= 0)
                aml_resource_irq(a, (uint32_t)gsi, false);
        aml_resources_end(a);
        aml_close(a);
}

static void serial_ports(struct aml *a, const struct acpi_config *c)
{
        static const uint16_t ports[] = { 0x3f8, 0x2f8, 0x3e8, 0x2e8 };
        for (unsigned i = 0; i < 4; i++) {
                char name[8];
                if (!c->serial[i])
                        continue;
                snprintf(name, sizeof(name), "COM%u", i + 1);
                aml_device(a, name);
                aml_name_eisa(a, "_HID", "PNP0501");
                aml_name_integer(a, "_UID", i + 1);
                aml_resources(a);
                aml_resource_io(a, ports[i], 8);
                aml_resource_irq(a, i % 2 ? 3 : 4, false);
                aml_resources_end(a);
                aml_close(a);
        }
}

static const char *slot_name(char name[8], unsigned slot)
{
        snprintf(name, 8, "S%03u", slot);
        return name;
}

/* Tells the slots of the mask in the register `word`. */
static void notify_slots(struct aml *a, const char *word, unsigned slots, uint8_t value)
{
        char name[8];
        aml_load(a, word);
        for (unsigned slot = 32 - slots; slot < 32; slot++) {
                aml_if_any(a, 1u << slot);
                aml_notify(a, slot_name(name, slot), value);
                aml_close(a);
        }
}

/* The slots that devices come to and go from; see hotplug/ports.h. */
static void hot_slots(struct aml *a, unsigned slots)
{
        static const char *const words[] = { "HPUP", "HPDN", "HPEJ" };
        char name[8];
        aml_ports(a, "HPRG", LAYOUT_PORT_HOTPLUG, words, HOTPLUG_PORTS / 4);
        for (unsigned slot = 32 - slots; slot < 32; slot++) {
                aml_device(a, slot_name(name, slot));
                aml_name_integer(a, "_ADR", slot << 16);
                aml_name_integer(a, "_SUN", slot);
                aml_method(a, "_EJ0", 1);
                aml_store(a, 1u << slot, "HPEJ");
                aml_close(a);
                aml_close(a);
        }
        aml_method(a, "HPEV", 0);
        notify_slots(a, "HPUP", slots, 1); /* device check */
        notify_slots(a, "HPDN", slots, 3); /* eject request */
        aml_close(a);
}

static void pci_host(struct aml *a, unsigned slots)
{
        aml_device(a, "PCI0");
        aml_name_eisa(a, "_HID", "PNP0A08");
        aml_name_eisa(a, "_CID", "PNP0A03");
        aml_name_integer(a, "_SEG", 0);
        aml_name_integer(a, "_BBN", 0);
        aml_name_integer(a, "_UID", 0);
        aml_resources(a);
        aml_resource_bus(a, 0, 0);
        aml_resource_io(a, 0xcf8, 8);
        aml_resource_window_io(a, 0, 0xcf7);
        aml_resource_window_io(a, 0xd00, 0xffff);
        aml_resource_window_memory(a, (uint32_t)LAYOUT_PCI_WINDOW, LAYOUT_PCI_WINDOW_SIZE);
        aml_resources_end(a);
        aml_name_package(a, "_PRT", 31);
        for (unsigned slot = 1; slot < 32; slot++) {
                aml_package(a, 4);
                aml_integer(a, slot << 16 | 0xffff);
                aml_integer(a, 0); /* INTA */
                aml_integer(a, 0);
                aml_integer(a, LAYOUT_IRQ_PCI_FIRST + slot % 4);
                aml_close(a);
        }
        aml_close(a);
        if (slots)
                hot_slots(a, slots);
        aml_close(a);
        /* ECAM is not memory that anybody may use. */
        aml_device(a, "MBRD");
        aml_name_eisa(a, "_HID", "PNP0C02");
        aml_resources(a);
        aml_resource_memory(a, (uint32_t)LAYOUT_ECAM, LAYOUT_ECAM_SIZE);
        aml_resources_end(a);
        aml_close(a);
}

static void virtio_devices(struct aml *a, unsigned length)
{
        for (unsigned i = 0; i < length; i++) {
                char name[8];
                snprintf(name, sizeof(name), "VR%02u", i % 100);
                aml_device(a, name);
                aml_name_string(a, "_HID", "LNRO0005");
                aml_name_integer(a, "_UID", i);
                aml_resources(a);
                aml_resource_memory(a, (uint32_t)(LAYOUT_VIRTIO_MMIO + i * LAYOUT_VIRTIO_MMIO_STEP),
                                    LAYOUT_VIRTIO_MMIO_STEP);
                aml_resource_irq(a, LAYOUT_IRQ_MMIO_FIRST + i % 4, true);
                aml_resources_end(a);
                aml_close(a);
        }
}

static void dsdt_body(struct aml *a, const struct acpi_config *c)
{
        aml_name_package(a, "\\_S5_", 4);
        aml_integer(a, POWER_SLEEP_S5);
        aml_integer(a, POWER_SLEEP_S5);
        aml_integer(a, 0);
        aml_integer(a, 0);
        aml_close(a);
        aml_scope(a, "\\_SB_");
        if (c->pci)
                pci_host(a, c->hot_slots);
        virtio_devices(a, c->virtio_mmio);
        serial_ports(a, c);
        simple_device(a, "RTC_", "PNP0B00", 0x70, 2, LAYOUT_IRQ_RTC);
        aml_device(a, "KBD_");
        aml_name_eisa(a, "_HID", "PNP0303");
        aml_resources(a);
        aml_resource_io(a, 0x60, 1);
        aml_resource_io(a, 0x64, 1);
        aml_resource_irq(a, 1, false);
        aml_resources_end(a);
        aml_close(a);
        aml_device(a, "PEVT");
        aml_name_string(a, "_HID", "QEMU0001");
        aml_name_integer(a, "_STA", 15);
        aml_resources(a);
        aml_resource_io(a, LAYOUT_PORT_PVPANIC, 1);
        aml_resources_end(a);
        aml_close(a);
        aml_close(a);
}

static void general_events(struct aml *a)
{
        aml_scope(a, "\\_GPE");
        aml_method(a, "_L01", 0);
        aml_call(a, "\\_SB_PCI0HPEV");
        aml_close(a);
        aml_close(a);
}

static uint32_t dsdt(struct tables *t, const struct acpi_config *c)
{
        struct aml a = { 0 };
        uint32_t address = begin(t, "DSDT", 2);
        dsdt_body(&a, c);
        if (c->pci && c->hot_slots)
                general_events(&a);
        buf_append(&t->bytes, a.bytes.data, a.bytes.size);
        buf_finish(&a.bytes);
        end(t, address);
        return address;
}

/* ---- the fixed tables ---- */

static uint32_t facs(struct tables *t)
{
        char bytes[FACS_SIZE] = "FACS";
        while (here(t) % 64) /* its alignment */
                put(t, 0, 8);
        uint32_t address = here(t);
        bytes[4] = FACS_SIZE;
        bytes[32] = 2;
        buf_append(&t->bytes, bytes, sizeof(bytes));
        return address;
}

static void generic_address(struct tables *t, size_t at, unsigned bits, uint64_t address)
{
        set(t, at, IO_SPACE | bits << 8, 4);
        set(t, at + 4, address, 8);
}

static void fadt(struct tables *t, uint32_t facs_at, uint32_t dsdt_at)
{
        static const char zeros[FADT_SIZE];
        uint32_t address = begin(t, "FACP", 6);
        size_t f = address - LAYOUT_ACPI;
        buf_append(&t->bytes, zeros, FADT_SIZE - HEADER_SIZE);
        set(t, f + 36, facs_at, 4);
        set(t, f + 40, dsdt_at, 4);
        set(t, f + 46, LAYOUT_IRQ_SCI, 2);
        set(t, f + 56, LAYOUT_PORT_PM + POWER_PM_EVENT, 4);
        set(t, f + 64, LAYOUT_PORT_PM + POWER_PM_CONTROL, 4);
        set(t, f + 76, LAYOUT_PORT_PM + POWER_PM_TIMER, 4);
        set(t, f + 80, LAYOUT_PORT_GPE, 4);
        set(t, f + 88, 4, 1); /* lengths: event, control, timer, GPE */
        set(t, f + 89, 2, 1);
        set(t, f + 91, 4, 1);
        set(t, f + 92, 4, 1);
        set(t, f + 96, 0xffff, 2); /* no C2, no C3 */
        set(t, f + 98, 0xffff, 2);
        set(t, f + 108, RTC_CENTURY, 1);
        set(t, f + 109, BOOT_LEGACY | BOOT_8042 | BOOT_NO_VGA, 2);
        set(t, f + 112, FLAG_WBINVD | FLAG_C1 | FLAG_NO_SLEEP | FLAG_RESET, 4);
        generic_address(t, f + 116, 8, LAYOUT_PORT_RESET);
        set(t, f + 128, RESET_FULL, 1);
        set(t, f + 140, dsdt_at, 8);
        generic_address(t, f + 148, 32, LAYOUT_PORT_PM + POWER_PM_EVENT);
        generic_address(t, f + 172, 16, LAYOUT_PORT_PM + POWER_PM_CONTROL);
        generic_address(t, f + 208, 32, LAYOUT_PORT_PM + POWER_PM_TIMER);
        generic_address(t, f + 220, 32, LAYOUT_PORT_GPE);
        memcpy(t->bytes.data + f + 268, "ISLE", 4);
        end(t, address);
        t->listed[t->length++] = address;
}

static void madt(struct tables *t, const struct acpi_config *c)
{
        uint32_t address = begin(t, "APIC", 5);
        put(t, LAYOUT_LAPIC, 4);
        put(t, 1, 4); /* the PICs are there too */
        for (unsigned i = 0; i < c->vcpus; i++) {
                put(t, 0x0800, 2);
                put(t, i | i << 8, 2);
                put(t, 1, 4);
        }
        put(t, 0x0c01, 2); /* the IOAPIC */
        put(t, 0, 2);
        put(t, LAYOUT_IOAPIC, 4);
        put(t, 0, 4);
        put(t, 0x0a02, 2); /* the PIT's line arrives at pin 2 */
        put(t, LAYOUT_IRQ_PIT << 8, 2);
        put(t, 2, 4);
        put(t, 0, 2);
        put(t, 0x0a02, 2); /* the SCI: level, active high */
        put(t, LAYOUT_IRQ_SCI << 8, 2);
        put(t, LAYOUT_IRQ_SCI, 4);
        put(t, 0x000d, 2);
        put(t, 0x0604, 2); /* NMI at LINT1 of all */
        put(t, 0xff, 3);
        put(t, 1, 1);
        end(t, address);
        t->listed[t->length++] = address;
}

static void mcfg(struct tables *t)
{
        uint32_t address = begin(t, "MCFG", 1);
        put(t, 0, 8);
        put(t, LAYOUT_ECAM, 8);
        put(t, 0, 8); /* segment 0, buses 0 to 0 */
        end(t, address);
        t->listed[t->length++] = address;
}

/* One unit for all PCI devices, and for the IOAPIC, whose id is 0 and which requests as device 0
 * of a bus that there is not. */
static void dmar(struct tables *t)
{
        uint32_t address = begin(t, "DMAR", 1);
        put(t, 46 - 1, 1); /* bits of a physical address */
        put(t, 1, 1);      /* remaps interrupts */
        put(t, 0, 8);
        put(t, 0, 2);
        put(t, 0, 2); /* a hardware unit */
        put(t, 16 + 8, 2);
        put(t, 1, 2); /* all of PCI */
        put(t, 0, 2); /* segment */
        put(t, LAYOUT_IOMMU, 8);
        put(t, 0x0803, 2); /* an IOAPIC */
        put(t, 0, 2);
        put(t, 0xff00, 2);
        put(t, 0, 2);
        end(t, address);
        t->listed[t->length++] = address;
}

static uint32_t xsdt(struct tables *t)
{
        uint32_t address = begin(t, "XSDT", 1);
        for (unsigned i = 0; i < t->length; i++)
                put(t, t->listed[i], 8);
        end(t, address);
        return address;
}

static void rsdp(struct tables *t, uint32_t xsdt_at)
{
        char *r = t->bytes.data;
        memcpy(r, "RSD PTR ", 8);
        memcpy(r + 9, "ISLE  ", 6);
        r[15] = 2;
        set(t, 20, RSDP_SIZE, 4);
        set(t, 24, xsdt_at, 8);
        r[8] = (char)sum(r, 20);
        r[32] = (char)sum(r, RSDP_SIZE);
}

int acpi_build(const struct acpi_config *c, const struct memory *memory, struct err *err)
{
        static const char room[48];
        struct tables t = { 0 };
        buf_append(&t.bytes, room, sizeof(room)); /* for the RSDP */
        uint32_t facs_at = facs(&t);
        uint32_t dsdt_at = dsdt(&t, c);
        fadt(&t, facs_at, dsdt_at);
        madt(&t, c);
        if (c->pci)
                mcfg(&t);
        if (c->iommu)
                dmar(&t);
        rsdp(&t, xsdt(&t));
        int r = 0;
        if (t.bytes.size > LAYOUT_ACPI_END - LAYOUT_ACPI)
                r = err_plain(err, E2BIG, "ACPI tables of %zu bytes: there is room for %llu",
                              t.bytes.size, LAYOUT_ACPI_END - LAYOUT_ACPI);
        else if (memory_write(memory, gpa(LAYOUT_ACPI), t.bytes.data, t.bytes.size) < 0)
                r = err_plain(err, EINVAL, "ACPI tables: no memory below 1 MiB");
        buf_finish(&t.bytes);
        return r;
}
