/* Split chips: local APICs in the kernel, the IOAPIC and the PICs by our models.
 *
 * Theory of operation. A pin of the IOAPIC is sent as the message that its entry says. KVM
 * knows the entries as routes, for one reason: it tells us of the end of a level interrupt
 * (KVM_EXIT_IOAPIC_EOI) when its vector is a level route's. The PICs' output goes to the
 * first vCPU, which looks before each entry into the guest: it injects the vector, or
 * asks KVM to come back as soon as the guest would take one. */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/auto.h"
#include "base/str.h"
#include "vmm/kvm/kvm.h"
#include "vmm/layout.h"
#include "vmm/soft/chips.h"

#define MESSAGE_LOGICAL (1u << 2)
#define MESSAGE_LOWEST  (1u << 3)
#define MESSAGE_ASSERT  (1u << 14)
#define MESSAGE_LEVEL   (1u << 15)
#define MODE_LOWEST     1u

static uint32_t message_address(uint8_t destination, bool logical, unsigned mode)
{
        return (uint32_t)LAYOUT_LAPIC | (uint32_t)destination << 12 |
               (logical ? MESSAGE_LOGICAL : 0) | (mode == MODE_LOWEST ? MESSAGE_LOWEST : 0);
}

static uint32_t message_data(unsigned mode, uint8_t vector, bool level)
{
        return vector | mode << 8 | (level ? MESSAGE_LEVEL | MESSAGE_ASSERT : 0);
}

static void send(void *arg, uint8_t destination, bool logical, unsigned mode, uint8_t vector,
                 bool level)
{
        const struct kvm_machine *k = arg;
        struct kvm_msi msi = { .address_lo = message_address(destination, logical, mode),
                               .data = message_data(mode, vector, level) };
        (void)ioctl(k->vm_fd, KVM_SIGNAL_MSI, &msi);
}

static int set_routes(struct kvm_machine *k)
{
        static_assert(IOAPIC_PINS <= KVM_ROUTES_LINES, "room for lines");
        struct kvm_irq_routing_entry lines[IOAPIC_PINS];
        for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
                uint64_t e = k->chips->ioapic.entries[pin];
                unsigned mode = e >> 8 & 7;
                lines[pin] = (struct kvm_irq_routing_entry){
                        .gsi = pin,
                        .type = KVM_IRQ_ROUTING_MSI,
                        .u.msi.address_lo = message_address((uint8_t)(e >> 56), e >> 11 & 1, mode),
                        .u.msi.data = message_data(mode, (uint8_t)e, e >> 15 & 1),
                };
        }
        return kvm_routes_lines(k, lines, IOAPIC_PINS);
}

static void routed(void *arg)
{
        (void)set_routes(arg);
}

/* The first vCPU looks again. */
static void pic_changed(void *arg)
{
        const struct kvm_machine *k = arg;
        struct vcpu *first = &k->machine->vcpus[0];
        if (pics_pending(&k->chips->pics) && first->provider)
                k->machine->cpu->kick(first);
}

int kvm_split_create(struct kvm_machine *k, struct err *err)
{
        struct kvm_enable_cap split = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { IOAPIC_PINS } };
        if (ioctl(k->vm_fd, KVM_ENABLE_CAP, &split) < 0)
                return err_set(err, errno,
                               "KVM's interrupt chips, split; --cpu kvm has them whole");
        k->chips = new0(struct chips);
        k->chips->ioapic.deliver = send;
        k->chips->ioapic.arg = k;
        k->chips->pic_changed = pic_changed;
        k->chips->routed = routed;
        k->chips->arg = k;
        int r = chips_init(k->chips, k->machine, err);
        if (r < 0)
                return r;
        r = set_routes(k);
        return r < 0 ? err_set(err, -r, "routes of KVM's interrupts") : 0;
}

void kvm_split_destroy(struct kvm_machine *k)
{
        if (k->chips)
                chips_finish(k->chips);
        free(k->chips);
}

void kvm_split_ended(struct kvm_vcpu *v)
{
        struct chips *c = v->kvm->chips;
        pthread_mutex_lock(&c->lock);
        ioapic_eoi(&c->ioapic, v->run->eoi.vector);
        pthread_mutex_unlock(&c->lock);
}

void kvm_split_inject(struct kvm_vcpu *v)
{
        struct chips *c = v->kvm->chips;
        struct kvm_run *run = v->run;
        if (v->vcpu->index != 0)
                return;
        pthread_mutex_lock(&c->lock);
        if (pics_pending(&c->pics) && run->ready_for_interrupt_injection && run->if_flag) {
                struct kvm_interrupt interrupt = { .irq = pics_acknowledge(&c->pics) };
                (void)ioctl(v->fd, KVM_INTERRUPT, &interrupt);
        }
        run->request_interrupt_window = pics_pending(&c->pics);
        pthread_mutex_unlock(&c->lock);
}
