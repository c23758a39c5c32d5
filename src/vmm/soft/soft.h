/* The `soft` provider: vCPUs executed by src/cpu.
 *
 * Each vCPU thread runs until it is kicked, halts or ends. The timer of its
 * local APIC is a timer on the machine's loop, which kicks; the vCPU then fires it
 * itself. A halted vCPU sleeps on a condition until somebody wakes it or its
 * timer is due. One that hardly ran for some seconds gives back the memory of its code.
 *
 * Time. The guest's TSC is the host's plus one offset for all vCPUs. Its
 * frequency is told through CPUID and kvmclock, so that no guest calibrates
 * (delay loops would be a fifth of a small kernel's boot).
 */
#pragma once

#include <stdint.h>

#include "vmm/machine.h"
#include "vmm/soft/fabric.h"

struct profile;

struct soft_machine {
        struct cpu_memory memory;
        struct fabric fabric;
        struct profile *profile; /* NULL: nobody asked for one */
        uint64_t tsc_offset;     /* guest TSC = host TSC + offset */
        int64_t epoch_ns;        /* monotonic time when kvmclock was 0 */
        uint64_t clock_tsc;      /* kvmclock is clock_ns where the guest's TSC is this: both */
        uint64_t clock_ns;       /* 0, but for a machine that was restored */
        uint32_t clock_scale;    /* pvclock: ns = (tsc << shift) * scale >> 32 */
        int8_t clock_shift;
};

struct soft_vcpu {
        struct vcpu *vcpu;
        struct soft_machine *soft;
        struct cpu *cpu;
        struct cpu_bus bus;
        uint64_t system_time_msr;
        uint64_t steal_msr, stolen_ns;
        int64_t steal_wall_ns, steal_thread_ns; /* when it was last looked at */
        bool step;                              /* a debugger wants an instruction at a time */
        struct timer *timer;                    /* of the local APIC, while the vCPU is busy */
        int64_t armed_ns;                       /* what it is set to; the vCPU's thread only */
        pthread_mutex_t lock;
        pthread_cond_t wake;
        atomic_bool signalled, sleeping;
        int64_t watch_ns; /* since when it is watched for idleness, and */
        int64_t busy_ns;  /* the time of a processor that its thread had taken by then */
};

/* Fires the APIC's timer where it is due, and sets `timer` to its next expiry, which is
 * returned. On the vCPU's thread. */
int64_t soft_timer(struct soft_vcpu *s);

/* Why a CPU stopped for a debugger: CPU_EXIT_DEBUG, or CPU_EXIT_BUDGET after a step. */
struct vcpu_stop soft_stop(struct cpu *cpu, enum cpu_exit reason);

/* Nanoseconds of a processor that the calling thread has taken. */
int64_t soft_thread_ns(void);
/* steal.c; on the vCPU's thread. Restart: what has passed was not wanted. */
void soft_steal_restart(struct soft_vcpu *s);
void soft_steal_account(struct soft_vcpu *s);
/* The MSR; 1, or -1 for #GP. */
int soft_steal_set(struct soft_vcpu *s, uint64_t value);

/* state.c: see vcpu.h */
int soft_get_state(struct vcpu *v, struct cpu_state *ret, struct err *err);
int soft_set_state(struct vcpu *v, const struct cpu_state *state, struct err *err);
int soft_get_apic(struct vcpu *v, struct vcpu_apic *ret, struct err *err);
int soft_set_apic(struct vcpu *v, const struct vcpu_apic *apic, struct err *err);
int soft_get_paravirt(struct vcpu *v, struct vcpu_paravirt *ret, struct err *err);
int soft_set_paravirt(struct vcpu *v, const struct vcpu_paravirt *wanted, struct err *err);
int soft_get_clock(struct machine *m, struct vcpu_clock *ret, struct err *err);
int soft_set_clock(struct machine *m, const struct vcpu_clock *now, uint64_t host_tsc,
                   struct err *err);
int soft_get_chips(struct machine *m, struct chips_state *ret, struct err *err);
int soft_set_chips(struct machine *m, const struct chips_state *chips, struct err *err);

/* CPUID, hypercalls and the paravirtual clock (guest_clock.c). */
void soft_cpuid(void *arg, uint32_t leaf, uint32_t subleaf, uint32_t regs[4]);
int soft_msr_read(void *arg, uint32_t index, uint64_t *ret_value);
int soft_msr_write(void *arg, uint32_t index, uint64_t value);
uint64_t soft_hypercall(void *arg, uint64_t number, const uint64_t arguments[4]);
/* The page at `value`, where its lowest bit says so. */
void soft_set_system_time(struct soft_vcpu *s, uint64_t value);
uint64_t soft_kvmclock_ns(const struct soft_machine *soft, uint64_t tsc);
/* Frequency of the host's TSC in kHz. */
uint64_t soft_tsc_khz(void);
void soft_clock_init(struct soft_machine *soft, uint64_t tsc_khz);
