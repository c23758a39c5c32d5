/* From linear to guest physical addresses by a vCPU's page tables, as a debugger wants it:
 * without faults, rights or accessed bits. Pure. */
#pragma once

#include "cpu/cpu.h"
#include "vmm/memory.h"

/* False where nothing is mapped. */
bool gdb_walk(const struct memory *memory, const struct cpu_state *state, uint64_t linear,
              struct gpa *ret);
