#include "vmm/soft/pic.h"

#include <string.h>

void pics_reset(struct pics *p)
{
        memset(p, 0, sizeof(*p));
        p->chip[0].imr = p->chip[1].imr = 0xff;
        p->chip[1].base = 8;
}

/* Lowest requested input above what is in service, or -1. */
static int pending(const struct pic *c, uint8_t extra)
{
        uint8_t requests = (uint8_t)((c->irr | extra) & ~c->imr);
        for (int i = 0; i < 8; i++) {
                if (c->isr >> i & 1)
                        return -1;
                if (requests >> i & 1)
                        return i;
        }
        return -1;
}

static uint8_t cascade(const struct pics *p)
{
        return pending(&p->chip[1], 0) >= 0 ? 1 << 2 : 0;
}

bool pics_pending(const struct pics *p)
{
        return pending(&p->chip[0], cascade(p)) >= 0;
}

static void take(struct pic *c, int input)
{
        if (!c->auto_eoi)
                c->isr |= (uint8_t)(1 << input);
        if (!(c->elcr >> input & 1))
                c->irr &= (uint8_t) ~(1 << input);
}

uint8_t pics_acknowledge(struct pics *p)
{
        int input = pending(&p->chip[0], cascade(p));
        if (input < 0)
                return p->chip[0].base + 7;
        take(&p->chip[0], input);
        if (input != 2)
                return (uint8_t)(p->chip[0].base + input);
        int second = pending(&p->chip[1], 0);
        if (second < 0)
                return p->chip[1].base + 7;
        take(&p->chip[1], second);
        return (uint8_t)(p->chip[1].base + second);
}

void pics_line(struct pics *p, unsigned irq, bool raised)
{
        if (irq >= 16 || irq == 2)
                return;
        struct pic *c = &p->chip[irq / 8];
        uint8_t bit = (uint8_t)(1 << irq % 8);
        bool was = c->lines & bit;
        c->lines = (uint8_t)(raised ? c->lines | bit : c->lines & ~bit);
        if (c->elcr & bit)
                c->irr = (uint8_t)(raised ? c->irr | bit : c->irr & ~bit);
        else if (raised && !was)
                c->irr |= bit;
}

static void command(struct pic *c, uint8_t value)
{
        if (value & 0x10) { /* ICW1 */
                uint8_t elcr = c->elcr, lines = c->lines, base = c->base;
                memset(c, 0, sizeof(*c));
                c->elcr = elcr;
                c->lines = lines;
                c->base = base;
                c->icw4 = value & 1;
                c->init = 2;
        } else if (value & 0x08) { /* OCW3 */
                if (value & 2)
                        c->read_isr = value & 1;
        } else if ((value & 0xe0) == 0x20) { /* non-specific EOI */
                c->isr &= (uint8_t)(c->isr - 1);
        } else if ((value & 0xe0) == 0x60) { /* specific EOI */
                c->isr &= (uint8_t) ~(1 << (value & 7));
        }
}

void pics_write(struct pics *p, unsigned chip, unsigned address, uint8_t value)
{
        struct pic *c = &p->chip[chip & 1];
        if (address == 0) {
                command(c, value);
                return;
        }
        switch (c->init) {
        case 2:
                c->base = value & 0xf8;
                c->init = 3;
                break;
        case 3:
                c->init = c->icw4 ? 4 : 0;
                break;
        case 4:
                c->auto_eoi = value & 2;
                c->init = 0;
                break;
        default:
                c->imr = value;
        }
}

uint8_t pics_read(struct pics *p, unsigned chip, unsigned address)
{
        const struct pic *c = &p->chip[chip & 1];
        if (address)
                return c->imr;
        return c->read_isr ? c->isr : c->irr;
}
