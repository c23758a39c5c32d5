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
                       (lapic_takes_pic(&p->lapic) && pics_pending(&f->pics));
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
                ioapic_eoi(&f->ioapic, request.vector);
        update(f, index);
}

/* ---- devices' side ---- */

static void update_pic(struct fabric *f)
{
        for (unsigned i = 0; i < f->length; i++)
                if (lapic_takes_pic(&f->ports[i].lapic))
                        update(f, i);
}

static void line(void *provider, unsigned gsi, bool raised)
{
        struct fabric *f = provider;
        pthread_mutex_lock(&f->lock);
        if (gsi < 16) {
                pics_line(&f->pics, gsi, raised);
                update_pic(f);
        }
        ioapic_line(&f->ioapic, gsi == LAYOUT_IRQ_PIT ? 2 : gsi, raised);
        pthread_mutex_unlock(&f->lock);
}

static void message(void *provider, uint64_t address, uint32_t data)
{
        struct fabric *f = provider;
        if (address >> 20 != LAYOUT_LAPIC >> 20)
                return;
        pthread_mutex_lock(&f->lock);
        deliver(f, address >> 12 & 0xff, address >> 2 & 1, false, data >> 8 & 7, (uint8_t)data,
                data >> 15 & 1);
        pthread_mutex_unlock(&f->lock);
}

static const struct irq_ops irq_ops = { line, message };

/* ---- ports and pages ---- */

static uint64_t pic_port_read(void *device, uint64_t offset, unsigned size)
{
        struct fabric *f = device;
        (void)size;
        return pics_read(&f->pics, 0, (unsigned)offset);
}

static void pic_port_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
        struct fabric *f = device;
        (void)size;
        pics_write(&f->pics, 0, (unsigned)offset, (uint8_t)value);
        update_pic(f);
}

static uint64_t slave_port_read(void *device, uint64_t offset, unsigned size)
{
        struct fabric *f = device;
        (void)size;
        return pics_read(&f->pics, 1, (unsigned)offset);
}

static void slave_port_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
        struct fabric *f = device;
        (void)size;
        pics_write(&f->pics, 1, (unsigned)offset, (uint8_t)value);
        update_pic(f);
}

static uint64_t elcr_read(void *device, uint64_t offset, unsigned size)
{
        const struct fabric *f = device;
        (void)size;
        return f->pics.chip[offset & 1].elcr;
}

static void elcr_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
        struct fabric *f = device;
        (void)size;
        f->pics.chip[offset & 1].elcr = (uint8_t)(value & (offset & 1 ? 0xde : 0xf8));
}

static uint64_t ioapic_page_read(void *device, uint64_t offset, unsigned size)
{
        const struct fabric *f = device;
        (void)size;
        return ioapic_read(&f->ioapic, offset);
}

static void ioapic_page_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
        struct fabric *f = device;
        (void)size;
        ioapic_write(&f->ioapic, offset, (uint32_t)value);
}

static const struct bus_ops pic_ops = { pic_port_read, pic_port_write };
static const struct bus_ops slave_ops = { slave_port_read, slave_port_write };
static const struct bus_ops elcr_ops = { elcr_read, elcr_write };
static const struct bus_ops ioapic_ops = { ioapic_page_read, ioapic_page_write };

int fabric_init(struct fabric *f, struct machine *m, struct err *err)
{
        memset(f, 0, sizeof(*f));
        pthread_mutex_init(&f->lock, NULL);
        pics_reset(&f->pics);
        f->ioapic.deliver = from_ioapic;
        f->ioapic.arg = f;
        ioapic_reset(&f->ioapic);
        for (unsigned i = 0; i < MACHINE_VCPUS; i++)
                lapic_reset(&f->ports[i].lapic, i);
        m->irq = (struct irq){ &irq_ops, f };
        const struct bus_region ports[] = {
                { 0x20, 2, &pic_ops, f, &f->lock, "pic" },
                { 0xa0, 2, &slave_ops, f, &f->lock, "pic" },
                { 0x4d0, 2, &elcr_ops, f, &f->lock, "pic" },
        };
        int r = 0;
        for (unsigned i = 0; r == 0 && i < 3; i++)
                r = bus_add(&m->pio, &ports[i], err);
        const struct bus_region page = {
                LAYOUT_IOAPIC, 0x1000, &ioapic_ops, f, &f->lock, "ioapic"
        };
        return r < 0 ? r : bus_add(&m->mmio, &page, err);
}

void fabric_finish(struct fabric *f)
{
        pthread_mutex_destroy(&f->lock);
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
        pthread_mutex_lock(&f->lock);
        struct lapic *l = &f->ports[index].lapic;
        int vector = -1;
        if (lapic_takes_pic(l) && pics_pending(&f->pics))
                vector = pics_acknowledge(&f->pics);
        else
                vector = lapic_acknowledge(l);
        update(f, index);
        pthread_mutex_unlock(&f->lock);
        return vector;
}

uint64_t fabric_page_read(struct fabric *f, unsigned index, uint64_t offset, unsigned size)
{
        (void)size;
        pthread_mutex_lock(&f->lock);
        uint64_t value = lapic_read(&f->ports[index].lapic, (unsigned)(offset / 16),
                                    clock_monotonic_ns());
        pthread_mutex_unlock(&f->lock);
        return value >> 8 * (offset & 3);
}

void fabric_page_write(struct fabric *f, unsigned index, uint64_t offset, uint32_t value)
{
        pthread_mutex_lock(&f->lock);
        carry_out(f, index,
                  lapic_write(&f->ports[index].lapic, (unsigned)(offset / 16), value,
                              clock_monotonic_ns()));
        pthread_mutex_unlock(&f->lock);
}

int fabric_msr_read(struct fabric *f, unsigned index, uint32_t msr, uint64_t *ret)
{
        struct lapic *l = &f->ports[index].lapic;
        bool ok = true;
        pthread_mutex_lock(&f->lock);
        if (msr == 0x1b)
                *ret = l->base;
        else if (msr == 0x6e0)
                *ret = l->tsc_deadline;
        else
                ok = lapic_msr_read(l, msr - 0x800, clock_monotonic_ns(), ret);
        pthread_mutex_unlock(&f->lock);
        return ok ? 1 : -1;
}

int fabric_msr_write(struct fabric *f, unsigned index, uint32_t msr, uint64_t value)
{
        struct lapic *l = &f->ports[index].lapic;
        struct lapic_request request = { 0 };
        bool ok;
        pthread_mutex_lock(&f->lock);
        if (msr == 0x1b)
                ok = lapic_set_base(l, value);
        else
                ok = lapic_msr_write(l, msr - 0x800, value, clock_monotonic_ns(), &request);
        if (ok)
                carry_out(f, index, request);
        pthread_mutex_unlock(&f->lock);
        return ok ? 1 : -1;
}

unsigned fabric_send(struct fabric *f, const uint64_t bits[2], uint32_t first, unsigned mode,
                     uint8_t vector)
{
        unsigned sent = 0;
        pthread_mutex_lock(&f->lock);
        for (unsigned i = 0; i < f->length; i++) {
                uint32_t bit = i - first;
                if (i < first || bit >= 128 || !(bits[bit / 64] >> bit % 64 & 1))
                        continue;
                deliver_to(f, i, mode, vector, false);
                sent++;
        }
        pthread_mutex_unlock(&f->lock);
        return sent;
}

void fabric_set_deadline(struct fabric *f, unsigned index, uint64_t tsc, int64_t expiry_ns)
{
        pthread_mutex_lock(&f->lock);
        lapic_set_deadline(&f->ports[index].lapic, tsc, expiry_ns);
        pthread_mutex_unlock(&f->lock);
}

void fabric_set_tpr(struct fabric *f, unsigned index, uint8_t cr8)
{
        pthread_mutex_lock(&f->lock);
        f->ports[index].lapic.regs[LAPIC_TPR] = (uint32_t)cr8 << 4;
        update(f, index);
        pthread_mutex_unlock(&f->lock);
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
        pthread_mutex_lock(&f->lock);
        lapic_expire(l, now);
        update(f, index);
        int64_t next = l->expiry_ns;
        pthread_mutex_unlock(&f->lock);
        return next;
}
