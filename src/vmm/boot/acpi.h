/* The ACPI tables of a machine: RSDP, XSDT, FADT, FACS, MADT, MCFG, DMAR, DSDT.
 *
 * They describe what is there and nothing else: no firmware takes part. The
 * tables lie from LAYOUT_ACPI on, the RSDP first, where an operating system
 * looks for it.
 * Source: ACPI 6.5, chapter 5; PCI Firmware Specification 3.3 for MCFG; Intel VT-d 3.3, chapter 8
 * for DMAR.
 */
#pragma once

#include "vmm/memory.h"

struct acpi_config {
        unsigned vcpus;
        bool pci;
        bool iommu;           /* at LAYOUT_IOMMU */
        unsigned hot_slots;   /* PCI slots at the end that devices come to and go from */
        unsigned virtio_mmio; /* devices at LAYOUT_VIRTIO_MMIO */
        bool serial[4];       /* COM1 to COM4 */
};

int acpi_build(const struct acpi_config *config, const struct memory *memory, struct err *err);
