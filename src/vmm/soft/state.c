/* The state of vCPUs and of what is around them, in the form that all providers have. */
#include <errno.h>
#include <string.h>
#include <x86intrin.h>

#include "base/clock.h"
#include "base/str.h"
#include "vmm/soft/soft.h"

#define MSR_TSC_DEADLINE 0x6e0u

int soft_get_state(struct vcpu *v, struct cpu_state *ret, struct err *err)
{
        struct soft_vcpu *s = v->provider;
        (void)err;
        *ret = *cpu_state(s->cpu);
        ret->cr8 = fabric_tpr(&s->soft->fabric, v->index);
        return 0;
}

int soft_set_state(struct vcpu *v, const struct cpu_state *state, struct err *err)
{
        struct soft_vcpu *s = v->provider;
        int r = cpu_set_state(s->cpu, state, err);
        if (r < 0)
                return r;
        fabric_set_tpr(&s->soft->fabric, v->index, (uint8_t)state->cr8);
        return 0;
}

int soft_get_apic(struct vcpu *v, struct vcpu_apic *ret, struct err *err)
{
        struct soft_vcpu *s = v->provider;
        struct fabric *f = &s->soft->fabric;
        int64_t now = clock_monotonic_ns();
        (void)err;
        memset(ret, 0, sizeof(*ret));
        pthread_mutex_lock(&f->chips.lock);
        struct lapic *l = &f->ports[v->index].lapic;
        lapic_expire(l, now); /* what is due has not been fired by its vCPU, which stands */
        for (unsigned i = 0; i < 64; i++)
                ret->registers[i] = lapic_read(l, i, now);
        ret->base = l->base;
        ret->tsc_deadline = l->tsc_deadline;
        pthread_mutex_unlock(&f->chips.lock);
        return 0;
}

int soft_set_apic(struct vcpu *v, const struct vcpu_apic *apic, struct err *err)
{
        struct soft_vcpu *s = v->provider;
        struct fabric *f = &s->soft->fabric;
        int64_t now = clock_monotonic_ns();
        if (apic->base & 0xff || apic->base >> 46 ||
            (apic->base & LAPIC_BASE_X2 && !(apic->base & LAPIC_BASE_ENABLE)))
                return err_plain(err, EINVAL, "vCPU %u: a local APIC with base 0x%llx cannot be",
                                 v->index, (unsigned long long)apic->base);
        pthread_mutex_lock(&f->chips.lock);
        struct lapic *l = &f->ports[v->index].lapic;
        memcpy(l->regs, apic->registers, sizeof(l->regs));
        l->base = apic->base;
        l->icr = (uint64_t)apic->registers[LAPIC_ICR_HIGH] << 32 | apic->registers[LAPIC_ICR];
        uint32_t left = apic->registers[LAPIC_TIMER_CURRENT];
        l->expiry_ns = 0;
        if (left) {
                uint32_t initial = l->regs[LAPIC_TIMER_INITIAL];
                lapic_write(l, LAPIC_TIMER_INITIAL, left, now);
                l->regs[LAPIC_TIMER_INITIAL] = initial;
        }
        pthread_mutex_unlock(&f->chips.lock);
        if (apic->tsc_deadline)
                soft_msr_write(s, MSR_TSC_DEADLINE, apic->tsc_deadline);
        fabric_loaded(f, v->index);
        return 0;
}

int soft_get_paravirt(struct vcpu *v, struct vcpu_paravirt *ret, struct err *err)
{
        const struct soft_vcpu *s = v->provider;
        (void)err;
        *ret = (struct vcpu_paravirt){ .system_time = s->system_time_msr,
                                       .steal_time = s->steal_msr };
        return 0;
}

int soft_set_paravirt(struct vcpu *v, const struct vcpu_paravirt *wanted, struct err *err)
{
        struct soft_vcpu *s = v->provider;
        if (wanted->async_faults & 1 || wanted->end_of_interrupt & 1)
                return err_plain(err, ENOTSUP,
                                 "vCPU %u uses %s, which --cpu soft has not; --cpu kvm has",
                                 v->index,
                                 wanted->async_faults & 1 ? "asynchronous page faults"
                                                          : "paravirtual ends of interrupts");
        if (soft_steal_set(s, wanted->steal_time) < 0)
                return err_plain(err, EINVAL, "vCPU %u: its stolen time cannot be at 0x%llx",
                                 v->index, (unsigned long long)wanted->steal_time);
        soft_set_system_time(s, wanted->system_time);
        return 0;
}

/* ---- the machine's ---- */

int soft_get_clock(struct machine *m, struct vcpu_clock *ret, struct err *err)
{
        const struct soft_machine *soft = m->provider;
        uint64_t tsc = __rdtsc() + soft->tsc_offset;
        (void)err;
        *ret = (struct vcpu_clock){ .tsc = tsc,
                                    .tsc_khz = m->tsc_khz,
                                    .kvmclock_ns = soft_kvmclock_ns(soft, tsc) };
        return 0;
}

int soft_set_clock(struct machine *m, const struct vcpu_clock *now, uint64_t host_tsc,
                   struct err *err)
{
        struct soft_machine *soft = m->provider;
        (void)err;
        m->tsc_khz = now->tsc_khz;
        soft_clock_init(soft, now->tsc_khz);
        soft->tsc_offset = now->tsc - host_tsc;
        soft->clock_tsc = now->tsc;
        soft->clock_ns = now->kvmclock_ns;
        soft->epoch_ns = clock_monotonic_ns() - (int64_t)now->kvmclock_ns;
        return 0;
}

int soft_get_chips(struct machine *m, struct chips_state *ret, struct err *err)
{
        struct soft_machine *soft = m->provider;
        (void)err;
        chips_get(&soft->fabric.chips, ret);
        return 0;
}

int soft_set_chips(struct machine *m, const struct chips_state *chips, struct err *err)
{
        struct soft_machine *soft = m->provider;
        (void)err;
        chips_set(&soft->fabric.chips, chips);
        return 0;
}
