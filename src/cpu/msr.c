/* Model-specific registers: a table of plain ones, code for the rest. */
#include "cpu/core.h"

#include <x86intrin.h>

#define MSR_TSC        0x10u
#define MSR_EFER       0xc0000080u
#define MSR_FS_BASE    0xc0000100u
#define MSR_GS_BASE    0xc0000101u
#define MSR_PAT        0x277u
#define MSR_TSC_ADJUST 0x3bu
#define MSR_PKRS       0x6e1u

#define MSR_ARCH_CAPABILITIES 0x10au
/* Not affected by Meltdown, L1TF, SSB, MDS, page size change, TAA, MMIO stale data
 * (three kinds), BHI, GDS, RFDS; IBRS is always on. Whatever leaks through speculation
 * here, the guest's work-arounds for silicon would not stop it and would cost a page
 * table switch per system call (docs/threat-model.md). */
#define ARCH_CAPABILITIES                                                                          \
        (1ull << 0 | 1ull << 1 | 1ull << 3 | 1ull << 4 | 1ull << 5 | 1ull << 6 | 1ull << 8 |       \
         1ull << 13 | 1ull << 14 | 1ull << 15 | 1ull << 20 | 1ull << 26 | 1ull << 27)

/* Kept for their reader: there is nothing to control. */
#define MSR_SPECULATION    0x48u
#define MSR_PREDICTION     0x49u /* command */
#define SPECULATION_BITS   3ull  /* IBRS, STIBP */
#define PREDICTION_BARRIER 1ull

enum msr_rule {
        MSR_ANY,       /* any value */
        MSR_CANONICAL, /* #GP for other addresses */
        MSR_32,        /* #GP when the high half is not zero */
        MSR_COMMAND,   /* written only; does nothing here */
        MSR_ZERO,      /* reads 0, writes vanish: registers Linux touches on AMD and Intel */
};

struct msr {
        uint32_t index;
        uint16_t rule;
        uint16_t offset; /* in struct cpu_state; 0 for MSR_ZERO */
};

#define STATE(field) offsetof(struct cpu_state, field)

static const struct msr msrs[] = {
        { 0x1b, MSR_ANY, STATE(apic_base) },
        { 0x174, MSR_32, STATE(sysenter_cs) },
        { 0x175, MSR_CANONICAL, STATE(sysenter_esp) },
        { 0x176, MSR_CANONICAL, STATE(sysenter_eip) },
        { 0x1a0, MSR_ANY, STATE(misc_enable) },
        { 0x250, MSR_ANY, STATE(mtrr_fixed[0]) },
        { 0x258, MSR_ANY, STATE(mtrr_fixed[1]) },
        { 0x259, MSR_ANY, STATE(mtrr_fixed[2]) },
        { 0x268, MSR_ANY, STATE(mtrr_fixed[3]) },
        { 0x269, MSR_ANY, STATE(mtrr_fixed[4]) },
        { 0x26a, MSR_ANY, STATE(mtrr_fixed[5]) },
        { 0x26b, MSR_ANY, STATE(mtrr_fixed[6]) },
        { 0x26c, MSR_ANY, STATE(mtrr_fixed[7]) },
        { 0x26d, MSR_ANY, STATE(mtrr_fixed[8]) },
        { 0x26e, MSR_ANY, STATE(mtrr_fixed[9]) },
        { 0x26f, MSR_ANY, STATE(mtrr_fixed[10]) },
        { 0x2ff, MSR_ANY, STATE(mtrr_def_type) },
        { 0xc0000081, MSR_ANY, STATE(star) },
        { 0xc0000082, MSR_CANONICAL, STATE(lstar) },
        { 0xc0000083, MSR_CANONICAL, STATE(cstar) },
        { 0xc0000084, MSR_32, STATE(sfmask) },
        { 0xc0000102, MSR_CANONICAL, STATE(kernel_gs_base) },
        { 0xc0000103, MSR_32, STATE(tsc_aux) },
        { MSR_PREDICTION, MSR_COMMAND, 0 },
        { 0x17, MSR_ZERO, 0 },  /* platform id */
        { 0x3a, MSR_ZERO, 0 },  /* feature control */
        { 0x8b, MSR_ZERO, 0 },  /* microcode revision */
        { 0xce, MSR_ZERO, 0 },  /* platform info */
        { 0x140, MSR_ZERO, 0 }, /* feature enables */
        { 0x179, MSR_ZERO, 0 }, /* no machine check banks */
        { 0x17a, MSR_ZERO, 0 },
        { 0x17b, MSR_ZERO, 0 },
        { 0x1d9, MSR_ZERO, 0 }, /* debug control */
        { 0x606, MSR_ZERO, 0 }, /* RAPL units */
        /* AMD's four event selectors and counters, which are there without a CPUID bit:
         * software finds that they do not count. */
        { 0xc0010000, MSR_ZERO, 0 },
        { 0xc0010001, MSR_ZERO, 0 },
        { 0xc0010002, MSR_ZERO, 0 },
        { 0xc0010003, MSR_ZERO, 0 },
        { 0xc0010004, MSR_ZERO, 0 },
        { 0xc0010005, MSR_ZERO, 0 },
        { 0xc0010006, MSR_ZERO, 0 },
        { 0xc0010007, MSR_ZERO, 0 },
        { 0xc0010010, MSR_ZERO, 0 }, /* SYSCFG */
        { 0xc0010015, MSR_ZERO, 0 }, /* HWCR */
        { 0xc001001f, MSR_ZERO, 0 }, /* northbridge configuration */
        { 0xc0010055, MSR_ZERO, 0 }, /* interrupt pending */
        { 0xc0011020, MSR_ZERO, 0 }, /* load-store configuration */
        { 0xc0011029, MSR_ZERO, 0 }, /* decode configuration */
};

uint64_t cpu_tsc(struct cpu *cpu)
{
        return __rdtsc() + cpu->s.tsc_offset;
}

static const struct msr *msr_find(uint32_t index)
{
        for (unsigned i = 0; i < sizeof(msrs) / sizeof(msrs[0]); i++)
                if (msrs[i].index == index)
                        return &msrs[i];
        return NULL;
}

/* Variable-range MTRR pairs; NULL for another index. */
static uint64_t *variable_mtrr(struct cpu *cpu, uint32_t index)
{
        unsigned n = (index - 0x200) / 2;
        if (index < 0x200 || n >= CPU_MTRR_VARIABLE)
                return NULL;
        return index & 1 ? &cpu->s.mtrr_mask[n] : &cpu->s.mtrr_base[n];
}

/* Registers that go with a feature which the processor's model has not. */
static bool is_hidden(const struct cpu *cpu, uint32_t index)
{
        switch (index) {
        case MSR_SPECULATION:
        case MSR_PREDICTION:
                return cpu->hides_speculation;
        case MSR_ARCH_CAPABILITIES:
                return cpu->hides_capabilities;
        case MSR_PKRS:
                return cpu->hides_key_rights;
        default:
                return false;
        }
}

bool cpu_msr_read(struct cpu *cpu, uint32_t index, uint64_t *ret)
{
        if (cpu->bus->msr_read) {
                int r = cpu->bus->msr_read(cpu->bus->arg, index, ret);
                if (r)
                        return r > 0;
        }
        if (is_hidden(cpu, index))
                return false;
        const struct msr *msr = msr_find(index);
        if (msr) {
                if (msr->rule == MSR_COMMAND)
                        return false;
                *ret = msr->rule == MSR_ZERO ? 0 : SLOT(cpu, uint64_t, msr->offset);
                return true;
        }
        const uint64_t *mtrr = variable_mtrr(cpu, index);
        switch (index) {
        case MSR_TSC:
                *ret = cpu_tsc(cpu);
                return true;
        case MSR_TSC_ADJUST:
                *ret = 0;
                return true;
        case MSR_SPECULATION:
                *ret = cpu->s.speculation;
                return true;
        case MSR_ARCH_CAPABILITIES:
                *ret = ARCH_CAPABILITIES;
                return true;
        case MSR_EFER:
                *ret = cpu->s.efer;
                return true;
        case MSR_FS_BASE:
                *ret = cpu->s.seg[CPU_FS].base;
                return true;
        case MSR_GS_BASE:
                *ret = cpu->s.seg[CPU_GS].base;
                return true;
        case MSR_PAT:
                *ret = cpu->s.pat;
                return true;
        case MSR_PKRS:
                *ret = cpu->s.pkrs;
                return true;
        case 0xfe: /* MTRR capabilities: 8 variable, fixed, write-combining */
                *ret = CPU_MTRR_VARIABLE | 1u << 8 | 1u << 10;
                return true;
        default:
                if (mtrr)
                        *ret = *mtrr;
                return mtrr != NULL;
        }
}

static bool efer_write(struct cpu *cpu, uint64_t value)
{
        value &= ~(uint64_t)EFER_LMA;
        if (value & ~(uint64_t)EFER_ALLOWED)
                return false;
        if ((value ^ cpu->s.efer) & EFER_LME && cpu->s.cr0 & CR0_PG)
                return false;
        uint64_t old = cpu->s.efer;
        cpu->s.efer = value | (old & EFER_LMA);
        if ((value ^ old) & EFER_NXE)
                cpu_tlb_flush(cpu, true);
        return true;
}

static bool pat_valid(uint64_t value)
{
        for (unsigned i = 0; i < 8; i++) {
                unsigned type = value >> 8 * i & 0xff;
                if (type > 7 || type == 2 || type == 3)
                        return false;
        }
        return true;
}

static bool base_write(struct cpu *cpu, unsigned seg, uint64_t value)
{
        if (!canonical(value))
                return false;
        cpu->s.seg[seg].base = value;
        return true;
}

bool cpu_msr_write(struct cpu *cpu, uint32_t index, uint64_t value)
{
        cpu_code_catch_up(cpu); /* it may be an interrupt command */
        if (cpu->bus->msr_write) {
                int r = cpu->bus->msr_write(cpu->bus->arg, index, value);
                if (r)
                        return r > 0;
        }
        if (is_hidden(cpu, index))
                return false;
        const struct msr *msr = msr_find(index);
        if (msr) {
                if ((msr->rule == MSR_32 && value >> 32) ||
                    (msr->rule == MSR_CANONICAL && !canonical(value)) ||
                    (msr->rule == MSR_COMMAND && value & ~PREDICTION_BARRIER))
                        return false;
                if (msr->rule < MSR_COMMAND)
                        SLOT(cpu, uint64_t, msr->offset) = value;
                return true;
        }
        uint64_t *mtrr = variable_mtrr(cpu, index);
        switch (index) {
        case MSR_TSC:
                cpu->s.tsc_offset = value - __rdtsc();
                return true;
        case MSR_TSC_ADJUST:
                return value == 0;
        case MSR_SPECULATION:
                if (value & ~SPECULATION_BITS)
                        return false;
                cpu->s.speculation = (uint8_t)value;
                return true;
        case MSR_EFER:
                return efer_write(cpu, value);
        case MSR_FS_BASE:
                return base_write(cpu, CPU_FS, value);
        case MSR_GS_BASE:
                return base_write(cpu, CPU_GS, value);
        case MSR_PAT:
                if (!pat_valid(value))
                        return false;
                cpu->s.pat = value;
                return true;
        case MSR_PKRS:
                if (value >> 32)
                        return false;
                cpu_set_key_rights(cpu, &cpu->s.pkrs, (uint32_t)value);
                return true;
        default:
                if (mtrr)
                        *mtrr = value;
                return mtrr != NULL;
        }
}
