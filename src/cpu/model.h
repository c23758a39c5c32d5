/* Named processors, which are the same wherever a guest runs: what CPUID shows of a host is
 * cut down to what the name promises, so that a machine can go on at another host.
 *
 * x86-64, x86-64-v2 and x86-64-v3 are the levels of the psABI, with what an operating system
 * needs beside (no-execute pages; RDTSCP from v2 on; 1 GiB pages, FSGSBASE, SMEP and XSAVEOPT
 * from v3 on). Everything else is hidden, also where all hosts have it, and so are state and MSRs
 * that go with it. Vendor, family, name, caches and the width of addresses stay the host's.
 *
 * Hidden too are bits by which a processor tells what it is not vulnerable to: the guest
 * works around all of it, as it must where it does not know its next host.
 *
 * Both CPU providers use it. Everything is pure; strings are static.
 *
 * Source: System V ABI, AMD64 supplement 1.0, table 3.1; Intel SDM volume 2, CPUID.
 */
#pragma once

#include <stdint.h>

#include "base/err.h"

struct cpu_model {
        const char *name;
        unsigned level; /* of the psABI */
};

/* "host" comes first, and is no model: NULL. Ends with NULL. */
extern const char *const cpu_model_names[];
const struct cpu_model *cpu_model_find(const char *name);

/* What a guest may see of this leaf: of `regs` (EAX, EBX, ECX, EDX) what the model has. NULL: all.
 * Leaves of hypervisors are not touched. */
void cpu_model_mask(const struct cpu_model *model, uint32_t leaf, uint32_t subleaf,
                    uint32_t regs[4]);

/* -ENOTSUP, with the names of what is missing, where `read`, which tells what the host has, has
 * not all that the model promises. */
typedef void cpu_model_read_fn(void *arg, uint32_t leaf, uint32_t subleaf, uint32_t regs[4]);
int cpu_model_check(const struct cpu_model *model, cpu_model_read_fn *read, void *arg,
                    struct err *err);
