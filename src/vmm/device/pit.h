/* The 8254 timer and the speaker port's gate and output bits (0x61).
 *
 * Channel 0 raises GSI 0; channel 2 counts for whoever calibrates by it; channel
 * 1 is stored only. Modes 0, 2, 3 and 4 are timed; 1 and 5 behave as 0 and 4
 * (their gates are wired high). BCD counting is not modelled.
 * Source: Intel 8254 data sheet.
 */
#pragma once

#include "vmm/machine.h"

int pit_create(struct machine *machine, struct err *err);
