#include "vmm/soft/lapic.h"

#include <string.h>

#define LVT_MASKED (1u << 16)
#define SVR_ENABLE (1u << 8)

/* The bus clock of the timer: 1 GHz, so that a count is a nanosecond. */

void lapic_reset(struct lapic *l, uint32_t id)
{
        memset(l, 0, sizeof(*l));
        l->id = id;
        l->base = 0xfee00000 | LAPIC_BASE_ENABLE | (id == 0 ? LAPIC_BASE_BSP : 0);
        lapic_init(l);
}

void lapic_init(struct lapic *l)
{
        memset(l->regs, 0, sizeof(l->regs));
        l->icr = 0;
        l->started_ns = l->expiry_ns = 0;
        l->tsc_deadline = 0;
        l->regs[LAPIC_DFR] = 0xffffffff;
        l->regs[LAPIC_SVR] = 0xff;
        for (unsigned r = LAPIC_LVT_TIMER; r <= LAPIC_LVT_ERROR; r++)
                l->regs[r] = LVT_MASKED;
        l->regs[LAPIC_LVT_CMCI] = LVT_MASKED;
        if (l->base & LAPIC_BASE_BSP)
                l->regs[LAPIC_LVT_LINT0] = 0x700; /* virtual wire, as firmware leaves it */
}

static int highest(const uint32_t *words)
{
        for (int i = 7; i >= 0; i--)
                if (words[i])
                        return i * 32 + 31 - __builtin_clz(words[i]);
        return -1;
}

static void set_bit(uint32_t *words, unsigned n, bool value)
{
        if (value)
                words[n / 32] |= 1u << n % 32;
        else
                words[n / 32] &= ~(1u << n % 32);
}

static bool enabled(const struct lapic *l)
{
        return l->base & LAPIC_BASE_ENABLE && l->regs[LAPIC_SVR] & SVR_ENABLE;
}

static uint32_t priority(const struct lapic *l)
{
        int in_service = highest(&l->regs[LAPIC_ISR]);
        uint32_t isr = in_service < 0 ? 0 : (uint32_t)in_service & 0xf0;
        uint32_t tpr = l->regs[LAPIC_TPR];
        return (tpr & 0xf0) >= isr ? tpr : isr;
}

static uint32_t divisor(const struct lapic *l)
{
        uint32_t d = l->regs[LAPIC_TIMER_DIVIDE];
        return 1u << (((d & 3) | (d >> 1 & 4)) + 1) % 8;
}

static unsigned timer_mode(const struct lapic *l)
{
        return l->regs[LAPIC_LVT_TIMER] >> 17 & 3; /* 0 one shot, 1 periodic, 2 TSC deadline */
}

static int64_t period(const struct lapic *l)
{
        return (int64_t)l->regs[LAPIC_TIMER_INITIAL] * divisor(l);
}

static uint32_t current_count(const struct lapic *l, int64_t now)
{
        if (timer_mode(l) == 2 || !l->expiry_ns)
                return 0;
        int64_t left = l->expiry_ns - now;
        if (left <= 0) { /* due, but its vCPU did not fire it yet */
                if (timer_mode(l) != 1 || !period(l))
                        return 0;
                left = period(l) - -left % period(l);
        }
        return (uint32_t)(left / divisor(l));
}

static void start_count(struct lapic *l, int64_t now)
{
        l->started_ns = now;
        l->expiry_ns = l->regs[LAPIC_TIMER_INITIAL] ? now + period(l) : 0;
}

uint32_t lapic_read(const struct lapic *l, unsigned reg, int64_t now)
{
        switch (reg) {
        case LAPIC_ID:
                return l->id << 24;
        case LAPIC_VERSION:
                return 0x14 | 5u << 16; /* six LVT entries, no EOI suppression */
        case LAPIC_PPR:
                return priority(l);
        case LAPIC_ICR:
                return (uint32_t)l->icr;
        case LAPIC_ICR_HIGH:
                return (uint32_t)(l->icr >> 32);
        case LAPIC_TIMER_CURRENT:
                return current_count(l, now);
        case LAPIC_EOI:
        case LAPIC_SELF_IPI:
                return 0;
        default:
                return reg < 64 ? l->regs[reg] : 0;
        }
}

static struct lapic_request end_of_interrupt(struct lapic *l)
{
        int vector = highest(&l->regs[LAPIC_ISR]);
        if (vector < 0)
                return (struct lapic_request){ 0 };
        set_bit(&l->regs[LAPIC_ISR], (unsigned)vector, false);
        bool level = l->regs[LAPIC_TMR + vector / 32] >> vector % 32 & 1;
        if (!level)
                return (struct lapic_request){ 0 };
        return (struct lapic_request){ .kind = LAPIC_EOI_LEVEL, .vector = (uint8_t)vector };
}

static void write_lvt(struct lapic *l, unsigned reg, uint32_t value, int64_t now)
{
        uint32_t mask = 0x000100ff;
        if (reg == LAPIC_LVT_TIMER)
                mask |= 3u << 17;
        else if (reg == LAPIC_LVT_LINT0 || reg == LAPIC_LVT_LINT1)
                mask |= 0xa700;
        else if (reg != LAPIC_LVT_ERROR)
                mask |= 0x700;
        if (!(l->regs[LAPIC_SVR] & SVR_ENABLE))
                value |= LVT_MASKED;
        if (reg == LAPIC_LVT_TIMER)
                lapic_expire(l, now); /* what is due is due in the old mode */
        unsigned old_mode = timer_mode(l);
        l->regs[reg] = value & mask;
        if (reg == LAPIC_LVT_TIMER && timer_mode(l) != old_mode &&
            (old_mode == 2 || timer_mode(l) == 2)) {
                l->expiry_ns = 0;
                l->tsc_deadline = 0;
        }
}

static void write_divide(struct lapic *l, uint32_t value, int64_t now)
{
        uint32_t left = current_count(l, now);
        l->regs[LAPIC_TIMER_DIVIDE] = value & 0xb;
        if (left)
                l->expiry_ns = now + (int64_t)left * divisor(l);
}

struct lapic_request lapic_write(struct lapic *l, unsigned reg, uint32_t value, int64_t now)
{
        switch (reg) {
        case LAPIC_TPR:
                l->regs[LAPIC_TPR] = value & 0xff;
                break;
        case LAPIC_EOI:
                return end_of_interrupt(l);
        case LAPIC_LDR:
                if (!lapic_x2(l))
                        l->regs[LAPIC_LDR] = value & 0xff000000;
                break;
        case LAPIC_DFR:
                l->regs[LAPIC_DFR] = value | 0x0fffffff;
                break;
        case LAPIC_SVR:
                l->regs[LAPIC_SVR] = value & 0x3ff;
                if (!(value & SVR_ENABLE))
                        for (unsigned r = LAPIC_LVT_TIMER; r <= LAPIC_LVT_ERROR; r++)
                                l->regs[r] |= LVT_MASKED;
                break;
        case LAPIC_ESR:
                l->regs[LAPIC_ESR] = 0;
                break;
        case LAPIC_ICR:
                l->icr = (l->icr & 0xffffffff00000000) | (value & 0xccfff);
                return (struct lapic_request){ .kind = LAPIC_SEND, .icr = l->icr };
        case LAPIC_ICR_HIGH:
                l->icr = (uint64_t)value << 32 | (uint32_t)l->icr;
                break;
        case LAPIC_TIMER_INITIAL:
                if (timer_mode(l) == 2)
                        break;
                l->regs[LAPIC_TIMER_INITIAL] = value;
                start_count(l, now);
                break;
        case LAPIC_TIMER_DIVIDE:
                write_divide(l, value, now);
                break;
        default:
                if (reg == LAPIC_LVT_CMCI || (reg >= LAPIC_LVT_TIMER && reg <= LAPIC_LVT_ERROR))
                        write_lvt(l, reg, value, now);
        }
        return (struct lapic_request){ 0 };
}

static bool x2_register(unsigned reg)
{
        return reg == LAPIC_ID || reg == LAPIC_VERSION || reg == LAPIC_TPR || reg == LAPIC_PPR ||
               (reg >= LAPIC_EOI && reg <= LAPIC_ESR && reg != LAPIC_DFR && reg != 0x0c) ||
               (reg >= LAPIC_ICR && reg <= LAPIC_TIMER_CURRENT && reg != LAPIC_ICR_HIGH) ||
               reg == LAPIC_TIMER_DIVIDE || reg == LAPIC_SELF_IPI;
}

bool lapic_msr_read(const struct lapic *l, unsigned reg, int64_t now, uint64_t *ret)
{
        if (!lapic_x2(l) || !x2_register(reg) || reg == LAPIC_EOI || reg == LAPIC_SELF_IPI)
                return false;
        if (reg == LAPIC_ID)
                *ret = l->id;
        else if (reg == LAPIC_LDR)
                *ret = (l->id >> 4) << 16 | 1u << (l->id & 15);
        else if (reg == LAPIC_ICR)
                *ret = l->icr;
        else
                *ret = lapic_read(l, reg, now);
        return true;
}

bool lapic_msr_write(struct lapic *l, unsigned reg, uint64_t value, int64_t now,
                     struct lapic_request *ret)
{
        *ret = (struct lapic_request){ 0 };
        bool read_only = reg == LAPIC_ID || reg == LAPIC_VERSION || reg == LAPIC_PPR ||
                         reg == LAPIC_LDR || (reg >= LAPIC_ISR && reg < LAPIC_ESR) ||
                         reg == LAPIC_TIMER_CURRENT;
        if (!lapic_x2(l) || !x2_register(reg) || read_only)
                return false;
        if (reg == LAPIC_ICR) {
                l->icr = value & 0xffffffff000ccfff;
                *ret = (struct lapic_request){ .kind = LAPIC_SEND, .icr = l->icr };
                return true;
        }
        if (value >> 32 || ((reg == LAPIC_EOI || reg == LAPIC_ESR) && value) ||
            (reg == LAPIC_SELF_IPI && value > 0xff))
                return false;
        if (reg == LAPIC_SELF_IPI)
                lapic_accept(l, (uint8_t)value, false);
        else
                *ret = lapic_write(l, reg, (uint32_t)value, now);
        return true;
}

bool lapic_set_base(struct lapic *l, uint64_t value)
{
        bool on = value & LAPIC_BASE_ENABLE, x2 = value & LAPIC_BASE_X2;
        if ((x2 && !on) || (lapic_x2(l) && on && !x2) || (!(l->base & LAPIC_BASE_ENABLE) && x2) ||
            value & 0xff || value >> 46)
                return false;
        l->base = value;
        if (!on)
                lapic_init(l);
        return true;
}

void lapic_set_deadline(struct lapic *l, uint64_t tsc, int64_t expiry_ns)
{
        if (timer_mode(l) != 2)
                return;
        l->tsc_deadline = tsc;
        l->expiry_ns = tsc ? expiry_ns : 0;
}

void lapic_accept(struct lapic *l, uint8_t vector, bool level)
{
        if (!enabled(l))
                return;
        if (vector < 16) {
                l->regs[LAPIC_ESR] |= 1u << 6;
                return;
        }
        set_bit(&l->regs[LAPIC_IRR], vector, true);
        set_bit(&l->regs[LAPIC_TMR], vector, level);
}

void lapic_expire(struct lapic *l, int64_t now)
{
        if (!l->expiry_ns || now < l->expiry_ns)
                return;
        uint32_t lvt = l->regs[LAPIC_LVT_TIMER];
        if (!(lvt & LVT_MASKED))
                lapic_accept(l, (uint8_t)lvt, false);
        l->tsc_deadline = 0;
        int64_t step = timer_mode(l) == 1 ? period(l) : 0;
        if (step <= 0)
                l->expiry_ns = 0;
        else
                l->expiry_ns += ((now - l->expiry_ns) / step + 1) *
                                step; /* missed ticks coalesce */
}

bool lapic_pending(const struct lapic *l)
{
        int vector = highest(&l->regs[LAPIC_IRR]);
        return enabled(l) && vector >= 0 && ((uint32_t)vector & 0xf0) > (priority(l) & 0xf0);
}

int lapic_acknowledge(struct lapic *l)
{
        if (!lapic_pending(l))
                return -1;
        int vector = highest(&l->regs[LAPIC_IRR]);
        set_bit(&l->regs[LAPIC_IRR], (unsigned)vector, false);
        set_bit(&l->regs[LAPIC_ISR], (unsigned)vector, true);
        return vector;
}

bool lapic_takes_pic(const struct lapic *l)
{
        if (!(l->base & LAPIC_BASE_ENABLE))
                return l->base & LAPIC_BASE_BSP;
        uint32_t lvt = l->regs[LAPIC_LVT_LINT0];
        return !(lvt & LVT_MASKED) && (lvt >> 8 & 7) == 7;
}

bool lapic_addressed(const struct lapic *l, uint32_t destination, bool logical, bool wide)
{
        if (!(l->base & LAPIC_BASE_ENABLE))
                return false;
        if (!logical)
                return destination == l->id || destination == (wide ? 0xffffffff : 0xff);
        if (lapic_x2(l)) {
                if (!wide) /* an 8-bit logical message names a flat set in cluster 0 */
                        return l->id < 8 && destination >> l->id & 1;
                return destination >> 16 == l->id >> 4 && destination >> (l->id & 15) & 1;
        }
        uint32_t mine = l->regs[LAPIC_LDR] >> 24;
        if (destination == 0xff)
                return true;
        if (l->regs[LAPIC_DFR] >> 28 == 0xf)
                return destination & mine;
        return destination >> 4 == mine >> 4 && destination & mine & 0xf;
}
