#include "vmm/soft/fabric.h"

#include <string.h>

#include "base/clock.h"
#include "vmm/layout.h"

enum delivery {
        MODE_FIXED,
        MODE_LOWEST,
        MODE_SMI,
        MODE_NMI = 4,
        MODE_INIT,
        MODE_SIPI,
        MODE_EXTINT
};

/* Tells the processor whether something waits for it. */
static void update(struct fabric *f, unsigned index)
{
        struct fabric_port *p = &f->ports[index];
        if (!p->cpu)
                return;
        bool pending = lapic_pending(&p->lapic) ||
                       (lapic_takes_pic(&p->lapic) && pics_pending(&f->chips.pics));
        cpu_set_irq(p->cpu, pending);
        if (pending)
                p->wake(p->arg);
}

static void deliver_to(struct fabric *f, unsigned index, unsigned mode, uint8_t vector, bool level)
{
        struct fabric_port *p = &f->ports[index];
        switch (mode) {
        case MODE_FIXED:
        case MODE_LOWEST:
                lapic_accept(&p->lapic, vector, level);
                update(f, index);
                return;
        case MODE_NMI:
                cpu_raise_nmi(p->cpu);
                break;
        case MODE_INIT:
                lapic_init(&p->lapic);
                cpu_raise_init(p->cpu);
                break;
        case MODE_SIPI:
                cpu_raise_sipi(p->cpu, vector);
                break;
        default:
                return; /* SMI: there is none. ExtINT messages: the PIC uses LINT0. */
        }
        p->wake(p->arg);
}

static void deliver(struct fabric *f, uint32_t destination, bool logical, bool wide, unsigned mode,
                    uint8_t vector, bool level)
{
        for (unsigned i = 0; i < f->length; i++) {
                if (!lapic_addressed(&f->ports[i].lapic, destination, logical, wide))
                        continue;
                deliver_to(f, i, mode, vector, level);
                if (mode == MODE_LOWEST)
                        return; /* one is enough; ties go to the first */
        }
}

static void from_ioapic(void *arg, uint8_t destination, bool logical, unsigned mode, uint8_t vector,
                        bool level)
{
        deliver(arg, destination, logical, false, mode, vector, level);
}

static void send_ipi(struct fabric *f, unsigned from, uint64_t icr)
{
        unsigned mode = icr >> 8 & 7, shorthand = icr >> 18 & 3;
        uint8_t vector = (uint8_t)icr;
        bool assert_ = icr >> 14 & 1, level = icr >> 15 & 1;
        if (mode == MODE_INIT && level && !assert_)
                return; /* INIT de-assert: no processor since the P6 does anything */
        bool wide = lapic_x2(&f->ports[from].lapic);
        uint32_t destination = (uint32_t)(icr >> 32);
        if (!wide)
                destination >>= 24;
        if (shorthand == 0) {
                deliver(f, destination, icr >> 11 & 1, wide, mode, vector, false);
                return;
        }
        for (unsigned i = 0; i < f->length; i++)
                if (shorthand == 1 ? i == from : shorthand == 2 || i != from)
                        deliver_to(f, i, mode, vector, false);
}

static void carry_out(struct fabric *f, unsigned index, struct lapic_request request)
{
        if (request.kind == LAPIC_SEND)
                send_ipi(f, index, request.icr);
        else if (request.kind == LAPIC_EOI_LEVEL)
                ioapic_eoi(&f->chips.ioapic, request.vector);
        update(f, index);
}

/* ---- devices' side ---- */

static void update_pic(void *arg)
{
        struct fabric *f = arg;
        for (unsigned i = 0; i < f->length; i++)
                if (lapic_takes_pic(&f->ports[i].lapic))
                        update(f, i);
}

static void line(void *provider, unsigned gsi, bool raised)
{
        struct fabric *f = provider;
        chips_line(&f->chips, gsi, raised);
}

static void message(void *provider, uint64_t address, uint32_t data)
{
        struct fabric *f = provider;
        if (address >> 20 != LAYOUT_LAPIC >> 20)
                return;
        pthread_mutex_lock(&f->chips.lock);
        deliver(f, address >> 12 & 0xff, address >> 2 & 1, false, data >> 8 & 7, (uint8_t)data,
                data >> 15 & 1);
        pthread_mutex_unlock(&f->chips.lock);
}

static const struct irq_ops irq_ops = { line, message };

/* ---- building ---- */

int fabric_init(struct fabric *f, struct machine *m, struct err *err)
{
        memset(f, 0, sizeof(*f));
        f->chips.ioapic.deliver = from_ioapic;
        f->chips.ioapic.arg = f;
        f->chips.pic_changed = update_pic;
        f->chips.arg = f;
        for (unsigned i = 0; i < MACHINE_VCPUS; i++)
                lapic_reset(&f->ports[i].lapic, i);
        m->irq = (struct irq){ &irq_ops, f };
        return chips_init(&f->chips, m, err);
}

void fabric_finish(struct fabric *f)
{
        chips_finish(&f->chips);
}

void fabric_connect(struct fabric *f, unsigned index, struct cpu *cpu, void (*wake)(void *arg),
                    void *arg)
{
        f->ports[index].cpu = cpu;
        f->ports[index].wake = wake;
        f->ports[index].arg = arg;
        if (index >= f->length)
                f->length = index + 1;
}

/* ---- processors' side ---- */

int fabric_acknowledge(struct fabric *f, unsigned index)
{
        pthread_mutex_lock(&f->chips.lock);
        struct lapic *l = &f->ports[index].lapic;
        int vector = -1;
        if (lapic_takes_pic(l) && pics_pending(&f->chips.pics))
                vector = pics_acknowledge(&f->chips.pics);
        else
                vector = lapic_acknowledge(l);
        update(f, index);
        pthread_mutex_unlock(&f->chips.lock);
        return vector;
}

uint64_t fabric_page_read(struct fabric *f, unsigned index, uint64_t offset, unsigned size)
{
        (void)size;
        pthread_mutex_lock(&f->chips.lock);
        uint64_t value = lapic_read(&f->ports[index].lapic, (unsigned)(offset / 16),
                                    clock_monotonic_ns());
        pthread_mutex_unlock(&f->chips.lock);
        return value >> 8 * (offset & 3);
}

void fabric_page_write(struct fabric *f, unsigned index, uint64_t offset, uint32_t value)
{
        pthread_mutex_lock(&f->chips.lock);
        carry_out(f, index,
                  lapic_write(&f->ports[index].lapic, (unsigned)(offset / 16), value,
                              clock_monotonic_ns()));
        pthread_mutex_unlock(&f->chips.lock);
}

int fabric_msr_read(struct fabric *f, unsigned index, uint32_t msr, uint64_t *ret)
{
        struct lapic *l = &f->ports[index].lapic;
        bool ok = true;
        pthread_mutex_lock(&f->chips.lock);
        if (msr == 0x1b)
                *ret = l->base;
        else if (msr == 0x6e0)
                *ret = l->tsc_deadline;
        else
                ok = lapic_msr_read(l, msr - 0x800, clock_monotonic_ns(), ret);
        pthread_mutex_unlock(&f->chips.lock);
        return ok ? 1 : -1;
}

int fabric_msr_write(struct fabric *f, unsigned index, uint32_t msr, uint64_t value)
{
        struct lapic *l = &f->ports[index].lapic;
        struct lapic_request request = { 0 };
        bool ok;
        pthread_mutex_lock(&f->chips.lock);
        if (msr == 0x1b)
                ok = lapic_set_base(l, value);
        else
                ok = lapic_msr_write(l, msr - 0x800, value, clock_monotonic_ns(), &request);
        if (ok)
                carry_out(f, index, request);
        pthread_mutex_unlock(&f->chips.lock);
        return ok ? 1 : -1;
}

unsigned fabric_send(struct fabric *f, const uint64_t bits[2], uint32_t first, unsigned mode,
                     uint8_t vector)
{
        unsigned sent = 0;
        pthread_mutex_lock(&f->chips.lock);
        for (unsigned i = 0; i < f->length; i++) {
                uint32_t bit = i - first;
                if (i < first || bit >= 128 || !(bits[bit / 64] >> bit % 64 & 1))
                        continue;
                deliver_to(f, i, mode, vector, false);
                sent++;
        }
        pthread_mutex_unlock(&f->chips.lock);
        return sent;
}

void fabric_set_deadline(struct fabric *f, unsigned index, uint64_t tsc, int64_t expiry_ns)
{
        pthread_mutex_lock(&f->chips.lock);
        lapic_set_deadline(&f->ports[index].lapic, tsc, expiry_ns);
        pthread_mutex_unlock(&f->chips.lock);
}

void fabric_loaded(struct fabric *f, unsigned index)
{
        pthread_mutex_lock(&f->chips.lock);
        update(f, index);
        pthread_mutex_unlock(&f->chips.lock);
}

void fabric_set_tpr(struct fabric *f, unsigned index, uint8_t cr8)
{
        pthread_mutex_lock(&f->chips.lock);
        f->ports[index].lapic.regs[LAPIC_TPR] = (uint32_t)cr8 << 4;
        update(f, index);
        pthread_mutex_unlock(&f->chips.lock);
}

uint8_t fabric_tpr(struct fabric *f, unsigned index)
{
        return (uint8_t)(f->ports[index].lapic.regs[LAPIC_TPR] >> 4);
}

int64_t fabric_timer(struct fabric *f, unsigned index, int64_t now)
{
        struct lapic *l = &f->ports[index].lapic;
        /* A look without the lock: but for INIT only this thread sets its timer. */
        int64_t expiry = __atomic_load_n(&l->expiry_ns, __ATOMIC_RELAXED);
        if (!expiry || now < expiry)
                return expiry;
        pthread_mutex_lock(&f->chips.lock);
        lapic_expire(l, now);
        update(f, index);
        int64_t next = l->expiry_ns;
        pthread_mutex_unlock(&f->chips.lock);
        return next;
}
