/* An IOMMU as Intel's VT-d: what PCI devices may reach of memory, and what their interrupts
 * become.
 *
 * Theory of operation. The guest writes tables into its memory and tells registers where they
 * are. A device's access names its requester id; the root table has an entry per bus, the context
 * table an entry per device, which points to page tables of the second level (3 or 4 of them,
 * large pages included). What was found is kept in a small direct-mapped table (the IOTLB) until
 * the guest invalidates it, by registers or by descriptors in a queue. A message of a device or of
 * the IOAPIC names an entry of the interrupt remapping table in place of processor and vector.
 * What is not allowed is recorded in a register, and a message tells the guest.
 *
 *   vtd.c         registers, the device
 *   translate.c   root, context and page tables, the IOTLB
 *   invalidate.c  the queue of invalidations
 *   interrupt.c   interrupt remapping
 *   fault.c       faults and the IOMMU's own messages
 *
 * All tables are the guest's and hostile: every entry is copied out once and checked, a walk is
 * as deep as the format says, and an address that is no memory is a fault.
 *
 * Legacy mode, one fault record; without extended interrupt mode, device TLBs, posted interrupts,
 * caching mode, protected memory regions and scalable mode: the capability registers say so.
 * Requests of the IOAPIC are not verified by source id: its entries are the kernel's alone.
 *
 * Threads: any; the lock is innermost (the interrupt fabric's may be held). Messages of its own go
 * out on the loop's thread.
 *
 * Source: Intel Virtualization Technology for Directed I/O, revision 3.3, chapters 3, 5, 6, 7, 9
 * and 11.
 */
#pragma once

#include "vmm/machine.h"

/* At LAYOUT_IOMMU, for PCI devices that are made afterwards; sets machine->iommu and the remapping
 * of machine->irq, whose chips must be there. */
int vtd_create(struct machine *machine, struct err *err);
