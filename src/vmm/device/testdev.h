/* What test kernels look for beside the debug-exit port, at the addresses where QEMU's
 * pc-testdev has it. Only with --test-devices: a guest needs none of it.
 *
 *   port 0xe0, 4 bytes      a register that reads back what was written
 *   port 0xe4, 4 bytes      takes a page's address, "throw its mapping away": nothing to do
 *   ports 0x2000 to 0x2017  one per interrupt line: its level
 *   0xff000000, 64 KiB      memory behind MMIO: each access is an exit
 *
 * And the interrupt controllers are as a BIOS leaves them, vectors from 0x08 and 0x70, with
 * line 11 open: kernels in real mode do not set them up.
 */
#pragma once

#include "vmm/machine.h"

int testdev_create(struct machine *machine, struct err *err);
