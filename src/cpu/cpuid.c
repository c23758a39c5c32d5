/* CPUID: what works, and nothing else. Bits of the host are passed on only for
 * instructions the host executes for us; the rest is what this room implements.
 * The host's CPUID traps to its hypervisor in most clouds (microseconds), so
 * it is read once when the vCPU is created. */
#include "cpu/core.h"
#include "cpu/model.h"

#include <cpuid.h>
#include <string.h>

#define BIT(n) (1u << (n))

/* Leaf 1 ECX: host-executed; ours: CX16, PCID, MOVBE, XSAVE. */
#define L1_ECX_HOST                                                                                \
        (BIT(0) | BIT(1) | BIT(9) | BIT(12) | BIT(19) | BIT(20) | BIT(23) | BIT(25) | BIT(28) |    \
         BIT(29) | BIT(30))
#define L1_ECX_OURS (BIT(13) | BIT(17) | BIT(22) | BIT(26) | BIT(31))
/* FPU DE PSE TSC MSR PAE MCE CX8 APIC SEP MTRR PGE MCA CMOV PAT PSE36 CLFSH MMX
 * FXSR SSE SSE2 */
#define L1_EDX 0x078bfbfdu
/* Leaf 7 EBX: BMI1 AVX2 BMI2 RDSEED ADX SHA from the host; ours: FSGSBASE SMEP
 * ERMS INVPCID SMAP CLFLUSHOPT CLWB. */
#define L7_EBX_HOST (BIT(3) | BIT(5) | BIT(8) | BIT(18) | BIT(19) | BIT(29))
#define L7_EBX_OURS (BIT(0) | BIT(7) | BIT(9) | BIT(10) | BIT(20) | BIT(23) | BIT(24))
#define L7_ECX      (BIT(2) | BIT(3) | BIT(22) | BIT(31)) /* UMIP PKU RDPID PKS */
#define L7_OSPKE    BIT(4)
/* FSRM SERIALIZE SPEC_CTRL ARCH_CAPABILITIES. Without SERIALIZE a kernel returns from an
 * interrupt to itself instead, by six instructions that are helper steps here, behind each
 * of the 100,000 changes that it makes to its own code while it boots. */
#define L7_EDX  (BIT(4) | BIT(14) | BIT(26) | BIT(29))
#define LD1_EAX (BIT(0) | BIT(1)) /* XSAVEOPT XSAVEC */
/* LAHF, LZCNT (host), PREFETCHW */
#define E1_ECX_OURS (BIT(0) | BIT(8))
#define E1_ECX_HOST BIT(5)
/* SYSCALL NX 1G RDTSCP LM */
#define E1_EDX (BIT(11) | BIT(20) | BIT(26) | BIT(27) | BIT(29))
/* AMD's second page of extended features, LFENCE as the host has it. No SRSO and no TSA, for
 * the reason of ARCH_CAPABILITIES in msr.c: the guest's RET and VERW are not the host's, so
 * its work-arounds stop nothing, and every return of its kernel would go by three jumps. */
#define E21_EAX_HOST BIT(2)
#define E21_EAX_OURS BIT(29)
#define E21_ECX      (BIT(1) | BIT(2))

static const struct {
        uint32_t leaf, sub;
} cached_leaves[CPU_CPUID_LEAVES] = {
        { 0, 0 },          { 1, 0 },          { 7, 0 },          { 4, 0 },
        { 4, 1 },          { 4, 2 },          { 4, 3 },          { 0x80000000, 0 },
        { 0x80000001, 0 }, { 0x80000002, 0 }, { 0x80000003, 0 }, { 0x80000004, 0 },
        { 0x80000005, 0 }, { 0x80000006, 0 }, { 0x80000021, 0 },
};

/* Where CPUID tells of a feature: what it does not show does not work. */
struct shown {
        uint32_t leaf;
        uint8_t subleaf, reg, bit;
};

static const struct shown shown[FEATURE_COUNT] = {
        [FEATURE_SSE3] = { 1, 0, 2, 0 },
        [FEATURE_SSSE3] = { 1, 0, 2, 9 },
        [FEATURE_SSE41] = { 1, 0, 2, 19 },
        [FEATURE_SSE42] = { 1, 0, 2, 20 },
        [FEATURE_AES] = { 1, 0, 2, 25 },
        [FEATURE_PCLMUL] = { 1, 0, 2, 1 },
        [FEATURE_SHA] = { 7, 0, 1, 29 },
        [FEATURE_AVX] = { 1, 0, 2, 28 },
        [FEATURE_AVX2] = { 7, 0, 1, 5 },
        [FEATURE_FMA] = { 1, 0, 2, 12 },
        [FEATURE_F16C] = { 1, 0, 2, 29 },
        [FEATURE_BMI1] = { 7, 0, 1, 3 },
        [FEATURE_BMI2] = { 7, 0, 1, 8 },
        [FEATURE_ADX] = { 7, 0, 1, 19 },
        [FEATURE_MOVBE] = { 1, 0, 2, 22 },
        [FEATURE_POPCNT] = { 1, 0, 2, 23 },
        [FEATURE_LZCNT] = { 0x80000001, 0, 2, 5 },
        [FEATURE_CRC32] = { 1, 0, 2, 20 },
        [FEATURE_RDRAND] = { 1, 0, 2, 30 },
        [FEATURE_RDSEED] = { 7, 0, 1, 18 },
        [FEATURE_XSAVE] = { 1, 0, 2, 26 },
        [FEATURE_XSAVEOPT] = { 0xd, 1, 0, 0 },
        [FEATURE_XSAVEC] = { 0xd, 1, 0, 1 },
        [FEATURE_CX16] = { 1, 0, 2, 13 },
        [FEATURE_RDTSCP] = { 0x80000001, 0, 3, 27 },
        [FEATURE_RDPID] = { 7, 0, 2, 22 },
        [FEATURE_FSGSBASE] = { 7, 0, 1, 0 },
        [FEATURE_SMAP] = { 7, 0, 1, 20 },
        [FEATURE_INVPCID] = { 7, 0, 1, 10 },
        [FEATURE_CLFLUSHOPT] = { 7, 0, 1, 23 },
        [FEATURE_CLWB] = { 7, 0, 1, 24 },
        [FEATURE_PKU] = { 7, 0, 2, 3 },
        [FEATURE_SERIALIZE] = { 7, 0, 3, 14 },
        [FEATURE_LAHF] = { 0x80000001, 0, 2, 0 },
};

static const struct {
        uint64_t cr4;
        struct shown by;
} controls[] = {
        { CR4_UMIP, { 7, 0, 2, 2 } },   { CR4_FSGSBASE, { 7, 0, 1, 0 } },
        { CR4_PCIDE, { 1, 0, 2, 17 } }, { CR4_OSXSAVE, { 1, 0, 2, 26 } },
        { CR4_SMEP, { 7, 0, 1, 7 } },   { CR4_SMAP, { 7, 0, 1, 20 } },
        { CR4_PKE, { 7, 0, 2, 3 } },    { CR4_PKS, { 7, 0, 2, 31 } },
};

static bool is_shown(const struct cpu *cpu, const struct shown *by)
{
        uint32_t r[4];
        cpu_cpuid(cpu, by->leaf, by->subleaf, r);
        return r[by->reg] >> by->bit & 1;
}

/* What the guest may use follows from what it is shown. */
static void settle(struct cpu *cpu)
{
        static const struct shown speculation = { 7, 0, 3, 26 }, capabilities = { 7, 0, 3, 29 };
        uint32_t r[4];
        cpu->features = 1ull << FEATURE_BASE;
        for (unsigned i = FEATURE_BASE + 1; i < FEATURE_COUNT; i++)
                if (is_shown(cpu, &shown[i]))
                        cpu->features |= 1ull << i;
        cpu->cr4_allowed = CR4_ALLOWED;
        for (unsigned i = 0; i < sizeof(controls) / sizeof(controls[0]); i++)
                if (!is_shown(cpu, &controls[i].by))
                        cpu->cr4_allowed &= ~controls[i].cr4;
        cpu_cpuid(cpu, 0xd, 0, r);
        cpu->xcr0_allowed = r[0] | 1; /* which is there without XSETBV too */
        cpu->hides_speculation = !is_shown(cpu, &speculation);
        cpu->hides_capabilities = !is_shown(cpu, &capabilities);
        cpu->hides_key_rights = !(cpu->cr4_allowed & CR4_PKS);
}

void cpu_cpuid_read_host(struct cpu *cpu)
{
        for (unsigned i = 0; i < CPU_CPUID_LEAVES; i++) {
                uint32_t *r = cpu->host_cpuid[i];
                __cpuid_count(cached_leaves[i].leaf, cached_leaves[i].sub, r[0], r[1], r[2], r[3]);
        }
        settle(cpu);
}

static const uint32_t *cached(const struct cpu *cpu, uint32_t leaf, uint32_t sub)
{
        for (unsigned i = 0; i < CPU_CPUID_LEAVES; i++)
                if (cached_leaves[i].leaf == leaf && cached_leaves[i].sub == sub)
                        return cpu->host_cpuid[i];
        return NULL;
}

static bool amd(const struct cpu *cpu)
{
        return cpu->host_cpuid[0][2] == 0x444d4163; /* AuthenticAMD */
}

/* Where the components end that XCR0 has; see exec_state.c. */
static uint32_t xsave_size(const struct cpu *cpu, bool compacted)
{
        uint32_t avx = cpu->s.xcr0 & 4 ? 832 : 576;
        if (!(cpu->s.xcr0 & XSTATE_PKRU))
                return avx;
        return (compacted ? avx : 832) + 8;
}

static void leaf_d(const struct cpu *cpu, uint32_t sub, uint32_t r[4])
{
        bool avx = cpu->features >> FEATURE_AVX & 1;
        if (sub == 0) {
                r[0] = (avx ? 7 : 3) | XSTATE_PKRU;
                r[1] = xsave_size(cpu, false);
                r[2] = 840;
        } else if (sub == 1) {
                r[0] = LD1_EAX;
                r[1] = xsave_size(cpu, true);
        } else if (sub == 2 && avx) {
                r[0] = 256;
                r[1] = 576;
        } else if (sub == 9) {
                r[0] = 8;
                r[1] = 832;
        }
}

static void basic(const struct cpu *cpu, uint32_t leaf, uint32_t sub, uint32_t r[4])
{
        const uint32_t *host = cached(cpu, leaf, leaf == 4 ? sub : 0);
        switch (leaf) {
        case 0:
                memcpy(r, host, 16);
                r[0] = 0xd;
                break;
        case 1:
                r[0] = host[0];
                r[1] = cpu->index << 24 | 1u << 16 | 8u << 8;
                r[2] = (host[2] & L1_ECX_HOST) | L1_ECX_OURS;
                if (cpu->s.cr4 & CR4_OSXSAVE)
                        r[2] |= BIT(27);
                r[3] = L1_EDX;
                break;
        case 4:
                if (host)
                        memcpy(r, host, 16);
                r[0] &= 0x3fff; /* one core, nothing shared: the machine amends it */
                break;
        case 7:
                if (sub)
                        break;
                r[1] = (host[1] & L7_EBX_HOST) | L7_EBX_OURS;
                r[2] = L7_ECX | (cpu->s.cr4 & CR4_PKE ? L7_OSPKE : 0);
                r[3] = L7_EDX;
                break;
        case 0xb:
                r[2] = sub;
                r[3] = cpu->index;
                break;
        case 0xd:
                leaf_d(cpu, sub, r);
                break;
        }
}

static void extended(const struct cpu *cpu, uint32_t leaf, uint32_t r[4])
{
        const uint32_t *host = cached(cpu, leaf, 0);
        switch (leaf) {
        case 0x80000000:
                memcpy(r, host, 16);
                r[0] = amd(cpu) ? 0x80000021 : 0x80000008;
                break;
        case 0x80000001:
                r[0] = host[0];
                r[2] = (host[2] & E1_ECX_HOST) | E1_ECX_OURS;
                r[3] = E1_EDX;
                if (amd(cpu)) /* which repeats leaf 1 */
                        r[3] |= L1_EDX & 0x0183f3ffu;
                break;
        case 0x80000007:
                r[3] = BIT(8); /* invariant TSC */
                break;
        case 0x80000008:
                r[0] = 46 | 48u << 8;
                break;
        case 0x80000021:
                r[0] = (host[0] & E21_EAX_HOST) | E21_EAX_OURS;
                r[2] = E21_ECX;
                break;
        default:
                if (host)
                        memcpy(r, host, 16);
        }
}

void cpu_cpuid(const struct cpu *cpu, uint32_t leaf, uint32_t sub, uint32_t regs[4])
{
        memset(regs, 0, 16);
        if (leaf >= 0x80000000 && leaf <= (amd(cpu) ? 0x80000021 : 0x80000008))
                extended(cpu, leaf, regs);
        else if (leaf <= 0xd)
                basic(cpu, leaf, sub, regs);
        cpu_model_mask(cpu->model, leaf, sub, regs);
}

static void read_leaf(void *arg, uint32_t leaf, uint32_t sub, uint32_t regs[4])
{
        cpu_cpuid(arg, leaf, sub, regs);
}

int cpu_set_model(struct cpu *cpu, const struct cpu_model *model, struct err *err)
{
        cpu->model = NULL;
        int r = cpu_model_check(model, read_leaf, cpu, err);
        if (r == 0)
                cpu->model = model;
        settle(cpu);
        return r;
}
