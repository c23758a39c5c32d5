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
        return st->i.rep ? cpu->s.gpr[CPU_RCX] & address_mask(st) : 1;
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
        advance(cpu, CPU_RCX, -elements, address_mask(st));
        if (!(cpu->s.gpr[CPU_RCX] & address_mask(st)))
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
        return seg_linear(cpu, st->i.seg, cpu->s.gpr[CPU_RSI] & address_mask(st), size, false);
}

static uint64_t destination(struct cpu *cpu, const struct step *st, unsigned size, bool write)
{
        return seg_linear(cpu, CPU_ES, cpu->s.gpr[CPU_RDI] & address_mask(st), size, write);
}

static bool flat(const struct cpu *cpu, unsigned seg)
{
        return !cpu->legacy || cpu->s.seg[seg].limit == UINT32_MAX;
}

/* ---- many at once ---- */

#define BULK_BYTES (64u << 10) /* between two looks for interrupts */

/* Elements that follow each other in memory at hand, in the direction of DF. */
struct run {
        uint8_t *at;     /* the lowest of them; NULL: none, do one the slow way */
        uint64_t length; /* elements */
        uint64_t gpa;    /* of a destination whose page holds code; else 0 */
};

/* What the offset allows before it wraps around. */
static uint64_t until_wrap(uint64_t offset, uint64_t mask, unsigned size, bool down)
{
        offset &= mask;
        uint64_t room = down ? offset / size : (mask - offset) / size;
        return room == UINT64_MAX ? room : room + 1;
}

/* At most `count` elements from `linear` on, all in memory; may raise #PF for the first. */
static struct run find_run(struct cpu *cpu, uint64_t linear, unsigned size, uint64_t count,
                           bool write)
{
        struct run r = { .length = count };
        bool down = cpu->s.rflags & FLAG_DF;
        uint64_t in_page = linear & PAGE_MASK;
        if (in_page + size > PAGE_SIZE_BYTES)
                return r;
        uint64_t most = down ? in_page / size + 1 : BULK_BYTES / size;
        uint64_t bytes = (most < count ? most : count) * size;
        struct span s = cpu_span(cpu, linear, down ? size : bytes, write);
        if (!s.at)
                return r;
        r.length = (down ? bytes : s.size_bytes) / size;
        r.at = down ? s.at - (r.length - 1) * size : s.at;
        r.gpa = s.code ? s.gpa : 0;
        return r;
}

static bool may_bulk(const struct cpu *cpu, unsigned seg, uint64_t count)
{
        return count > 1 && !cpu->slow && cpu->context != CTX_CHECKED && flat(cpu, seg);
}

static uint64_t least(uint64_t a, uint64_t b)
{
        return a < b ? a : b;
}

static struct run source_run(struct cpu *cpu, const struct step *st, uint64_t linear,
                             uint64_t count)
{
        if (!may_bulk(cpu, st->i.seg, count))
                return (struct run){ 0 };
        bool down = cpu->s.rflags & FLAG_DF;
        count = least(count, until_wrap(cpu->s.gpr[CPU_RSI], address_mask(st), st->size, down));
        return find_run(cpu, linear, st->size, count, false);
}

static struct run destination_run(struct cpu *cpu, const struct step *st, uint64_t linear,
                                  uint64_t count, bool write)
{
        if (!may_bulk(cpu, CPU_ES, count))
                return (struct run){ 0 };
        bool down = cpu->s.rflags & FLAG_DF;
        count = least(count, until_wrap(cpu->s.gpr[CPU_RDI], address_mask(st), st->size, down));
        return find_run(cpu, linear, st->size, count, write);
}

static void run_written(struct cpu *cpu, const struct run *r)
{
        if (r->gpa)
                cpu_code_written(cpu, r->gpa);
}

/* Copies upwards, element after element: bytes written are read again where the
 * destination begins inside the source, and repeat with that period. */
static void copy_up(uint8_t *to, const uint8_t *from, uint64_t bytes)
{
        uint64_t period = (uint64_t)(to - from);
        if (period >= bytes) {
                memmove(to, from, bytes);
                return;
        }
        for (uint64_t done = 0; done < bytes;) {
                uint64_t part = least(period + done, bytes - done);
                memcpy(to + done, from, part);
                done += part;
        }
}

/* Elements of the runs that can be copied at once; 0: none. */
static uint64_t copy_run(struct cpu *cpu, const struct run *from, const struct run *to,
                         unsigned size)
{
        if (!from->at || !to->at)
                return 0;
        uint64_t n = least(from->length, to->length);
        if (!(cpu->s.rflags & FLAG_DF)) {
                if ((uint64_t)(to->at - from->at) < size) /* an element would overlap itself */
                        return to->at == from->at ? n : 0;
                copy_up(to->at, from->at, n * size);
                return n;
        }
        uint8_t *dst = to->at + to->length * size; /* the ends: downwards from here */
        const uint8_t *src = from->at + from->length * size;
        uint64_t period = (uint64_t)(src - dst);
        if (period < n * size) /* only so many that none reads what another wrote */
                n = period / size;
        memmove(dst - n * size, src - n * size, n * size);
        return n;
}

void exec_movs(struct cpu *cpu, const struct step *st)
{
        unsigned size = st->size;
        uint64_t n;
        if (!count_left(cpu, st))
                return;
        do {
                uint64_t delta = step_delta(cpu, size), count = count_left(cpu, st);
                uint64_t from = source(cpu, st, size), to = destination(cpu, st, size, true);
                struct run src = source_run(cpu, st, from, count), dst = { 0 };
                if (src.at)
                        dst = destination_run(cpu, st, to, src.length, true);
                n = copy_run(cpu, &src, &dst, size);
                if (n) {
                        run_written(cpu, &dst);
                } else {
                        n = 1;
                        store_size(cpu, to, load_size(cpu, from, size), size);
                }
                advance(cpu, CPU_RSI, delta * n, address_mask(st));
                advance(cpu, CPU_RDI, delta * n, address_mask(st));
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
                uint64_t to = destination(cpu, st, size, true);
                struct run dst = destination_run(cpu, st, to, count_left(cpu, st), true);
                if (dst.at) {
                        n = dst.length;
                        fill(dst.at, cpu->s.gpr[CPU_RAX], size, n);
                        run_written(cpu, &dst);
                } else {
                        n = 1;
                        store_size(cpu, to, cpu->s.gpr[CPU_RAX], size);
                }
                advance(cpu, CPU_RDI, step_delta(cpu, size) * n, address_mask(st));
        } while (more(cpu, st, n));
}

void exec_lods(struct cpu *cpu, const struct step *st)
{
        if (!count_left(cpu, st))
                return;
        do {
                reg_set(cpu, RAX_AT, load_size(cpu, source(cpu, st, st->size), st->size), st->size);
                advance(cpu, CPU_RSI, step_delta(cpu, st->size), address_mask(st));
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

/* REPE stops at a difference, REPNE at an equality. After `n` elements. */
static bool compare_more(struct cpu *cpu, const struct step *st, uint64_t n)
{
        bool equal = cpu->s.rflags & FLAG_ZF;
        if (st->i.rep && equal != (st->i.rep == 0xf3)) {
                advance(cpu, CPU_RCX, -n, address_mask(st));
                return false;
        }
        return more(cpu, st, n);
}

static uint64_t element(const uint8_t *at, unsigned size)
{
        uint64_t value = 0;
        memcpy(&value, at, size);
        return value;
}

/* What one side of a comparison is: memory, or always the same value. */
struct side {
        const uint8_t *at;
        int64_t stride;
};

/* Compares elements until REPE or REPNE (`wanted`: they are equal) is over, or `n`; how many. */
static inline uint64_t compare_run(struct side a, struct side b, unsigned size, uint64_t n,
                                   bool wanted)
{
        for (uint64_t k = 0; k < n; k++) {
                if ((element(a.at, size) == element(b.at, size)) != wanted)
                        return k + 1;
                a.at += a.stride;
                b.at += b.stride;
        }
        return n;
}

static uint64_t compare_sized(struct side a, struct side b, unsigned size, uint64_t n, bool wanted)
{
        return size == 1   ? compare_run(a, b, 1, n, wanted)
               : size == 2 ? compare_run(a, b, 2, n, wanted)
               : size == 4 ? compare_run(a, b, 4, n, wanted)
                           : compare_run(a, b, 8, n, wanted);
}

/* A run from its first element on. */
static struct side run_side(struct cpu *cpu, const struct run *r, unsigned size)
{
        bool down = cpu->s.rflags & FLAG_DF;
        return (struct side){ .at = r->at + (down ? (r->length - 1) * size : 0),
                              .stride = (int64_t)step_delta(cpu, size) };
}

void exec_cmps(struct cpu *cpu, const struct step *st)
{
        unsigned size = st->size;
        uint64_t n;
        if (!count_left(cpu, st))
                return;
        do {
                uint64_t from = source(cpu, st, size), to = destination(cpu, st, size, false), a, b;
                struct run left = source_run(cpu, st, from, count_left(cpu, st)), right = { 0 };
                if (left.at)
                        right = destination_run(cpu, st, to, left.length, false);
                if (right.at) {
                        struct side l = run_side(cpu, &left, size), r = run_side(cpu, &right, size);
                        n = compare_sized(l, r, size, right.length, st->i.rep == 0xf3);
                        a = element(l.at + l.stride * (int64_t)(n - 1), size);
                        b = element(r.at + r.stride * (int64_t)(n - 1), size);
                } else {
                        n = 1;
                        a = load_size(cpu, from, size);
                        b = load_size(cpu, to, size);
                }
                uint64_t delta = step_delta(cpu, size) * n;
                advance(cpu, CPU_RSI, delta, address_mask(st));
                advance(cpu, CPU_RDI, delta, address_mask(st));
                set_compare_flags(cpu, a, b, size);
        } while (compare_more(cpu, st, n));
}

void exec_scas(struct cpu *cpu, const struct step *st)
{
        unsigned size = st->size;
        uint64_t n, b;
        if (!count_left(cpu, st))
                return;
        const struct side rax = { .at = (const uint8_t *)&cpu->s.gpr[CPU_RAX] };
        do {
                uint64_t to = destination(cpu, st, size, false);
                struct run in = destination_run(cpu, st, to, count_left(cpu, st), false);
                if (in.at) {
                        struct side s = run_side(cpu, &in, size);
                        n = compare_sized(rax, s, size, in.length, st->i.rep == 0xf3);
                        b = element(s.at + s.stride * (int64_t)(n - 1), size);
                } else {
                        n = 1;
                        b = load_size(cpu, to, size);
                }
                advance(cpu, CPU_RDI, step_delta(cpu, size) * n, address_mask(st));
                set_compare_flags(cpu, reg_get(cpu, RAX_AT, size), b, size);
        } while (compare_more(cpu, st, n));
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
        cpu->counters.port_accesses++;
        if (!cpu->bus->pio_read)
                return UINT32_MAX;
        cpu_fpu_leave(cpu);
        uint32_t value = cpu->bus->pio_read(cpu->bus->arg, port, size);
        cpu_fpu_enter(cpu);
        return value;
}

static void port_out(struct cpu *cpu, uint16_t port, unsigned size, uint32_t value)
{
        cpu->counters.port_accesses++;
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
                advance(cpu, CPU_RDI, step_delta(cpu, st->size), address_mask(st));
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
                advance(cpu, CPU_RSI, step_delta(cpu, st->size), address_mask(st));
        } while (more(cpu, st, 1));
}
