/* The other general-purpose instructions. `dst` is the register in the first
 * operand's place, `src` the other one's (the same as r/m where it stands there). */
#include "cpu/exec.h"

#include <string.h>

void *mem_atomic(struct cpu *cpu, uint64_t linear, unsigned size)
{
        void *host = mem_host(cpu, linear, size, true);
        if (likely(host != NULL))
                return host;
        if ((linear & PAGE_MASK) + size > PAGE_SIZE_BYTES)
                return NULL;
        cpu_probe_write(cpu, linear, size);
        host = mem_host(cpu, linear, size, true);
        if (host || cpu->context == CTX_CHECKED)
                return host;
        uint64_t gpa = cpu_translate(cpu, linear, ACCESS_WRITE, cpu->context);
        host = cpu_ram(cpu, gpa, true);
        if (host) { /* a page with decoded code */
                cpu_memory_written(cpu->memory, gpa, size);
                if (gpa >> 12 == cpu->block_page >> 12)
                        cpu_stop_block(cpu);
        }
        return host;
}

static void set_arithmetic(struct cpu *cpu, uint32_t flags, uint32_t mask)
{
        cpu->s.rflags = (cpu->s.rflags & ~(uint64_t)mask) | (flags & mask);
}

/* Flags of a - b at `size`, by the host. */
static uint32_t flags_of_sub(uint64_t a, uint64_t b, unsigned size)
{
        unsigned shift = 64 - size * 8;
        uint64_t flags;
        /* The low bits are zero: CF, OF, SF, ZF come out right; AF and PF do not. */
        uint64_t wide_a = a << shift, wide_b = b << shift;
        __asm__("cmp %[b], %[a]\n\tpushfq\n\tpop %[f]"
                : [f] "=r"(flags)
                : [a] "r"(wide_a), [b] "r"(wide_b)
                : "cc");
        uint8_t low = (uint8_t)(a - b);
        uint32_t r = (uint32_t)flags & (FLAG_CF | FLAG_OF | FLAG_SF | FLAG_ZF);
        r |= __builtin_parity(low) ? 0 : FLAG_PF;
        r |= (a ^ b ^ low) & FLAG_AF;
        return r;
}

static uint32_t flags_of_add(uint64_t a, uint64_t b, unsigned size)
{
        unsigned shift = 64 - size * 8;
        uint64_t wide_a = a << shift, wide_b = b << shift, sum = wide_a + wide_b;
        uint8_t low = (uint8_t)(a + b);
        uint32_t r = sum < wide_a ? FLAG_CF : 0;
        r |= sum == 0 ? FLAG_ZF : 0;
        r |= sum >> 63 ? FLAG_SF : 0;
        r |= (~(wide_a ^ wide_b) & (wide_a ^ sum)) >> 63 ? FLAG_OF : 0;
        r |= __builtin_parity(low) ? 0 : FLAG_PF;
        return r | ((a ^ b ^ low) & FLAG_AF);
}

/* ---- moves ---- */

void exec_movbe_load(struct cpu *cpu, const struct step *st)
{
        uint64_t v = load_size(cpu, step_linear(cpu, st, st->size, false), st->size);
        reg_set(cpu, st->dst, __builtin_bswap64(v) >> (64 - st->size * 8), st->size);
}

void exec_movbe_store(struct cpu *cpu, const struct step *st)
{
        uint64_t v = __builtin_bswap64(reg_get(cpu, st->src, st->size)) >> (64 - st->size * 8);
        store_size(cpu, step_linear(cpu, st, st->size, true), v, st->size);
}

void exec_lea(struct cpu *cpu, const struct step *st)
{
        reg_set(cpu, st->dst, step_offset(cpu, st), st->size);
}

void exec_xchg_rr(struct cpu *cpu, const struct step *st)
{
        uint64_t a = reg_get(cpu, st->dst, st->size), b = reg_get(cpu, st->src, st->size);
        reg_set(cpu, st->dst, b, st->size);
        reg_set(cpu, st->src, a, st->size);
}

/* XCHG with memory is always locked. */
void exec_xchg_mr(struct cpu *cpu, const struct step *st)
{
        uint64_t at = step_linear(cpu, st, st->size, true);
        uint64_t value = reg_get(cpu, st->src, st->size), old;
        void *p = mem_atomic(cpu, at, st->size);
        if (!p) {
                cpu_probe_write(cpu, at, st->size);
                old = load_size(cpu, at, st->size);
                store_size(cpu, at, value, st->size);
        } else if (st->size == 8) {
                __asm__ volatile("xchg %0, %1" : "+r"(value), "+m"(*(unaligned64 *)p));
                old = value;
        } else if (st->size == 4) {
                uint32_t v = (uint32_t)value;
                __asm__ volatile("xchg %0, %1" : "+r"(v), "+m"(*(unaligned32 *)p));
                old = v;
        } else if (st->size == 2) {
                uint16_t v = (uint16_t)value;
                __asm__ volatile("xchg %0, %1" : "+r"(v), "+m"(*(unaligned16 *)p));
                old = v;
        } else {
                uint8_t v = (uint8_t)value;
                __asm__ volatile("xchg %0, %1" : "+q"(v), "+m"(*(uint8_t *)p));
                old = v;
        }
        reg_set(cpu, st->src, old, st->size);
}

/* Atomically replaces what is at `p`; false when it was not `*expected`, which
 * then holds what was there. */
static bool compare_exchange(void *p, uint64_t *expected, uint64_t desired, unsigned size)
{
        bool done;
        uint64_t old = *expected;
        if (size == 8)
                __asm__ volatile("lock cmpxchgq %3, %1"
                                 : "+a"(old), "+m"(*(unaligned64 *)p), "=@ccz"(done)
                                 : "r"(desired)
                                 : "memory");
        else if (size == 4)
                __asm__ volatile("lock cmpxchgl %k3, %1"
                                 : "+a"(old), "+m"(*(unaligned32 *)p), "=@ccz"(done)
                                 : "r"(desired)
                                 : "memory");
        else if (size == 2)
                __asm__ volatile("lock cmpxchgw %w3, %1"
                                 : "+a"(old), "+m"(*(unaligned16 *)p), "=@ccz"(done)
                                 : "r"(desired)
                                 : "memory");
        else
                __asm__ volatile("lock cmpxchgb %b3, %1"
                                 : "+a"(old), "+m"(*(uint8_t *)p), "=@ccz"(done)
                                 : "q"(desired)
                                 : "memory");
        *expected = size == 8 ? old : old & ((1ull << size * 8) - 1);
        return done;
}

void exec_xadd(struct cpu *cpu, const struct step *st)
{
        unsigned size = st->size;
        uint64_t b = reg_get(cpu, st->src, size), a;
        if (!st->i.is_mem) {
                a = reg_get(cpu, st->dst, size);
                reg_set(cpu, st->src, a, size);
                reg_set(cpu, st->dst, a + b, size);
        } else {
                uint64_t at = step_linear(cpu, st, size, true);
                void *p = mem_atomic(cpu, at, size);
                if (p) {
                        a = 0;
                        while (!compare_exchange(p, &a, a + b, size))
                                ;
                } else {
                        cpu_probe_write(cpu, at, size);
                        a = load_size(cpu, at, size);
                        store_size(cpu, at, a + b, size);
                }
                reg_set(cpu, st->src, a, size);
        }
        set_arithmetic(cpu, flags_of_add(a, b, size), FLAGS_ARITHMETIC);
}

void exec_cmpxchg(struct cpu *cpu, const struct step *st)
{
        unsigned size = st->size;
        unsigned rax = offsetof(struct cpu_state, gpr);
        uint64_t acc = reg_get(cpu, rax, size), old = acc, b = reg_get(cpu, st->src, size);
        if (!st->i.is_mem) {
                old = reg_get(cpu, st->dst, size);
                if (old == acc)
                        reg_set(cpu, st->dst, b, size);
                else if (size == 4) /* the destination is written back as it was */
                        reg_set(cpu, rax, old, size);
        } else {
                uint64_t at = step_linear(cpu, st, size, true);
                void *p = mem_atomic(cpu, at, size);
                if (p) {
                        compare_exchange(p, &old, b, size);
                } else {
                        cpu_probe_write(cpu, at, size);
                        old = load_size(cpu, at, size);
                        store_size(cpu, at, old == acc ? b : old, size);
                }
        }
        set_arithmetic(cpu, flags_of_sub(acc, old, size), FLAGS_ARITHMETIC);
        if (old != acc)
                reg_set(cpu, rax, old, size);
}

static void cmpxchg16b(struct cpu *cpu, const struct step *st)
{
        uint64_t at = step_linear(cpu, st, 16, true);
        if (at & 15)
                cpu_gp(cpu);
        uint64_t *g = cpu->s.gpr, old[2] = { g[CPU_RAX], g[CPU_RDX] };
        bool equal;
        void *p = mem_atomic(cpu, at, 16);
        if (p) {
                __asm__ volatile("lock cmpxchg16b %1"
                                 : "=@ccz"(equal), "+m"(*(unsigned __int128 *)p), "+a"(old[0]),
                                   "+d"(old[1])
                                 : "b"(g[CPU_RBX]), "c"(g[CPU_RCX])
                                 : "memory");
        } else {
                uint64_t new[2] = { g[CPU_RBX], g[CPU_RCX] };
                cpu_probe_write(cpu, at, 16);
                cpu_load_slow(cpu, at, old, 16);
                equal = old[0] == g[CPU_RAX] && old[1] == g[CPU_RDX];
                cpu_store_slow(cpu, at, equal ? new : old, 16);
        }
        set_arithmetic(cpu, equal ? FLAG_ZF : 0, FLAG_ZF);
        if (!equal) {
                g[CPU_RAX] = old[0];
                g[CPU_RDX] = old[1];
        }
}

void exec_cmpxchg8b(struct cpu *cpu, const struct step *st)
{
        if (st->i.opsize == 8) {
                cmpxchg16b(cpu, st);
                return;
        }
        uint64_t at = step_linear(cpu, st, 8, true), *g = cpu->s.gpr;
        uint64_t acc = (uint32_t)g[CPU_RAX] | g[CPU_RDX] << 32, old = acc;
        uint64_t new = (uint32_t)g[CPU_RBX] | g[CPU_RCX] << 32;
        void *p = mem_atomic(cpu, at, 8);
        if (p) {
                compare_exchange(p, &old, new, 8);
        } else {
                cpu_probe_write(cpu, at, 8);
                old = load64(cpu, at);
                store64(cpu, at, old == acc ? new : old);
        }
        set_arithmetic(cpu, old == acc ? FLAG_ZF : 0, FLAG_ZF);
        if (old != acc) {
                g[CPU_RAX] = (uint32_t)old;
                g[CPU_RDX] = old >> 32;
        }
}

void exec_cmov(struct cpu *cpu, const struct step *st)
{
        uint64_t value = rm_get(cpu, st, st->size);
        if (!condition_holds(cpu->s.rflags, st->i.code & 15))
                value = reg_get(cpu, st->dst, st->size);
        reg_set(cpu, st->dst, value, st->size);
}

void exec_setcc(struct cpu *cpu, const struct step *st)
{
        uint8_t value = condition_holds(cpu->s.rflags, st->i.code & 15);
        if (st->i.is_mem)
                store8(cpu, step_linear(cpu, st, 1, true), value);
        else
                reg_set(cpu, st->dst, value, 1);
}

/* MOVZX, MOVSX, MOVSXD: the source is narrower than the destination. */
void exec_movx(struct cpu *cpu, const struct step *st)
{
        unsigned from = insn_operand_size(&st->i, st->i.row->operands[1]);
        uint64_t value = rm_get(cpu, st, from);
        if (st->i.op == OP_MOVSX)
                value = (uint64_t)((int64_t)(value << (64 - from * 8)) >> (64 - from * 8));
        reg_set(cpu, st->dst, value, st->size);
}

void exec_cbw(struct cpu *cpu, const struct step *st)
{
        uint64_t a = cpu->s.gpr[CPU_RAX];
        uint64_t value = st->size == 8   ? (uint64_t)(int32_t)a
                         : st->size == 4 ? (uint64_t)(int16_t)a
                                         : (uint64_t)(int8_t)a;
        reg_set(cpu, offsetof(struct cpu_state, gpr), value, st->size);
}

void exec_cwd(struct cpu *cpu, const struct step *st)
{
        bool negative = cpu->s.gpr[CPU_RAX] >> (st->size * 8 - 1) & 1;
        reg_set(cpu, offsetof(struct cpu_state, gpr) + 8 * CPU_RDX, negative ? UINT64_MAX : 0,
                st->size);
}

void exec_bswap(struct cpu *cpu, const struct step *st)
{
        uint64_t v = reg_get(cpu, st->dst, st->size);
        if (st->size == 2) /* undefined; zero on processors we know */
                reg_set(cpu, st->dst, 0, 2);
        else
                reg_set(cpu, st->dst, __builtin_bswap64(v) >> (64 - st->size * 8), st->size);
}

/* ---- flags ---- */

void exec_lahf(struct cpu *cpu, const struct step *st)
{
        (void)st;
        cpu->s.gpr[CPU_RAX] = (cpu->s.gpr[CPU_RAX] & ~0xff00ull) |
                              ((cpu->s.rflags & 0xd5) | RF_FIXED) << 8;
}

void exec_sahf(struct cpu *cpu, const struct step *st)
{
        (void)st;
        set_arithmetic(cpu, cpu->s.gpr[CPU_RAX] >> 8 & 0xd5, 0xd5);
}

void exec_flag(struct cpu *cpu, const struct step *st)
{
        switch (st->i.op) {
        case OP_CLC:
                cpu->s.rflags &= ~(uint64_t)FLAG_CF;
                break;
        case OP_STC:
                cpu->s.rflags |= FLAG_CF;
                break;
        case OP_CMC:
                cpu->s.rflags ^= FLAG_CF;
                break;
        case OP_CLD:
                cpu->s.rflags &= ~(uint64_t)FLAG_DF;
                break;
        default:
                cpu->s.rflags |= FLAG_DF;
        }
}

void exec_salc(struct cpu *cpu, const struct step *st)
{
        (void)st;
        reg_set(cpu, offsetof(struct cpu_state, gpr), cpu->s.rflags & FLAG_CF ? 0xff : 0, 1);
}

void exec_xlat(struct cpu *cpu, const struct step *st)
{
        uint64_t offset = (cpu->s.gpr[CPU_RBX] + (uint8_t)cpu->s.gpr[CPU_RAX]) & address_mask(st);
        uint8_t value = load8(cpu, seg_linear(cpu, st->i.seg, offset, 1, false));
        reg_set(cpu, offsetof(struct cpu_state, gpr), value, 1);
}

static uint32_t flags_of_result(uint8_t r)
{
        return (r ? 0 : FLAG_ZF) | (r & FLAG_SF) | (__builtin_parity(r) ? 0 : FLAG_PF);
}

static void decimal_adjust(struct cpu *cpu, bool subtract)
{
        uint8_t old = (uint8_t)cpu->s.gpr[CPU_RAX], al = old;
        bool carry = cpu->s.rflags & FLAG_CF, half = cpu->s.rflags & FLAG_AF;
        uint32_t flags = 0;
        if ((old & 15) > 9 || half) {
                if (subtract ? old < 6 : old > 0xf9)
                        flags |= FLAG_CF;
                flags |= FLAG_AF | (carry ? FLAG_CF : 0);
                al = (uint8_t)(subtract ? al - 6 : al + 6);
        }
        if (old > 0x99 || carry) {
                al = (uint8_t)(subtract ? al - 0x60 : al + 0x60);
                flags |= FLAG_CF;
        } else if (!subtract) {
                flags &= ~FLAG_CF;
        }
        reg_set(cpu, offsetof(struct cpu_state, gpr), al, 1);
        set_arithmetic(cpu, flags | flags_of_result(al), FLAGS_ARITHMETIC);
}

static void ascii_adjust(struct cpu *cpu, bool subtract)
{
        uint16_t ax = (uint16_t)cpu->s.gpr[CPU_RAX];
        uint32_t flags = 0;
        if ((ax & 15) > 9 || cpu->s.rflags & FLAG_AF) {
                ax = (uint16_t)(subtract ? ax - 0x106 : ax + 0x106);
                flags = FLAG_AF | FLAG_CF;
        }
        ax &= 0xff0f;
        reg_set(cpu, offsetof(struct cpu_state, gpr), ax, 2);
        set_arithmetic(cpu, flags | flags_of_result((uint8_t)ax), FLAGS_ARITHMETIC);
}

void exec_decimal(struct cpu *cpu, const struct step *st)
{
        uint16_t ax = (uint16_t)cpu->s.gpr[CPU_RAX];
        uint8_t base = (uint8_t)st->i.imm;
        switch (st->i.op) {
        case OP_DAA:
        case OP_DAS:
                decimal_adjust(cpu, st->i.op == OP_DAS);
                return;
        case OP_AAA:
        case OP_AAS:
                ascii_adjust(cpu, st->i.op == OP_AAS);
                return;
        case OP_AAM:
                if (!base)
                        cpu_raise(cpu, VEC_DE);
                ax = (uint16_t)((ax & 0xff) / base << 8 | (ax & 0xff) % base);
                break;
        default: /* AAD */
                ax = (uint8_t)((ax & 0xff) + (ax >> 8) * base);
        }
        reg_set(cpu, offsetof(struct cpu_state, gpr), ax, 2);
        /* The others are undefined; processors clear them. */
        set_arithmetic(cpu, flags_of_result((uint8_t)ax), FLAGS_ARITHMETIC);
}

void exec_nop(struct cpu *cpu, const struct step *st)
{
        (void)cpu;
        (void)st;
}

void exec_fence(struct cpu *cpu, const struct step *st)
{
        (void)cpu;
        (void)st;
        atomic_thread_fence(memory_order_seq_cst);
}

/* ---- multiplication and division ---- */

void exec_mul(struct cpu *cpu, const struct step *st)
{
        unsigned size = st->size, rax = offsetof(struct cpu_state, gpr);
        uint64_t a = reg_get(cpu, rax, size), b = rm_get(cpu, st, size);
        unsigned bits = size * 8, shift = 64 - bits;
        uint64_t low, high;
        bool overflow;
        if (st->i.op == OP_MUL) {
                unsigned __int128 product = (unsigned __int128)a * b;
                low = (uint64_t)product;
                high = (uint64_t)(product >> bits);
                overflow = size == 8 ? high != 0 : low >> bits != 0;
        } else {
                int64_t sa = (int64_t)(a << shift) >> shift, sb = (int64_t)(b << shift) >> shift;
                __int128 product = (__int128)sa * sb;
                low = (uint64_t)product;
                high = (uint64_t)(product >> bits);
                overflow = product != (__int128)((int64_t)(low << shift) >> shift);
        }
        if (size == 1) {
                reg_set(cpu, rax, low, 2);
        } else {
                reg_set(cpu, rax, low, size);
                reg_set(cpu, rax + 8 * CPU_RDX, high, size);
        }
        set_arithmetic(cpu, overflow ? FLAG_CF | FLAG_OF : 0, FLAG_CF | FLAG_OF);
}

void exec_imul(struct cpu *cpu, const struct step *st)
{
        unsigned size = st->size, shift = 64 - size * 8;
        uint64_t b = rm_get(cpu, st, size);
        uint64_t a = st->i.imm_size ? st->i.imm : reg_get(cpu, st->dst, size);
        int64_t sa = (int64_t)(a << shift) >> shift, sb = (int64_t)(b << shift) >> shift, result;
        bool overflow = __builtin_mul_overflow(sa, sb, &result);
        if (size != 8)
                overflow = result != (int64_t)((uint64_t)result << shift) >> shift;
        reg_set(cpu, st->dst, (uint64_t)result, size);
        set_arithmetic(cpu, overflow ? FLAG_CF | FLAG_OF : 0, FLAG_CF | FLAG_OF);
}

static void divide_unsigned(struct cpu *cpu, unsigned __int128 dividend, uint64_t divisor,
                            unsigned size)
{
        unsigned rax = offsetof(struct cpu_state, gpr);
        if (divisor == 0 || (dividend >> size * 8) >= divisor)
                cpu_raise(cpu, VEC_DE);
        uint64_t quotient, rest;
        uint64_t low = (uint64_t)dividend, high = (uint64_t)(dividend >> 64);
        __asm__("div %[d]" : "=a"(quotient), "=d"(rest) : "a"(low), "d"(high), [d] "r"(divisor));
        if (size == 1) {
                reg_set(cpu, rax, quotient | rest << 8, 2);
        } else {
                reg_set(cpu, rax, quotient, size);
                reg_set(cpu, rax + 8 * CPU_RDX, rest, size);
        }
}

static void divide_signed(struct cpu *cpu, __int128 dividend, int64_t divisor, unsigned size)
{
        unsigned rax = offsetof(struct cpu_state, gpr);
        /* The one quotient that 128 bits cannot hold. */
        bool least = (uint64_t)dividend == 0 && (uint64_t)(dividend >> 64) == 1ull << 63;
        if (divisor == 0 || (least && divisor == -1))
                cpu_raise(cpu, VEC_DE);
        __int128 quotient, rest;
        if (dividend == (int64_t)dividend && !(divisor == -1 && (int64_t)dividend == INT64_MIN)) {
                quotient = (int64_t)dividend / divisor;
                rest = (int64_t)dividend % divisor;
        } else {
                quotient = dividend / divisor;
                rest = dividend % divisor;
        }
        unsigned shift = 64 - size * 8;
        if (quotient != (int64_t)((uint64_t)quotient << shift) >> shift)
                cpu_raise(cpu, VEC_DE);
        if (size == 1) {
                reg_set(cpu, rax, ((uint64_t)quotient & 0xff) | (uint64_t)rest << 8, 2);
        } else {
                reg_set(cpu, rax, (uint64_t)quotient, size);
                reg_set(cpu, rax + 8 * CPU_RDX, (uint64_t)rest, size);
        }
}

void exec_div(struct cpu *cpu, const struct step *st)
{
        unsigned size = st->size, rax = offsetof(struct cpu_state, gpr), shift = 64 - size * 8;
        uint64_t divisor = rm_get(cpu, st, size);
        uint64_t low = reg_get(cpu, rax, size == 1 ? 2 : size);
        uint64_t high = size == 1 ? 0 : reg_get(cpu, rax + 8 * CPU_RDX, size);
        unsigned __int128 dividend = size == 1 ? low : (unsigned __int128)high << size * 8 | low;
        if (st->i.op == OP_DIV) {
                divide_unsigned(cpu, dividend, divisor, size);
                return;
        }
        unsigned wide = size == 1 ? 112 : 128 - size * 16;
        divide_signed(cpu, (__int128)(dividend << wide) >> wide,
                      (int64_t)(divisor << shift) >> shift, size);
}

/* ---- bits ---- */

static uint64_t bit_result(unsigned op, uint64_t value, uint64_t bit)
{
        return op == OP_BTS ? value | bit : op == OP_BTR ? value & ~bit : value ^ bit;
}

/* A bit number in a register reaches beyond the operand in memory. */
static void bt_memory(struct cpu *cpu, const struct step *st, int64_t index)
{
        unsigned size = st->size, bits = size * 8;
        bool write = st->i.op != OP_BT;
        uint64_t offset = step_offset(cpu, st);
        if (!st->i.imm_size)
                offset += (uint64_t)(index >> (size == 8 ? 6 : size == 4 ? 5 : 4)) * size;
        uint64_t at = seg_linear(cpu, st->i.seg, offset & address_mask(st), size, write);
        uint64_t bit = 1ull << ((uint64_t)index & (bits - 1)), old;
        void *p = st->i.lock ? mem_atomic(cpu, at, size) : NULL;
        if (p) {
                old = 0;
                while (!compare_exchange(p, &old, bit_result(st->i.op, old, bit), size))
                        ;
        } else {
                if (write)
                        cpu_probe_write(cpu, at, size);
                old = load_size(cpu, at, size);
                if (write)
                        store_size(cpu, at, bit_result(st->i.op, old, bit), size);
        }
        set_arithmetic(cpu, old & bit ? FLAG_CF : 0, FLAG_CF);
}

void exec_bt(struct cpu *cpu, const struct step *st)
{
        unsigned size = st->size, shift = 64 - size * 8;
        uint64_t index = st->i.imm_size ? st->i.imm : reg_get(cpu, st->src, size);
        if (st->i.is_mem) {
                bt_memory(cpu, st, (int64_t)(index << shift) >> shift);
                return;
        }
        uint64_t value = reg_get(cpu, st->dst, size), bit = 1ull << (index & (size * 8 - 1));
        if (st->i.op != OP_BT)
                reg_set(cpu, st->dst, bit_result(st->i.op, value, bit), size);
        set_arithmetic(cpu, value & bit ? FLAG_CF : 0, FLAG_CF);
}

void exec_bitscan(struct cpu *cpu, const struct step *st)
{
        uint64_t value = rm_get(cpu, st, st->size);
        set_arithmetic(cpu, value ? 0 : FLAG_ZF, FLAG_ZF);
        if (!value) /* the destination stays as it was, all 64 bits */
                return;
        unsigned n = st->i.op == OP_BSF ? (unsigned)__builtin_ctzll(value)
                                        : 63 - (unsigned)__builtin_clzll(value);
        reg_set(cpu, st->dst, n, st->size);
}
