/* `isle-vmm --profile FILE`: what the guest's code costs the software processor.
 *
 * A report, as text: totals, hit rates, why the interpreter was needed, and the hottest
 * blocks of guest code with their instructions. It is appended to FILE when a life of the machine
 * ends, and handed out meanwhile. Hot means: many instructions executed; what an instruction costs
 * is told by perf(1), for which /tmp/perf-PID.map names the guest's code by its addresses.
 *
 * All files are opened, and Zydis is loaded, before the jail is closed.
 */
#pragma once

#include "base/buf.h"
#include "cpu/profile.h"
#include "vmm/soft/soft.h"

struct profile;

/* Every vCPU of the machine counts from now on; before they run. */
int profile_create(struct machine *machine, const char *path, struct err *err);
/* Takes over what the vCPU counted, which is about to go. */
void profile_keep(struct profile *profile, struct cpu *cpu);
/* Writes the report. All vCPUs have been kept. */
void profile_destroy(struct profile *profile);
void profile_report(const struct profile *profile, struct buf *ret);

/* ---- profile_report.c ---- */

/* The text of the instruction at `bytes`, whose size is returned; 0: none is there. */
typedef size_t disassemble_fn(uint64_t linear, unsigned bits, const uint8_t *bytes, size_t size,
                              char *ret, size_t ret_size);
void profile_write(struct buf *to, const struct cpu_profile *const *profiles, size_t length,
                   disassemble_fn *disassemble);
