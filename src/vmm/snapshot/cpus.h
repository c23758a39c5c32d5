/* Processors, the chips around them and the time, in and out of a state: sections clock.0, cpu.N,
 * apic.N, paravirt.N, ioapic.0 and pic.N, the same whatever the provider. */
#pragma once

#include "vmm/machine.h"
#include "vmm/snapshot/state.h"

/* All vCPUs stand. */
int cpus_save(struct machine *machine, struct state_writer *writer, struct err *err);
/* Before any vCPU ran. For the guest no time has passed. */
int cpus_load(struct machine *machine, struct state_reader *reader, struct err *err);
