/* The MC146818 clock and its CMOS memory (ports 0x70, 0x71).
 *
 * It shows the host's time in UTC, BCD, 24 hours, moved by whatever the guest
 * sets. Alarm, update and periodic interrupts raise GSI 8. The bytes in which a
 * BIOS leaves the memory size are filled in.
 * Source: Motorola MC146818A data sheet.
 */
#pragma once

#include "vmm/machine.h"

int rtc_create(struct machine *machine, struct err *err);
