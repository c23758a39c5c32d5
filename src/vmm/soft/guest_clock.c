/* What a guest sees of the software provider beside the processor itself:
 * topology, hypervisor leaves, local APIC MSRs, the paravirtual clock and hypercalls
 * (the guest interface of KVM, Documentation/virt/kvm/x86/{cpuid,msr,hypercalls}.rst). */
#include "vmm/soft/soft.h"

#include <cpuid.h>
#include <errno.h>
#include <string.h>
#include <x86intrin.h>

#include "base/clock.h"
#include "base/str.h"

#define FEATURE_CLOCKSOURCE  (1u << 0)
#define FEATURE_NOP_IO_DELAY (1u << 1)
#define FEATURE_CLOCKSOURCE2 (1u << 3)
#define FEATURE_STEAL_TIME   (1u << 5)
#define FEATURE_STABLE       (1u << 24)
#define FEATURE_SEND_IPI     (1u << 11)
#define HYPERCALL_SEND_IPI   10
#define MSR_WALL_CLOCK       0x11u
#define MSR_SYSTEM_TIME      0x12u
#define MSR_WALL_CLOCK_NEW   0x4b564d00u
#define MSR_SYSTEM_TIME_NEW  0x4b564d01u
#define MSR_STEAL_TIME       0x4b564d03u
#define MSR_TSC_DEADLINE     0x6e0u
#define CPUID_APIC           (1u << 9)
#define CLOCK_TSC_STABLE     1
#define CALIBRATION_NS       (3 * NS_PER_MS)

struct pvclock_time {
        uint32_t version, pad;
        uint64_t tsc_timestamp, system_time;
        uint32_t tsc_to_system_mul;
        int8_t tsc_shift;
        uint8_t flags, pad2[2];
};

struct pvclock_wall {
        uint32_t version, sec, nsec;
};

/* The clock and the counter at the same moment: the tightest of a few tries. */
static void sample(int64_t *ret_ns, uint64_t *ret_tsc)
{
        uint64_t best = UINT64_MAX;
        *ret_ns = 0;
        *ret_tsc = 0;
        for (unsigned i = 0; i < 8; i++) {
                uint64_t before = __rdtsc();
                int64_t now = clock_monotonic_ns();
                uint64_t width = __rdtsc() - before;
                if (width < best) {
                        best = width;
                        *ret_ns = now;
                        *ret_tsc = before + width / 2;
                }
        }
}

uint64_t soft_tsc_khz(void)
{
        uint32_t a, b, c, d;
        if (__get_cpuid(0x15, &a, &b, &c, &d) && a && b && c)
                return (uint64_t)c * b / a / 1000;
        int64_t start_ns, end_ns;
        uint64_t start_tsc, end_tsc;
        sample(&start_ns, &start_tsc);
        struct timespec pause = { 0, CALIBRATION_NS };
        nanosleep(&pause, NULL);
        sample(&end_ns, &end_tsc);
        return (end_tsc - start_tsc) * 1000000 / (uint64_t)(end_ns - start_ns);
}

void soft_clock_init(struct soft_machine *soft, uint64_t tsc_khz)
{
        uint64_t tsc = 0;
        sample(&soft->epoch_ns, &tsc);
        soft->tsc_offset = -tsc;
        /* scale = 10^6 / khz as a 32-bit fraction, normalised to use all its bits */
        unsigned __int128 scale = ((unsigned __int128)1000000 << 64) / tsc_khz; /* 64.64 */
        soft->clock_shift = 0;
        while (scale >> 64) {
                scale >>= 1;
                soft->clock_shift++;
        }
        while (!(scale >> 63)) {
                scale <<= 1;
                soft->clock_shift--;
        }
        soft->clock_scale = (uint32_t)(scale >> 32);
}

uint64_t soft_kvmclock_ns(const struct soft_machine *soft, uint64_t tsc)
{
        uint64_t ticks = tsc - soft->clock_tsc;
        int shift = soft->clock_shift;
        ticks = shift >= 0 ? ticks << shift : ticks >> -shift;
        return soft->clock_ns + (uint64_t)((unsigned __int128)ticks * soft->clock_scale >> 32);
}

void soft_set_system_time(struct soft_vcpu *s, uint64_t value)
{
        s->system_time_msr = value;
        if (!(value & 1))
                return;
        /* One base for all vCPUs: (0, 0), as guest TSC and system time start together. */
        const struct pvclock_time t = {
                .version = 2,
                .tsc_timestamp = s->soft->clock_tsc,
                .system_time = s->soft->clock_ns,
                .tsc_to_system_mul = s->soft->clock_scale,
                .tsc_shift = s->soft->clock_shift,
                .flags = CLOCK_TSC_STABLE,
        };
        memory_write(&s->vcpu->machine->memory, gpa(value & ~1ull), &t, sizeof(t));
}

static void write_wall_clock(struct soft_vcpu *s, uint64_t value)
{
        int64_t boot = clock_realtime_ns() - (clock_monotonic_ns() - s->soft->epoch_ns);
        const struct pvclock_wall w = { 2, (uint32_t)(boot / NS_PER_S),
                                        (uint32_t)(boot % NS_PER_S) };
        memory_write(&s->vcpu->machine->memory, gpa(value), &w, sizeof(w));
}

static void set_deadline(struct soft_vcpu *s, uint64_t tsc)
{
        uint64_t now_tsc = __rdtsc() + cpu_state(s->cpu)->tsc_offset;
        int64_t now = clock_monotonic_ns(), expiry = now;
        if (tsc > now_tsc) {
                unsigned __int128 ns = (unsigned __int128)(tsc - now_tsc) * 1000000 /
                                       s->vcpu->machine->tsc_khz;
                expiry = ns > (unsigned __int128)INT64_MAX / 2 ? INT64_MAX / 2 : now + (int64_t)ns;
        }
        fabric_set_deadline(&s->soft->fabric, s->vcpu->index, tsc, expiry);
        soft_timer(s);
}

int soft_msr_read(void *arg, uint32_t index, uint64_t *ret)
{
        struct soft_vcpu *s = arg;
        if (index == 0x1b || index == MSR_TSC_DEADLINE || (index >= 0x800 && index < 0x840))
                return fabric_msr_read(&s->soft->fabric, s->vcpu->index, index, ret);
        if (index == MSR_SYSTEM_TIME || index == MSR_SYSTEM_TIME_NEW) {
                *ret = s->system_time_msr;
                return 1;
        }
        if (index == MSR_STEAL_TIME) {
                *ret = s->steal_msr;
                return 1;
        }
        return 0;
}

int soft_msr_write(void *arg, uint32_t index, uint64_t value)
{
        struct soft_vcpu *s = arg;
        if (index == MSR_TSC_DEADLINE) {
                set_deadline(s, value);
                return 1;
        }
        if (index == 0x1b || (index >= 0x800 && index < 0x840)) {
                int r = fabric_msr_write(&s->soft->fabric, s->vcpu->index, index, value);
                if (r > 0 && index == 0x1b)
                        cpu_state(s->cpu)->apic_base = value;
                soft_timer(s);
                return r;
        }
        if (index == MSR_SYSTEM_TIME || index == MSR_SYSTEM_TIME_NEW)
                soft_set_system_time(s, value);
        else if (index == MSR_WALL_CLOCK || index == MSR_WALL_CLOCK_NEW)
                write_wall_clock(s, value);
        else if (index == MSR_STEAL_TIME)
                return soft_steal_set(s, value);
        else
                return 0;
        return 1;
}

/* Interrupts for many processors at once: a bitmap of identities (two words), the identity
 * of its bit 0, and an interrupt command without a destination. */
static uint64_t send_ipi(struct soft_vcpu *s, const uint64_t a[4])
{
        unsigned mode = a[3] >> 8 & 7;
        if (a[3] & ~0x47ffull || (mode != 0 && mode != 4)) /* assert; fixed, or NMI */
                return (uint64_t)-EINVAL;
        return fabric_send(&s->soft->fabric, a, (uint32_t)a[2], mode, (uint8_t)a[3]);
}

uint64_t soft_hypercall(void *arg, uint64_t number, const uint64_t arguments[4])
{
        if (number == HYPERCALL_SEND_IPI)
                return send_ipi(arg, arguments);
        return (uint64_t)-1000; /* KVM_ENOSYS */
}

static unsigned id_bits(unsigned vcpus)
{
        return vcpus > 1 ? 32 - (unsigned)__builtin_clz(vcpus - 1) : 0;
}

static void topology(unsigned vcpus, unsigned index, uint32_t subleaf, uint32_t r[4])
{
        r[0] = subleaf == 1 ? id_bits(vcpus) : 0;
        r[1] = subleaf == 0 ? 1 : subleaf == 1 ? vcpus : 0;
        r[2] = (subleaf & 0xff) | (subleaf < 2 ? (subleaf + 1) << 8 : 0);
        r[3] = index;
}

static void hypervisor(uint32_t leaf, uint64_t tsc_khz, uint32_t r[4])
{
        memset(r, 0, 16);
        switch (leaf) {
        case 0x40000000:
                r[0] = 0x40000010;
                memcpy(&r[1], "KVMKVMKVM\0\0\0", 12);
                break;
        case 0x40000001:
                r[0] = FEATURE_CLOCKSOURCE | FEATURE_CLOCKSOURCE2 | FEATURE_NOP_IO_DELAY |
                       FEATURE_SEND_IPI | FEATURE_STEAL_TIME | FEATURE_STABLE;
                break;
        case 0x40000010:
                r[0] = (uint32_t)tsc_khz;
                r[1] = 1000000; /* bus clock of the local APIC's timer */
                break;
        }
}

void soft_cpuid(void *arg, uint32_t leaf, uint32_t subleaf, uint32_t r[4])
{
        const struct soft_vcpu *s = arg;
        unsigned vcpus = s->vcpu->machine->vcpus_length, index = s->vcpu->index;
        uint64_t apic_base = s->soft->fabric.ports[index].lapic.base;
        if (leaf >= 0x40000000 && leaf <= 0x400000ff)
                hypervisor(leaf, s->vcpu->machine->tsc_khz, r);
        switch (leaf) {
        case 1:
                r[1] = (r[1] & 0x0000ffff) | index << 24 | vcpus << 16;
                r[2] |= 1u << 21 | 1u << 24 | 1u << 31; /* x2APIC, TSC deadline, hypervisor */
                if (vcpus > 1)
                        r[3] |= 1u << 28;
                if (!(apic_base & LAPIC_BASE_ENABLE))
                        r[3] &= ~CPUID_APIC;
                break;
        case 0xb:
                topology(vcpus, index, subleaf, r);
                break;
        case 0x80000001: /* AMD repeats the bit there */
                if (!(apic_base & LAPIC_BASE_ENABLE))
                        r[3] &= ~CPUID_APIC;
                break;
        case 0x80000008:
                r[2] = (vcpus - 1) | id_bits(vcpus) << 12;
                break;
        }
}
