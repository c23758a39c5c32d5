/* The guest physical map, one place for all of it.
 *
 *      0 .. 3 GiB      memory (as much as there is)
 *      3 GiB ..        32-bit PCI window: BARs
 *      3.25 GiB        virtio devices on MMIO
 *      3.5 GiB         ECAM, one bus
 *      0xfec00000      IOAPIC
 *      0xfed90000      IOMMU, where there is one
 *      0xfee00000      local APICs
 *      4 GiB ..        the rest of the memory
 *
 * Below 1 MiB the loader keeps what it hands to the kernel; ACPI tables sit
 * where a BIOS would have them.
 */
#pragma once

#define LAYOUT_LOW_MEMORY_END 0xc0000000ull
#define LAYOUT_HIGH_MEMORY    0x100000000ull

#define LAYOUT_PCI_WINDOW       0xc0000000ull
#define LAYOUT_PCI_WINDOW_SIZE  0x10000000ull
#define LAYOUT_VIRTIO_MMIO      0xd0000000ull
#define LAYOUT_VIRTIO_MMIO_STEP 0x1000ull
#define LAYOUT_ECAM             0xe0000000ull
#define LAYOUT_ECAM_SIZE        0x100000ull
#define LAYOUT_IOAPIC           0xfec00000ull
#define LAYOUT_IOMMU            0xfed90000ull
#define LAYOUT_IOMMU_SIZE       0x1000ull
#define LAYOUT_LAPIC            0xfee00000ull
#define LAYOUT_KVM_IDENTITY     0xfeffc000ull
#define LAYOUT_KVM_TSS          0xfeffd000ull

#define LAYOUT_GDT         0x500ull
#define LAYOUT_BOOT_PARAMS 0x7000ull
#define LAYOUT_LOW_KERNEL  0x8000ull /* up to the command line: of 32-bit images */
#define LAYOUT_PAGE_TABLES 0x9000ull /* six pages, for 64-bit Linux only */
#define LAYOUT_CMDLINE     0x20000ull
#define LAYOUT_CMDLINE_MAX 0x1000ull
#define LAYOUT_LOW_END     0x9fc00ull /* conventional memory */
#define LAYOUT_ACPI        0xe0000ull
#define LAYOUT_ACPI_END    0x100000ull
#define LAYOUT_KERNEL      0x100000ull

/* Interrupts (GSI). */
#define LAYOUT_IRQ_PIT        0
#define LAYOUT_IRQ_SERIAL     4
#define LAYOUT_IRQ_RTC        8
#define LAYOUT_IRQ_SCI        9
#define LAYOUT_IRQ_MMIO_FIRST 16 /* of virtio devices on MMIO, four, level, shared */
#define LAYOUT_IRQ_PCI_FIRST  20 /* INTA..INTD of all slots, level, swizzled */
#define LAYOUT_GSIS           24

#define LAYOUT_PORT_PM      0x600 /* PM1a event, control, timer */
#define LAYOUT_PORT_GPE     0x620
#define LAYOUT_PORT_HOTPLUG 0x640
#define LAYOUT_PORT_RESET   0xcf9
#define LAYOUT_PORT_PVPANIC 0x505
#define LAYOUT_PORT_DEBUG   0xf4
#define LAYOUT_PORT_SERIAL  0x3f8
