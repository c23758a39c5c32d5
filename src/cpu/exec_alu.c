/* Two-operand arithmetic, INC/DEC/NOT/NEG, MOV and shifts: one function per
 * operation, size and operand form, so that nothing is decided at run time.
 * The operation itself is the host's, and so are the flags. */
#include "cpu/exec.h"

/* AX after LAHF and SETO AL -> the bits of `mask` in RFLAGS. */
static inline uint64_t merge_flags(uint64_t flags, uint32_t ax, uint32_t mask)
{
        uint32_t arithmetic = (ax >> 8 & 0xd5) | (ax & 1) << 11;
        return (flags & ~(uint64_t)mask) | (arithmetic & mask);
}

#define CARRY_NO ""
#define CARRY_IN "btl $0, %k[f]\n\t"

#define DEFINE_ALU(name, mnemonic, carry, T, bits, suffix)                                         \
        static inline T alu_##name##bits(T a, T b, uint64_t *flags)                                \
        {                                                                                          \
                uint32_t ax;                                                                       \
                __asm__(carry mnemonic suffix " %[b], %[a]\n\tlahf\n\tseto %%al"                   \
                        : [a] "+q"(a), "=&a"(ax)                                                   \
                        : [b] "q"(b), [f] "r"((uint32_t)*flags)                                    \
                        : "cc");                                                                   \
                *flags = merge_flags(*flags, ax, FLAGS_ARITHMETIC);                                \
                return a;                                                                          \
        }
#define DEFINE_ALU_SIZES(name, mnemonic, carry)                                                    \
        DEFINE_ALU(name, mnemonic, carry, uint8_t, 8, "b")                                         \
        DEFINE_ALU(name, mnemonic, carry, uint16_t, 16, "w")                                       \
        DEFINE_ALU(name, mnemonic, carry, uint32_t, 32, "l")                                       \
        DEFINE_ALU(name, mnemonic, carry, uint64_t, 64, "q")
DEFINE_ALU_SIZES(add, "add", CARRY_NO)
DEFINE_ALU_SIZES(or, "or", CARRY_NO)
DEFINE_ALU_SIZES(adc, "adc", CARRY_IN)
DEFINE_ALU_SIZES(sbb, "sbb", CARRY_IN)
DEFINE_ALU_SIZES(and, "and", CARRY_NO)
DEFINE_ALU_SIZES(sub, "sub", CARRY_NO)
DEFINE_ALU_SIZES(xor, "xor", CARRY_NO)
DEFINE_ALU_SIZES(cmp, "cmp", CARRY_NO)
DEFINE_ALU_SIZES(test, "test", CARRY_NO)

#define REG_WRITE(cpu, offset, value, bits)                                                        \
        do {                                                                                       \
                if (bits == 32)                                                                    \
                        SLOT(cpu, uint64_t, offset) = (uint32_t)(value);                           \
                else                                                                               \
                        SLOT(cpu, uint##bits##_t, offset) = (uint##bits##_t)(value);               \
        } while (0)

/* Forms that write their first operand. */
#define DEFINE_WRITING(name, bits)                                                                 \
        static void name##bits##_rr(struct cpu *cpu, const struct step *st)                        \
        {                                                                                          \
                uint##bits##_t r = alu_##name##bits(SLOT(cpu, uint##bits##_t, st->dst),            \
                                                    SLOT(cpu, uint##bits##_t, st->src),            \
                                                    &cpu->s.rflags);                               \
                REG_WRITE(cpu, st->dst, r, bits);                                                  \
        }                                                                                          \
        static void name##bits##_rm(struct cpu *cpu, const struct step *st)                        \
        {                                                                                          \
                uint##bits##_t b = load##bits(cpu, step_linear(cpu, st, bits / 8, false));         \
                uint##bits##_t r = alu_##name##bits(SLOT(cpu, uint##bits##_t, st->dst), b,         \
                                                    &cpu->s.rflags);                               \
                REG_WRITE(cpu, st->dst, r, bits);                                                  \
        }                                                                                          \
        static void name##bits##_ri(struct cpu *cpu, const struct step *st)                        \
        {                                                                                          \
                uint##bits##_t r = alu_##name##bits(SLOT(cpu, uint##bits##_t, st->dst),            \
                                                    (uint##bits##_t)st->i.imm, &cpu->s.rflags);    \
                REG_WRITE(cpu, st->dst, r, bits);                                                  \
        }                                                                                          \
        static inline void name##bits##_memory(struct cpu *cpu, const struct step *st,             \
                                               uint##bits##_t b)                                   \
        {                                                                                          \
                uint64_t at = step_linear(cpu, st, bits / 8, true);                                \
                volatile unaligned##bits *p = mem_host(cpu, at, bits / 8, true);                   \
                uint64_t flags = cpu->s.rflags;                                                    \
                if (likely(p != NULL)) {                                                           \
                        *p = alu_##name##bits(*p, b, &flags);                                      \
                } else {                                                                           \
                        cpu_probe_write(cpu, at, bits / 8);                                        \
                        uint##bits##_t a = load##bits(cpu, at);                                    \
                        store##bits(cpu, at, alu_##name##bits(a, b, &flags));                      \
                }                                                                                  \
                cpu->s.rflags = flags;                                                             \
        }                                                                                          \
        static void name##bits##_mr(struct cpu *cpu, const struct step *st)                        \
        {                                                                                          \
                name##bits##_memory(cpu, st, SLOT(cpu, uint##bits##_t, st->src));                  \
        }                                                                                          \
        static void name##bits##_mi(struct cpu *cpu, const struct step *st)                        \
        {                                                                                          \
                name##bits##_memory(cpu, st, (uint##bits##_t)st->i.imm);                           \
        }                                                                                          \
        static void name##bits##_locked(struct cpu *cpu, const struct step *st, uint##bits##_t b)  \
        {                                                                                          \
                uint64_t at = step_linear(cpu, st, bits / 8, true);                                \
                unaligned##bits *p = mem_atomic(cpu, at, bits / 8);                                \
                if (!p) {                                                                          \
                        name##bits##_memory(cpu, st, b);                                           \
                        return;                                                                    \
                }                                                                                  \
                uint##bits##_t old = *(volatile unaligned##bits *)p, desired;                      \
                uint64_t flags;                                                                    \
                uint8_t done = 0;                                                                  \
                for (;;) {                                                                         \
                        flags = cpu->s.rflags;                                                     \
                        desired = alu_##name##bits(old, b, &flags);                                \
                        __asm__ volatile("lock cmpxchg %[n], %[p]\n\tsete %[d]"                    \
                                         : "+a"(old), [p] "+m"(*p), [d] "=q"(done)                 \
                                         : [n] "q"(desired)                                        \
                                         : "memory", "cc");                                        \
                        if (done)                                                                  \
                                break;                                                             \
                }                                                                                  \
                cpu->s.rflags = flags;                                                             \
        }                                                                                          \
        static void name##bits##_lr(struct cpu *cpu, const struct step *st)                        \
        {                                                                                          \
                name##bits##_locked(cpu, st, SLOT(cpu, uint##bits##_t, st->src));                  \
        }                                                                                          \
        static void name##bits##_li(struct cpu *cpu, const struct step *st)                        \
        {                                                                                          \
                name##bits##_locked(cpu, st, (uint##bits##_t)st->i.imm);                           \
        }

/* CMP and TEST only set flags. */
#define DEFINE_READING(name, bits)                                                                 \
        static void name##bits##_rr(struct cpu *cpu, const struct step *st)                        \
        {                                                                                          \
                alu_##name##bits(SLOT(cpu, uint##bits##_t, st->dst),                               \
                                 SLOT(cpu, uint##bits##_t, st->src), &cpu->s.rflags);              \
        }                                                                                          \
        static void name##bits##_rm(struct cpu *cpu, const struct step *st)                        \
        {                                                                                          \
                uint##bits##_t b = load##bits(cpu, step_linear(cpu, st, bits / 8, false));         \
                alu_##name##bits(SLOT(cpu, uint##bits##_t, st->dst), b, &cpu->s.rflags);           \
        }                                                                                          \
        static void name##bits##_ri(struct cpu *cpu, const struct step *st)                        \
        {                                                                                          \
                alu_##name##bits(SLOT(cpu, uint##bits##_t, st->dst), (uint##bits##_t)st->i.imm,    \
                                 &cpu->s.rflags);                                                  \
        }                                                                                          \
        static void name##bits##_mr(struct cpu *cpu, const struct step *st)                        \
        {                                                                                          \
                uint##bits##_t a = load##bits(cpu, step_linear(cpu, st, bits / 8, false));         \
                alu_##name##bits(a, SLOT(cpu, uint##bits##_t, st->src), &cpu->s.rflags);           \
        }                                                                                          \
        static void name##bits##_mi(struct cpu *cpu, const struct step *st)                        \
        {                                                                                          \
                uint##bits##_t a = load##bits(cpu, step_linear(cpu, st, bits / 8, false));         \
                alu_##name##bits(a, (uint##bits##_t)st->i.imm, &cpu->s.rflags);                    \
        }

#define SIZES(macro, name) macro(name, 8) macro(name, 16) macro(name, 32) macro(name, 64)
SIZES(DEFINE_WRITING, add)
SIZES(DEFINE_WRITING, or)
SIZES(DEFINE_WRITING, adc)
SIZES(DEFINE_WRITING, sbb)
SIZES(DEFINE_WRITING, and)
SIZES(DEFINE_WRITING, sub)
SIZES(DEFINE_WRITING, xor)
SIZES(DEFINE_READING, cmp)
SIZES(DEFINE_READING, test)

#define FORMS(n, b)                                                                                \
        {                                                                                          \
                n##b##_rr, n##b##_rm, n##b##_mr, n##b##_ri, n##b##_mi, n##b##_lr, n##b##_li        \
        }
#define FORMSR(n, b)                                                                               \
        {                                                                                          \
                n##b##_rr, n##b##_rm, n##b##_mr, n##b##_ri, n##b##_mi, NULL, NULL                  \
        }
#define ALL(F, n)                                                                                  \
        {                                                                                          \
                F(n, 8), F(n, 16), F(n, 32), F(n, 64)                                              \
        }

step_fn *exec_alu_function(unsigned op, unsigned log2_size, enum alu_form form)
{
        static step_fn *const functions[][4][ALU_FORMS] = {
                ALL(FORMS, add), ALL(FORMS, or),   ALL(FORMS, adc),
                ALL(FORMS, sbb), ALL(FORMS, and),  ALL(FORMS, sub),
                ALL(FORMS, xor), ALL(FORMSR, cmp), ALL(FORMSR, test),
        };
        return functions[op - OP_ADD][log2_size][form];
}

/* ---- one operand ---- */

#define DEFINE_UNARY_OP(name, mnemonic, mask, bits, suffix)                                        \
        static inline uint##bits##_t un_##name##bits(uint##bits##_t a, uint64_t *flags)            \
        {                                                                                          \
                uint32_t ax;                                                                       \
                __asm__(mnemonic suffix " %[a]\n\tlahf\n\tseto %%al"                               \
                        : [a] "+q"(a), "=&a"(ax)                                                   \
                        :                                                                          \
                        : "cc");                                                                   \
                *flags = merge_flags(*flags, ax, mask);                                            \
                return a;                                                                          \
        }                                                                                          \
        static void name##bits##_r(struct cpu *cpu, const struct step *st)                         \
        {                                                                                          \
                uint##bits##_t r = un_##name##bits(SLOT(cpu, uint##bits##_t, st->dst),             \
                                                   &cpu->s.rflags);                                \
                REG_WRITE(cpu, st->dst, r, bits);                                                  \
        }                                                                                          \
        static void name##bits##_m(struct cpu *cpu, const struct step *st)                         \
        {                                                                                          \
                uint64_t at = step_linear(cpu, st, bits / 8, true);                                \
                uint64_t flags = cpu->s.rflags;                                                    \
                cpu_probe_write(cpu, at, bits / 8);                                                \
                uint##bits##_t a = load##bits(cpu, at);                                            \
                store##bits(cpu, at, un_##name##bits(a, &flags));                                  \
                cpu->s.rflags = flags;                                                             \
        }                                                                                          \
        static void name##bits##_l(struct cpu *cpu, const struct step *st)                         \
        {                                                                                          \
                uint64_t at = step_linear(cpu, st, bits / 8, true);                                \
                unaligned##bits *p = mem_atomic(cpu, at, bits / 8);                                \
                if (!p) {                                                                          \
                        name##bits##_m(cpu, st);                                                   \
                        return;                                                                    \
                }                                                                                  \
                uint##bits##_t old = *(volatile unaligned##bits *)p, desired;                      \
                uint64_t flags;                                                                    \
                uint8_t done = 0;                                                                  \
                for (;;) {                                                                         \
                        flags = cpu->s.rflags;                                                     \
                        desired = un_##name##bits(old, &flags);                                    \
                        __asm__ volatile("lock cmpxchg %[n], %[p]\n\tsete %[d]"                    \
                                         : "+a"(old), [p] "+m"(*p), [d] "=q"(done)                 \
                                         : [n] "q"(desired)                                        \
                                         : "memory", "cc");                                        \
                        if (done)                                                                  \
                                break;                                                             \
                }                                                                                  \
                cpu->s.rflags = flags;                                                             \
        }
#define DEFINE_UNARY(name, mnemonic, mask)                                                         \
        DEFINE_UNARY_OP(name, mnemonic, mask, 8, "b")                                              \
        DEFINE_UNARY_OP(name, mnemonic, mask, 16, "w")                                             \
        DEFINE_UNARY_OP(name, mnemonic, mask, 32, "l")                                             \
        DEFINE_UNARY_OP(name, mnemonic, mask, 64, "q")
DEFINE_UNARY(inc, "inc", FLAGS_ARITHMETIC & ~FLAG_CF)
DEFINE_UNARY(dec, "dec", FLAGS_ARITHMETIC & ~FLAG_CF)
DEFINE_UNARY(not, "not", 0)
DEFINE_UNARY(neg, "neg", FLAGS_ARITHMETIC)

#define UFORMS(n, b)                                                                               \
        {                                                                                          \
                n##b##_r, n##b##_m, n##b##_l                                                       \
        }

step_fn *exec_unary_function(unsigned op, unsigned log2_size, enum unary_form form)
{
        static step_fn *const functions[][4][UNARY_FORMS] = {
                ALL(UFORMS, inc),
                ALL(UFORMS, dec),
                ALL(UFORMS, not ),
                ALL(UFORMS, neg),
        };
        return functions[op - OP_INC][log2_size][form];
}

/* ---- MOV ---- */

#define DEFINE_MOV(name, bits)                                                                     \
        static void name##bits##_rr(struct cpu *cpu, const struct step *st)                        \
        {                                                                                          \
                REG_WRITE(cpu, st->dst, SLOT(cpu, uint##bits##_t, st->src), bits);                 \
        }                                                                                          \
        static void name##bits##_rm(struct cpu *cpu, const struct step *st)                        \
        {                                                                                          \
                REG_WRITE(cpu, st->dst, load##bits(cpu, step_linear(cpu, st, bits / 8, false)),    \
                          bits);                                                                   \
        }                                                                                          \
        static void name##bits##_mr(struct cpu *cpu, const struct step *st)                        \
        {                                                                                          \
                store##bits(cpu, step_linear(cpu, st, bits / 8, true),                             \
                            SLOT(cpu, uint##bits##_t, st->src));                                   \
        }                                                                                          \
        static void name##bits##_ri(struct cpu *cpu, const struct step *st)                        \
        {                                                                                          \
                REG_WRITE(cpu, st->dst, st->i.imm, bits);                                          \
        }                                                                                          \
        static void name##bits##_mi(struct cpu *cpu, const struct step *st)                        \
        {                                                                                          \
                store##bits(cpu, step_linear(cpu, st, bits / 8, true), (uint##bits##_t)st->i.imm); \
        }
SIZES(DEFINE_MOV, mov)

step_fn *exec_mov_function(unsigned log2_size, enum alu_form form)
{
        static step_fn *const functions[4][ALU_FORMS] = ALL(FORMSR, mov);
        return functions[log2_size][form];
}

/* ---- shifts and rotates ---- */

#define SHIFT_FLAGS  FLAGS_ARITHMETIC
#define ROTATE_FLAGS (FLAG_CF | FLAG_OF)

#define DEFINE_SHIFT_OP(name, mnemonic, carry, mask, bits, suffix)                                 \
        static inline uint##bits##_t sh_##name##bits(uint##bits##_t a, uint8_t count,              \
                                                     uint64_t *flags)                              \
        {                                                                                          \
                uint32_t ax;                                                                       \
                if (!(count & (bits == 64 ? 63 : 31)))                                             \
                        return a;                                                                  \
                __asm__(carry mnemonic suffix " %%cl, %[a]\n\tlahf\n\tseto %%al"                   \
                        : [a] "+q"(a), "=&a"(ax)                                                   \
                        : "c"(count), [f] "r"((uint32_t)*flags)                                    \
                        : "cc");                                                                   \
                *flags = merge_flags(*flags, ax, mask);                                            \
                return a;                                                                          \
        }                                                                                          \
        static void name##bits##_r(struct cpu *cpu, const struct step *st)                         \
        {                                                                                          \
                uint8_t count = (uint8_t)(st->count_in_cl ? cpu->s.gpr[CPU_RCX] : st->i.imm);      \
                uint##bits##_t r = sh_##name##bits(SLOT(cpu, uint##bits##_t, st->dst), count,      \
                                                   &cpu->s.rflags);                                \
                REG_WRITE(cpu, st->dst, r, bits);                                                  \
        }                                                                                          \
        static void name##bits##_m(struct cpu *cpu, const struct step *st)                         \
        {                                                                                          \
                uint8_t count = (uint8_t)(st->count_in_cl ? cpu->s.gpr[CPU_RCX] : st->i.imm);      \
                uint64_t at = step_linear(cpu, st, bits / 8, true);                                \
                uint64_t flags = cpu->s.rflags;                                                    \
                cpu_probe_write(cpu, at, bits / 8);                                                \
                uint##bits##_t a = load##bits(cpu, at);                                            \
                store##bits(cpu, at, sh_##name##bits(a, count, &flags));                           \
                cpu->s.rflags = flags;                                                             \
        }
#define DEFINE_SHIFT(name, mnemonic, carry, mask)                                                  \
        DEFINE_SHIFT_OP(name, mnemonic, carry, mask, 8, "b")                                       \
        DEFINE_SHIFT_OP(name, mnemonic, carry, mask, 16, "w")                                      \
        DEFINE_SHIFT_OP(name, mnemonic, carry, mask, 32, "l")                                      \
        DEFINE_SHIFT_OP(name, mnemonic, carry, mask, 64, "q")
DEFINE_SHIFT(rol, "rol", CARRY_NO, ROTATE_FLAGS)
DEFINE_SHIFT(ror, "ror", CARRY_NO, ROTATE_FLAGS)
DEFINE_SHIFT(rcl, "rcl", CARRY_IN, ROTATE_FLAGS)
DEFINE_SHIFT(rcr, "rcr", CARRY_IN, ROTATE_FLAGS)
DEFINE_SHIFT(shl, "shl", CARRY_NO, SHIFT_FLAGS)
DEFINE_SHIFT(shr, "shr", CARRY_NO, SHIFT_FLAGS)
DEFINE_SHIFT(sar, "sar", CARRY_NO, SHIFT_FLAGS)

#define SFORMS(n, b)                                                                               \
        {                                                                                          \
                n##b##_r, n##b##_m                                                                 \
        }

step_fn *exec_shift_function(unsigned op, unsigned log2_size, bool memory)
{
        static step_fn *const functions[][4][2] = {
                ALL(SFORMS, rol), ALL(SFORMS, ror), ALL(SFORMS, rcl), ALL(SFORMS, rcr),
                ALL(SFORMS, shl), ALL(SFORMS, shr), ALL(SFORMS, shl), ALL(SFORMS, sar),
        };
        return functions[op - OP_ROL][log2_size][memory];
}

/* ---- double shifts ---- */

#define DOUBLE_SHIFT(T, mnemonic, suffix)                                                          \
        do {                                                                                       \
                T a_ = (T)a, b_ = (T)b;                                                            \
                __asm__(mnemonic suffix " %%cl, %[b], %[a]\n\tlahf\n\tseto %%al"                   \
                        : [a] "+r"(a_), "=&a"(ax)                                                  \
                        : [b] "r"(b_), "c"(count)                                                  \
                        : "cc");                                                                   \
                a = a_;                                                                            \
        } while (0)

void exec_shift_double(struct cpu *cpu, const struct step *st)
{
        unsigned size = st->size;
        uint8_t count = (uint8_t)(st->count_in_cl ? cpu->s.gpr[CPU_RCX] : st->i.imm);
        bool left = st->i.op == OP_SHLD;
        uint64_t at = 0, a, b = reg_get(cpu, st->src, size);
        uint32_t ax;
        if (st->i.is_mem) {
                at = step_linear(cpu, st, size, true);
                cpu_probe_write(cpu, at, size);
                a = load_size(cpu, at, size);
        } else {
                a = reg_get(cpu, st->dst, size);
        }
        uint64_t flags = cpu->s.rflags;
        if (count & (size == 8 ? 63 : 31)) {
                if (size == 2 && left)
                        DOUBLE_SHIFT(uint16_t, "shld", "w");
                else if (size == 2)
                        DOUBLE_SHIFT(uint16_t, "shrd", "w");
                else if (size == 4 && left)
                        DOUBLE_SHIFT(uint32_t, "shld", "l");
                else if (size == 4)
                        DOUBLE_SHIFT(uint32_t, "shrd", "l");
                else if (left)
                        DOUBLE_SHIFT(uint64_t, "shld", "q");
                else
                        DOUBLE_SHIFT(uint64_t, "shrd", "q");
                flags = merge_flags(flags, ax, SHIFT_FLAGS);
        }
        if (st->i.is_mem)
                store_size(cpu, at, a, size);
        else
                reg_set(cpu, st->dst, a, size);
        cpu->s.rflags = flags;
}
