/* Bit strings: BT, BTS, BTR and BTC with the bit's number in a register, which reaches beyond the
 * operand in memory, against a model; with the other flags needed behind them or not. */
#include "cpu/tests/guest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define PAGE     4096
#define BYTES    (2 * PAGE) /* of USER_DATA, and nothing around them */
#define PHYSICAL (GUEST_FREE + 0x2000u)
#define CASES    40000u
#define ROOM     32u /* bytes of code each */

enum op { BT, BTS, BTR, BTC, OPS };
static const uint8_t opcodes[OPS] = { 0xa3, 0xab, 0xb3, 0xbb };
static const uint8_t registers[] = { CPU_RCX, CPU_RDX, 10, 12 };
#define REGISTERS sizeof(registers)

struct form {
        enum op op;
        unsigned reg;
        bool wide, lock, live;
};

/* cmp rsi, rdi ; the instruction on [rbx+16] ; setc r8b ; setz r9b, or test ebx, ebx ; ud2 */
static void encode(uint8_t *at, const struct form *f)
{
        static const uint8_t compare[] = { 0x48, 0x39, 0xfe }, carry[] = { 0x41, 0x0f, 0x92, 0xc0 },
                             zero[] = { 0x41, 0x0f, 0x94, 0xc1 }, test[] = { 0x85, 0xdb };
        unsigned n = sizeof(compare);
        memcpy(at, compare, sizeof(compare));
        if (f->lock)
                at[n++] = 0xf0;
        at[n++] = (uint8_t)(0x40 | f->wide << 3 | f->reg >> 3 << 2);
        at[n++] = 0x0f;
        at[n++] = opcodes[f->op];
        at[n++] = (uint8_t)(0x43 | (f->reg & 7) << 3);
        at[n++] = 16;
        memcpy(at + n, carry, sizeof(carry));
        n += sizeof(carry);
        memcpy(at + n, f->live ? zero : test, f->live ? sizeof(zero) : sizeof(test));
        n += f->live ? sizeof(zero) : sizeof(test);
        at[n++] = 0x0f;
        at[n] = 0x0b;
}

static unsigned make_forms(struct guest *g, struct form *forms)
{
        unsigned length = 0;
        for (unsigned i = 0; i < OPS * REGISTERS * 8; i++) {
                struct form f = { (enum op)(i % OPS), registers[i / OPS % REGISTERS],
                                  i / OPS / REGISTERS & 1, i / OPS / REGISTERS & 2,
                                  i / OPS / REGISTERS & 4 };
                if (f.lock && f.op == BT)
                        continue;
                encode(g->ram + GUEST_FREE + length * ROOM, &f);
                forms[length++] = f;
        }
        return length;
}

/* A bit's byte is the same whatever the operand's size; only what is read and written with it, and
 * may not be there, depends on it. The vector of what ends the code. */
static int model(const struct form *f, int64_t rbx, uint64_t reg, uint8_t *memory, bool *ret_carry)
{
        int64_t number = f->wide ? (int64_t)reg : (int32_t)reg, bits = f->wide ? 64 : 32;
        int64_t operand = (number - ((number % bits) + bits) % bits) / bits;
        int64_t from = rbx + 16 + operand * (bits / 8) - USER_DATA;
        int64_t linear = from + USER_DATA;
        if ((int64_t)((uint64_t)linear << 16) >> 16 != linear)
                return 13;
        if (from < 0 || from + bits / 8 > BYTES)
                return 14;
        uint64_t bit = (uint64_t)number & (uint64_t)(bits - 1);
        uint8_t *byte = memory + from + bit / 8, mask = (uint8_t)(1u << bit % 8);
        *ret_carry = *byte & mask;
        if (f->op == BTS || (f->op == BTC && !*ret_carry))
                *byte |= mask;
        else if (f->op != BT)
                *byte &= (uint8_t)~mask;
        return 6;
}

static uint64_t below(uint64_t limit)
{
        return (uint64_t)random() % limit;
}

/* Mostly within reach, on both sides, often at the edge of an operand. */
static uint64_t random_number(void)
{
        int64_t number = (int64_t)below(70000) - 35000;
        if (below(2))
                number = (number & ~31) + (int64_t)below(3) - 1;
        if (below(50) == 0)
                number = INT64_MIN + (int64_t)below(2);
        return (uint64_t)number;
}

static void run_one(struct guest *g, const struct form *f, uint64_t rip)
{
        static uint8_t expected[BYTES];
        struct cpu_state *s = cpu_state(g->cpu);
        uint8_t *memory = g->ram + PHYSICAL;
        int64_t rbx = USER_DATA + (int64_t)below(BYTES);
        uint64_t number = random_number(), equal = below(2);
        /* Of 32 bits the others do not count. */
        uint64_t reg = f->wide ? number : (uint32_t)number | (uint64_t)below(1000) << 32;
        bool carry = false;
        memcpy(expected, memory, BYTES);
        int vector = model(f, rbx, reg, expected, &carry);
        s->gpr[CPU_RBX] = (uint64_t)rbx;
        s->gpr[CPU_RSI] = 1;
        s->gpr[CPU_RDI] = equal ? 1 : 2;
        s->gpr[8] = s->gpr[9] = 0;
        s->gpr[f->reg] = reg;
        s->gpr[CPU_RSP] = GUEST_STACK0 - 0x800;
        s->rip = rip;
        s->activity = CPU_RUNNING;
        struct guest_end end = guest_run(g, UINT64_MAX);
        bool as_expected = end.vector == vector && s->gpr[f->reg] == reg &&
                           memcmp(memory, expected, BYTES) == 0;
        if (vector == 6)
                as_expected &= s->gpr[8] == carry && s->gpr[9] == (f->live && equal);
        if (!as_expected)
                fail_msg("opcode %x wide %d lock %d live %d, register %u = %llx, rbx %llx: ends by "
                         "%d for %d, carry %llx for %d, zero %llx for %d, memory %s",
                         opcodes[f->op], f->wide, f->lock, f->live, f->reg, (unsigned long long)reg,
                         (unsigned long long)rbx, end.vector, vector, (unsigned long long)s->gpr[8],
                         carry, (unsigned long long)s->gpr[9], f->live && equal,
                         memcmp(memory, expected, BYTES) ? "differs" : "is right");
}

static void bit_strings_agree_with_the_model(void **state)
{
        (void)state;
        static struct form forms[OPS * REGISTERS * 8];
        static const uint8_t nothing[1];
        struct guest g;
        guest_create(&g);
        guest_code(&g, false, nothing, nothing);
        unsigned length = make_forms(&g, forms);
        srandom(1);
        for (unsigned i = 0; i < BYTES; i++)
                g.ram[PHYSICAL + i] = (uint8_t)random();
        for (unsigned n = 0; n < CASES; n++) {
                unsigned which = (unsigned)below(length);
                if (below(64) == 0)
                        cpu_state_changed(g.cpu); /* with an empty TLB */
                run_one(&g, &forms[which], USER_CODE + which * ROOM);
        }
        /* The interpreter is needed for UD2, the handler's HLT and where the TLB has nothing. */
        if (getenv("GUEST_TRANSLATED"))
                assert_true(cpu_counters(g.cpu)->helper_steps < 2 * CASES + CASES / 8);
        guest_destroy(&g);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(bit_strings_agree_with_the_model),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
