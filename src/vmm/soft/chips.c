#include "vmm/soft/chips.h"

#include <string.h>

#include "vmm/layout.h"

static uint64_t pic_port_read(void *device, uint64_t offset, unsigned size)
{
        struct chips *c = device;
        (void)size;
        return pics_read(&c->pics, 0, (unsigned)offset);
}

static void pic_port_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
        struct chips *c = device;
        (void)size;
        pics_write(&c->pics, 0, (unsigned)offset, (uint8_t)value);
        c->pic_changed(c->arg);
}

static uint64_t slave_port_read(void *device, uint64_t offset, unsigned size)
{
        struct chips *c = device;
        (void)size;
        return pics_read(&c->pics, 1, (unsigned)offset);
}

static void slave_port_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
        struct chips *c = device;
        (void)size;
        pics_write(&c->pics, 1, (unsigned)offset, (uint8_t)value);
        c->pic_changed(c->arg);
}

static uint64_t elcr_read(void *device, uint64_t offset, unsigned size)
{
        const struct chips *c = device;
        (void)size;
        return c->pics.chip[offset & 1].elcr;
}

static void elcr_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
        struct chips *c = device;
        (void)size;
        c->pics.chip[offset & 1].elcr = (uint8_t)(value & (offset & 1 ? 0xde : 0xf8));
}

static uint64_t ioapic_page_read(void *device, uint64_t offset, unsigned size)
{
        const struct chips *c = device;
        (void)size;
        return ioapic_read(&c->ioapic, offset);
}

static void ioapic_page_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
        struct chips *c = device;
        (void)size;
        ioapic_write(&c->ioapic, offset, (uint32_t)value);
        if (c->routed)
                c->routed(c->arg);
}

static const struct bus_ops pic_ops = { pic_port_read, pic_port_write };
static const struct bus_ops slave_ops = { slave_port_read, slave_port_write };
static const struct bus_ops elcr_ops = { elcr_read, elcr_write };
static const struct bus_ops ioapic_ops = { ioapic_page_read, ioapic_page_write };

static bool remap(void *arg, uint64_t *address, uint32_t *data)
{
        const struct machine *m = arg;
        return irq_remapped(&m->irq, IRQ_FROM_IOAPIC, address, data);
}

int chips_init(struct chips *c, struct machine *m, struct err *err)
{
        c->ioapic.remap = remap;
        c->ioapic.remap_arg = m;
        pthread_mutex_init(&c->lock, NULL);
        pics_reset(&c->pics);
        ioapic_reset(&c->ioapic);
        const struct bus_region ports[] = {
                { 0x20, 2, &pic_ops, c, &c->lock, "pic" },
                { 0xa0, 2, &slave_ops, c, &c->lock, "pic" },
                { 0x4d0, 2, &elcr_ops, c, &c->lock, "pic" },
        };
        int r = 0;
        for (unsigned i = 0; r == 0 && i < 3; i++)
                r = bus_add(&m->pio, &ports[i], err);
        const struct bus_region page = {
                LAYOUT_IOAPIC, 0x1000, &ioapic_ops, c, &c->lock, "ioapic"
        };
        return r < 0 ? r : bus_add(&m->mmio, &page, err);
}

void chips_finish(struct chips *c)
{
        pthread_mutex_destroy(&c->lock);
}

void chips_line(struct chips *c, unsigned gsi, bool raised)
{
        pthread_mutex_lock(&c->lock);
        if (gsi < 16) {
                pics_line(&c->pics, gsi, raised);
                c->pic_changed(c->arg);
        }
        ioapic_line(&c->ioapic, gsi == LAYOUT_IRQ_PIT ? 2 : gsi, raised);
        pthread_mutex_unlock(&c->lock);
}

void chips_get(struct chips *c, struct chips_state *ret)
{
        pthread_mutex_lock(&c->lock);
        memcpy(ret->entries, c->ioapic.entries, sizeof(ret->entries));
        ret->lines = c->ioapic.lines;
        ret->select = c->ioapic.select;
        ret->id = c->ioapic.id;
        ret->pics = c->pics;
        pthread_mutex_unlock(&c->lock);
}

void chips_set(struct chips *c, const struct chips_state *state)
{
        pthread_mutex_lock(&c->lock);
        memcpy(c->ioapic.entries, state->entries, sizeof(state->entries));
        c->ioapic.lines = state->lines;
        c->ioapic.select = state->select;
        c->ioapic.id = state->id;
        c->pics = state->pics;
        if (c->routed)
                c->routed(c->arg);
        c->pic_changed(c->arg);
        pthread_mutex_unlock(&c->lock);
}
