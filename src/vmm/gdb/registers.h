/* A vCPU's registers as gdb numbers and names them.
 *
 * One table makes both the target description that gdb reads and the bytes of the
 * packets: the standard features core, sse, avx and segments, and the system
 * registers in one of our own. Values are little-endian.
 *
 * Writing segment selectors, CR0, CR3, CR4, CR8 and EFER is system.h's matter.
 *
 * Source: the GDB manual, "Target Descriptions", "i386 Features".
 */
#pragma once

#include <stdint.h>

#include "base/buf.h"
#include "cpu/cpu.h"
#include "vmm/gdb/system.h"

#define GDB_REGISTER_BYTES 16 /* of the largest */

unsigned gdb_registers(void);
unsigned gdb_register_size(unsigned index);
void gdb_register_get(const struct cpu_state *state, unsigned index, uint8_t *ret_bytes);
/* What the processor would not hold is masked; of system registers, refused. */
int gdb_register_set(struct cpu_state *state, unsigned index, const uint8_t *bytes,
                     const struct gdb_reader *reader, struct err *err);

/* The target description, XML. */
void gdb_registers_describe(struct buf *out);
