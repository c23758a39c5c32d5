/* String instructions and port I/O. With REP they do as many elements as fit in
 * the pages at hand at host speed, and look for interrupts in between: rip then
 * stays at the instruction, with rSI, rDI and rCX telling what is left. */
#include "cpu/exec.h"

#include <string.h>

#define RAX_AT offsetof(struct cpu_state, gpr)

static void advance(struct cpu *cpu, unsigned reg, uint64_t delta, uint64_t mask)
{
        uint64_t value = (cpu->s.gpr[reg] + delta) & mask;
        if (mask == 0xffff)
                value |= cpu->s.gpr[reg] & ~mask;
        cpu->s.gpr[reg] = value;
}

static uint64_t count_left(const struct cpu *cpu, const struct step *st)
{
        return st->i.rep ? cpu->s.gpr[CPU_RCX] & st->address_mask : 1;
}

static uint64_t step_delta(const struct cpu *cpu, unsigned size)
{
        return cpu->s.rflags & FLAG_DF ? -(uint64_t)size : size;
}

/* After an element: true when the instruction goes on. Otherwise it is
 * complete, or interrupted with rip at its start. */
static bool more(struct cpu *cpu, const struct step *st, uint64_t elements)
{
        if (!st->i.rep)
                return false;
        advance(cpu, CPU_RCX, -elements, st->address_mask);
        if (!(cpu->s.gpr[CPU_RCX] & st->address_mask))
                return false;
        if (!cpu->slow && !cpu->code_changed &&
            !atomic_load_explicit(&cpu->pending, memory_order_relaxed))
                return true;
        cpu->s.rip -= st->i.length;
        cpu_stop_block(cpu);
        return false;
}

static uint64_t source(struct cpu *cpu, const struct step *st, unsigned size)
{
        return seg_linear(cpu, st->i.seg, cpu->s.gpr[CPU_RSI] & st->address_mask, size, false);
}

static uint64_t destination(struct cpu *cpu, const struct step *st, unsigned size, bool write)
{
        return seg_linear(cpu, CPU_ES, cpu->s.gpr[CPU_RDI] & st->address_mask, size, write);
}

static bool flat(const struct cpu *cpu, unsigned seg)
{
        return !cpu->legacy || cpu->s.seg[seg].limit == UINT32_MAX;
}

/* Elements from here to the end of the page, at most `count`. */
static uint64_t run_length(uint64_t linear, unsigned size, uint64_t count)
{
        uint64_t fit = (PAGE_SIZE_BYTES - (linear & PAGE_MASK)) / size;
        return fit < count ? fit : count;
}

void exec_movs(struct cpu *cpu, const struct step *st)
{
        unsigned size = st->size;
        uint64_t count = count_left(cpu, st), n;
        if (!count)
                return;
        do {
                uint64_t delta = step_delta(cpu, size);
                uint64_t from = source(cpu, st, size), to = destination(cpu, st, size, true);
                n = run_length(to, size, run_length(from, size, count_left(cpu, st)));
                const uint8_t *src = n > 1 ? mem_host(cpu, from, size, false) : NULL;
                uint8_t *dst = src ? mem_host(cpu, to, size, true) : NULL;
                uint64_t distance = (uint64_t)(dst - src);
                if (dst && delta == size && !cpu->slow && distance >= n * size &&
                    flat(cpu, CPU_ES) && flat(cpu, st->i.seg)) {
                        memcpy(dst, src, n * size);
                } else {
                        n = 1;
                        store_size(cpu, to, load_size(cpu, from, size), size);
                }
                advance(cpu, CPU_RSI, delta * n, st->address_mask);
                advance(cpu, CPU_RDI, delta * n, st->address_mask);
        } while (more(cpu, st, n));
}

static void fill(uint8_t *dst, uint64_t value, unsigned size, uint64_t n)
{
        uint64_t spread = (uint8_t)value * (UINT64_MAX / 255), mask = UINT64_MAX >> (64 - 8 * size);
        if (((value ^ spread) & mask) == 0)
                memset(dst, (int)value, n * size);
        else
                for (uint64_t i = 0; i < n; i++)
                        memcpy(dst + i * size, &value, size);
}

void exec_stos(struct cpu *cpu, const struct step *st)
{
        unsigned size = st->size;
        uint64_t n;
        if (!count_left(cpu, st))
                return;
        do {
                uint64_t delta = step_delta(cpu, size);
                uint64_t to = destination(cpu, st, size, true);
                n = run_length(to, size, count_left(cpu, st));
                uint8_t *dst = n > 1 ? mem_host(cpu, to, size, true) : NULL;
                if (dst && delta == size && !cpu->slow && flat(cpu, CPU_ES)) {
                        fill(dst, cpu->s.gpr[CPU_RAX], size, n);
                } else {
                        n = 1;
                        store_size(cpu, to, cpu->s.gpr[CPU_RAX], size);
                }
                advance(cpu, CPU_RDI, delta * n, st->address_mask);
        } while (more(cpu, st, n));
}

void exec_lods(struct cpu *cpu, const struct step *st)
{
        if (!count_left(cpu, st))
                return;
        do {
                reg_set(cpu, RAX_AT, load_size(cpu, source(cpu, st, st->size), st->size), st->size);
                advance(cpu, CPU_RSI, step_delta(cpu, st->size), st->address_mask);
        } while (more(cpu, st, 1));
}

static void set_compare_flags(struct cpu *cpu, uint64_t a, uint64_t b, unsigned size)
{
        unsigned shift = 64 - size * 8;
        uint64_t wa = a << shift, wb = b << shift, diff = wa - wb;
        uint8_t low = (uint8_t)(a - b);
        uint32_t f = wa < wb ? FLAG_CF : 0;
        f |= diff == 0 ? FLAG_ZF : 0;
        f |= diff >> 63 ? FLAG_SF : 0;
        f |= ((wa ^ wb) & (wa ^ diff)) >> 63 ? FLAG_OF : 0;
        f |= __builtin_parity(low) ? 0 : FLAG_PF;
        f |= (uint32_t)(a ^ b ^ low) & FLAG_AF;
        cpu->s.rflags = (cpu->s.rflags & ~(uint64_t)FLAGS_ARITHMETIC) | f;
}

/* REPE stops at a difference, REPNE at an equality. */
static bool compare_more(struct cpu *cpu, const struct step *st)
{
        bool equal = cpu->s.rflags & FLAG_ZF;
        if (st->i.rep && equal != (st->i.rep == 0xf3)) {
                advance(cpu, CPU_RCX, -1ull, st->address_mask);
                return false;
        }
        return more(cpu, st, 1);
}

void exec_cmps(struct cpu *cpu, const struct step *st)
{
        unsigned size = st->size;
        if (!count_left(cpu, st))
                return;
        do {
                uint64_t a = load_size(cpu, source(cpu, st, size), size);
                uint64_t b = load_size(cpu, destination(cpu, st, size, false), size);
                uint64_t delta = step_delta(cpu, size);
                advance(cpu, CPU_RSI, delta, st->address_mask);
                advance(cpu, CPU_RDI, delta, st->address_mask);
                set_compare_flags(cpu, a, b, size);
        } while (compare_more(cpu, st));
}

void exec_scas(struct cpu *cpu, const struct step *st)
{
        unsigned size = st->size;
        if (!count_left(cpu, st))
                return;
        do {
                uint64_t b = load_size(cpu, destination(cpu, st, size, false), size);
                advance(cpu, CPU_RDI, step_delta(cpu, size), st->address_mask);
                set_compare_flags(cpu, reg_get(cpu, RAX_AT, size), b, size);
        } while (compare_more(cpu, st));
}

/* ---- ports ---- */

static void check_port(struct cpu *cpu, uint16_t port, unsigned size)
{
        if (!(cpu->s.cr0 & CR0_PE) || cpu->cpl <= (cpu->s.rflags >> 12 & 3))
                return;
        uint16_t map, bits;
        const struct cpu_segment *tr = &cpu->s.tr;
        if ((tr->attributes & 15) != 11 || tr->limit < 103)
                cpu_gp(cpu);
        cpu_load_system(cpu, tr->base + 102, &map, 2);
        uint32_t at = map + port / 8u;
        if (at + 1 > tr->limit)
                cpu_gp(cpu);
        cpu_load_system(cpu, tr->base + at, &bits, 2);
        if (bits >> (port & 7) & ((1u << size) - 1))
                cpu_gp(cpu);
}

static uint32_t port_in(struct cpu *cpu, uint16_t port, unsigned size)
{
        if (!cpu->bus->pio_read)
                return UINT32_MAX;
        cpu_fpu_leave(cpu);
        uint32_t value = cpu->bus->pio_read(cpu->bus->arg, port, size);
        cpu_fpu_enter(cpu);
        return value;
}

static void port_out(struct cpu *cpu, uint16_t port, unsigned size, uint32_t value)
{
        if (!cpu->bus->pio_write)
                return;
        if (size < 4)
                value &= (1u << size * 8) - 1;
        cpu_fpu_leave(cpu);
        cpu->bus->pio_write(cpu->bus->arg, port, size, value);
        cpu_fpu_enter(cpu);
}

static uint16_t port_number(const struct cpu *cpu, const struct step *st)
{
        return (uint16_t)(st->i.imm_size ? st->i.imm : cpu->s.gpr[CPU_RDX]);
}

void exec_in(struct cpu *cpu, const struct step *st)
{
        uint16_t port = port_number(cpu, st);
        check_port(cpu, port, st->size);
        reg_set(cpu, RAX_AT, port_in(cpu, port, st->size), st->size);
}

void exec_out(struct cpu *cpu, const struct step *st)
{
        uint16_t port = port_number(cpu, st);
        check_port(cpu, port, st->size);
        port_out(cpu, port, st->size, (uint32_t)cpu->s.gpr[CPU_RAX]);
}

void exec_ins(struct cpu *cpu, const struct step *st)
{
        uint16_t port = (uint16_t)cpu->s.gpr[CPU_RDX];
        check_port(cpu, port, st->size);
        if (!count_left(cpu, st))
                return;
        do {
                uint64_t to = destination(cpu, st, st->size, true);
                cpu_probe_write(cpu, to, st->size);
                store_size(cpu, to, port_in(cpu, port, st->size), st->size);
                advance(cpu, CPU_RDI, step_delta(cpu, st->size), st->address_mask);
        } while (more(cpu, st, 1));
}

void exec_outs(struct cpu *cpu, const struct step *st)
{
        uint16_t port = (uint16_t)cpu->s.gpr[CPU_RDX];
        check_port(cpu, port, st->size);
        if (!count_left(cpu, st))
                return;
        do {
                uint64_t value = load_size(cpu, source(cpu, st, st->size), st->size);
                port_out(cpu, port, st->size, (uint32_t)value);
                advance(cpu, CPU_RSI, step_delta(cpu, st->size), st->address_mask);
        } while (more(cpu, st, 1));
}
