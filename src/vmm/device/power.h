/* What switches the machine: the ACPI fixed hardware (PM1a event and control
 * block, PM timer, GPE block), the paravirtual panic port, and for
 * tests the debug-exit port.
 *
 * Ports from LAYOUT_PORT_PM: event +0 (status, enable), control +4, timer +8.
 * The reset register (0xcf9) lives with the PCI host, which owns that port.
 * Source: ACPI 6.5, section 4.8; QEMU's docs/specs/pvpanic.rst for the panic port.
 */
#pragma once

#include "vmm/machine.h"

#define POWER_PM_EVENT   0
#define POWER_PM_CONTROL 4
#define POWER_PM_TIMER   8
#define POWER_PM_SIZE    12
#define POWER_SLEEP_S5   5 /* the SLP_TYP that the DSDT names for \_S5 */

struct power;

int power_create(struct machine *machine, bool debug_exit, struct power **ret, struct err *err);
/* Presses the power button: a guest that listens shuts down. THREAD-SAFE. */
void power_button(struct power *power);
/* Raises general purpose event `event`, 0 to 15: the guest runs what the DSDT has for it.
 * THREAD-SAFE. */
void power_event(struct power *power, unsigned event);
