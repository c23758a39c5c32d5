/* The `edu` PCI device of QEMU (docs/specs/edu.txt there), for test kernels: a device that does
 * DMA and interrupts when it is told to. Only with --test-devices.
 *
 * Registers in BAR 0: identification, liveness, factorial, status, interrupt status, raise and
 * acknowledge, DMA source, destination, count and command; 4 KiB of its own at 0x40000, which DMA
 * copies from and to. It has MSI and INTx. All is done before the write that asks for it returns.
 */
#pragma once

#include "vmm/machine.h"

int edu_create(struct machine *machine, struct err *err);
