/* The chips outside of the processors, and the clock, as KVM has them and as we save them. */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <x86intrin.h>

#include "base/auto.h"
#include "base/str.h"
#include "vmm/kvm/kvm.h"
#include "vmm/soft/chips.h"

static int chip(const struct kvm_machine *k, unsigned long request, struct kvm_irqchip *chip,
                struct err *err)
{
        static const char *const names[] = { "first PIC", "second PIC", "IOAPIC" };
        return ioctl(k->vm_fd, request, chip) < 0
                       ? err_set(err, errno, "KVM's %s", names[chip->chip_id])
                       : 0;
}

/* KVM counts the initialisation words that are still to come from 1 on, we from 2 on: by the
 * words' numbers. */
static struct pic pic_of(const struct kvm_pic_state *k)
{
        return (struct pic){ .irr = k->irr,
                             .isr = k->isr,
                             .imr = k->imr,
                             .lines = k->last_irr,
                             .elcr = k->elcr,
                             .base = k->irq_base,
                             .init = (uint8_t)(k->init_state ? k->init_state + 1 : 0),
                             .icw4 = k->init4,
                             .auto_eoi = k->auto_eoi,
                             .read_isr = k->read_reg_select };
}

static void pic_to_kvm(const struct pic *p, struct kvm_pic_state *k)
{
        k->irr = p->irr;
        k->isr = p->isr;
        k->imr = p->imr;
        k->last_irr = p->lines;
        k->elcr = p->elcr;
        k->irq_base = p->base;
        k->init_state = p->init ? p->init - 1 : 0;
        k->init4 = p->icw4;
        k->auto_eoi = p->auto_eoi;
        k->read_reg_select = p->read_isr;
}

int kvm_get_chips(struct machine *m, struct chips_state *ret, struct err *err)
{
        const struct kvm_machine *k = m->provider;
        struct chips_state s = { .lines = 0 };
        int r = 0;
        if (k->chips) {
                chips_get(k->chips, ret);
                return 0;
        }
        for (unsigned i = 0; r == 0 && i < 2; i++) {
                struct kvm_irqchip pic = { .chip_id = i };
                r = chip(k, KVM_GET_IRQCHIP, &pic, err);
                s.pics.chip[i] = pic_of(&pic.chip.pic);
        }
        struct kvm_irqchip ioapic = { .chip_id = KVM_IRQCHIP_IOAPIC };
        if (r == 0)
                r = chip(k, KVM_GET_IRQCHIP, &ioapic, err);
        if (r < 0)
                return r;
        for (unsigned i = 0; i < IOAPIC_PINS; i++)
                s.entries[i] = ioapic.chip.ioapic.redirtbl[i].bits;
        s.lines = ioapic.chip.ioapic.irr;
        s.select = ioapic.chip.ioapic.ioregsel;
        s.id = ioapic.chip.ioapic.id;
        *ret = s;
        return 0;
}

int kvm_set_chips(struct machine *m, const struct chips_state *s, struct err *err)
{
        const struct kvm_machine *k = m->provider;
        int r = 0;
        if (k->chips) {
                chips_set(k->chips, s);
                return 0;
        }
        for (unsigned i = 0; r == 0 && i < 2; i++) {
                struct kvm_irqchip pic = { .chip_id = i };
                r = chip(k, KVM_GET_IRQCHIP, &pic, err);
                pic_to_kvm(&s->pics.chip[i], &pic.chip.pic);
                if (r == 0)
                        r = chip(k, KVM_SET_IRQCHIP, &pic, err);
        }
        struct kvm_irqchip ioapic = { .chip_id = KVM_IRQCHIP_IOAPIC };
        if (r == 0)
                r = chip(k, KVM_GET_IRQCHIP, &ioapic, err);
        if (r < 0)
                return r;
        ioapic.chip.ioapic.irr = 0;
        for (unsigned i = 0; i < IOAPIC_PINS; i++) {
                ioapic.chip.ioapic.redirtbl[i].bits = s->entries[i];
                /* Of edges KVM has only those that were not delivered; ours were, at once. */
                if (s->entries[i] & IOAPIC_LEVEL)
                        ioapic.chip.ioapic.irr |= s->lines & 1u << i;
        }
        ioapic.chip.ioapic.ioregsel = s->select;
        ioapic.chip.ioapic.id = s->id;
        return chip(k, KVM_SET_IRQCHIP, &ioapic, err);
}

int kvm_get_clock(struct machine *m, struct vcpu_clock *ret, struct err *err)
{
        const struct kvm_machine *k = m->provider;
        struct kvm_clock_data clock = { 0 };
        struct cpu_state state;
        int r = m->cpu->get_state(&m->vcpus[0], &state, err);
        if (r == 0 && ioctl(k->vm_fd, KVM_GET_CLOCK, &clock) < 0)
                r = err_set(err, errno, "KVM's clock");
        if (r < 0)
                return r;
        *ret = (struct vcpu_clock){ .tsc = __rdtsc() + state.tsc_offset,
                                    .tsc_khz = m->tsc_khz,
                                    .kvmclock_ns = clock.clock };
        return 0;
}

/* The TSC is each vCPU's: set_state(). */
int kvm_set_clock(struct machine *m, const struct vcpu_clock *now, uint64_t host_tsc,
                  struct err *err)
{
        const struct kvm_machine *k = m->provider;
        struct kvm_clock_data clock = { .clock = now->kvmclock_ns };
        (void)host_tsc;
        return ioctl(k->vm_fd, KVM_SET_CLOCK, &clock) < 0 ? err_set(err, errno, "KVM's clock") : 0;
}
