/* Writing a vCPU's system registers from a debugger.
 *
 * What the processor would answer with an exception is refused, and what it keeps beside a
 * register comes along: EFER.LMA with CR0.PG, and the hidden part of a segment register by its
 * descriptor, whose accessed bit in memory stays as it is. Whether the processor has a bit
 * at all says the CPU provider when it takes the state.
 *
 * Pure but for `read`. Source: Intel SDM volume 3A, sections 2.5, 3.4, 5.3 to 5.7 and 9.8.5.
 */
#pragma once

#include "base/err.h"
#include "cpu/cpu.h"

enum gdb_system {
        GDB_NOT_SYSTEM,
        GDB_CR0,
        GDB_CR3,
        GDB_CR4,
        GDB_CR8,
        GDB_EFER,
        GDB_SELECTOR, /* and enum cpu_seg */
};

/* Guest memory at linear addresses by the vCPU's own page tables; 0 or -errno. */
struct gdb_reader {
        int (*read)(void *arg, uint64_t address, uint8_t *bytes, size_t size);
        void *arg;
};

/* Touches `state` only on success. */
int gdb_system_set(struct cpu_state *state, unsigned which, uint64_t value,
                   const struct gdb_reader *reader, struct err *err);
