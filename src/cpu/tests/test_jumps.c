/* Indirect jumps: what the code they lead to finds of the flags, and that nothing is missed by
 * code that is made of them. */
#include "cpu/tests/guest.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define ROUNDS 200u /* enough to be translated */

/* Jumps r15 times to where rbx and rbp say in turns. One target adds up in r8 what flags it
 * finds, the other has its own. `writer` is what wrote flags last; r12 to r14 are its
 * operands, and others in each round. */
#define JUMPS(name, writer)                                                                        \
        GUEST_CODE(name, 64,                                                                       \
                   "1: imul r12, r12, 0x41c64e6d; add r12, 0x3039; mov r13, r12; rol r13, 23\n"    \
                   "mov r14, r12; bswap r14; xchg rbx, rbp; cmp r15, 3\n" writer "\n"              \
                   "jmp rbx\n"                                                                     \
                   ".globl " #name "_reads, " #name "_writes\n" #name "_reads:\n"                  \
                   "pushfq; pop rcx; and ecx, 0x8c5; rol r8, 3; add r8, rcx; add r8, r12\n"        \
                   "dec r15; jnz 1b; ud2\n" #name "_writes:\n"                                     \
                   "add r8, r13; dec r15; jnz 1b; ud2");                                           \
        extern const uint8_t name##_reads[], name##_writes[]

JUMPS(jumps_after_add, "add r12, r14");
JUMPS(jumps_after_add_imm, "add r12d, -5");
JUMPS(jumps_after_add_self, "add r12, r12");
JUMPS(jumps_after_sub, "sub r14d, r13d");
JUMPS(jumps_after_sub_imm, "sub r13, 0x12345678; mov r14, r12");
JUMPS(jumps_after_cmp, "cmp r12, r13; lea rdi, [r12+r13]");
JUMPS(jumps_after_cmp_gone, "cmp r12, r13; mov r12, r14");
JUMPS(jumps_after_test, "test r13d, r14d; mov rsi, [rsp-64]");
JUMPS(jumps_after_and, "and r12, r13; mov rsi, [rsp-64]; mov [rsp-72], rsi");
JUMPS(jumps_after_xor, "xor r13d, r14d");
JUMPS(jumps_after_or_byte, "or r13b, r14b");
JUMPS(jumps_after_inc, "inc r12");
JUMPS(jumps_after_shift, "shr r13, 3");
JUMPS(jumps_after_carry, "cmp r12, r13; adc r13, r14; setc sil");
JUMPS(jumps_after_stack, "push rbx; sub rsp, 24; mov [rsp], r12; add rsp, 16; pop rdi; ret");
JUMPS(jumps_beside_common, "mov r9, r12; mov r10, [rsp-64]; sub r12, r13");
JUMPS(jumps_with_common, "mov r10, r12; sub r10, r13; mov r11, [rsp-64]");

struct jumps {
        const uint8_t *code, *end, *reads, *writes;
};
#define ROW(name)                                                                                  \
        {                                                                                          \
                name, name##_end, name##_reads, name##_writes                                      \
        }

static const struct jumps all[] = {
        ROW(jumps_after_add),      ROW(jumps_after_add_imm), ROW(jumps_after_add_self),
        ROW(jumps_after_sub),      ROW(jumps_after_sub_imm), ROW(jumps_after_cmp),
        ROW(jumps_after_cmp_gone), ROW(jumps_after_test),    ROW(jumps_after_and),
        ROW(jumps_after_xor),      ROW(jumps_after_or_byte), ROW(jumps_after_inc),
        ROW(jumps_after_shift),    ROW(jumps_after_carry),   ROW(jumps_with_common),
        ROW(jumps_beside_common),  ROW(jumps_after_stack),
};

static uint64_t sum(const struct jumps *j, enum cpu_translation translation)
{
        struct guest g;
        guest_create(&g);
        struct cpu_state *s = guest_code(&g, true, j->code, j->end);
        cpu_set_translation(g.cpu, translation);
        s->gpr[CPU_RBX] = USER_CODE + (uint64_t)(j->reads - j->code);
        s->gpr[CPU_RBP] = USER_CODE + (uint64_t)(j->writes - j->code);
        s->gpr[CPU_RSP] = USER_DATA + 0x800;
        s->gpr[8] = 0;
        s->gpr[15] = ROUNDS;
        s->gpr[12] = 77;
        assert_int_equal(guest_run(&g, CPU_NO_BUDGET).vector, 6);
        uint64_t result = s->gpr[8];
        guest_destroy(&g);
        return result;
}

static void flags_are_there_for_who_reads_them_behind_a_jump(void **state)
{
        (void)state;
        for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
                uint64_t expected = sum(&all[i], CPU_TRANSLATE_NEVER);
                assert_int_equal(sum(&all[i], CPU_TRANSLATE_ALWAYS), expected);
                assert_int_equal(sum(&all[i], CPU_TRANSLATE_HOT), expected);
        }
}

/* Blocks of a loop that use all registers between them, so that none is left to be a temporary of
 * both; later it goes by an instruction that crosses into the next page. */
GUEST_CODE(crowded, 64,
           "1: add rax, rbx; add rbx, rdx; xor rdx, rsi; add rsi, rdi; ror rdi, 7; add rbp, r8\n"
           "xor r8, r9; add r9, r10; xor r10, r11; add r11, r12; rol r12, 9; dec ecx; jz 3f\n"
           "add r13, r14; xor r14, r15; add r15, r13; rol r15, 5; cmp ecx, 100; jb 2f; jmp 1b\n"
           "3: ud2; .org crowded + 4093; 2: add rbx, 0x1234567; jmp 1b");

static void run_crowded(enum cpu_translation translation, uint64_t ret[16])
{
        struct guest g;
        guest_create(&g);
        struct cpu_state *s = guest_code(&g, true, crowded, crowded_end);
        cpu_set_translation(g.cpu, translation);
        for (unsigned r = 0; r < 16; r++)
                s->gpr[r] = r * 0x0123456789abcdefull;
        s->gpr[CPU_RCX] = ROUNDS;
        s->gpr[CPU_RSP] = USER_DATA + 0x800;
        assert_int_equal(guest_run(&g, CPU_NO_BUDGET).vector, 6);
        memcpy(ret, s->gpr, sizeof(s->gpr));
        guest_destroy(&g);
}

static void registers_stay_where_none_is_left_for_temporaries(void **state)
{
        (void)state;
        uint64_t expected[16], found[16];
        run_crowded(CPU_TRANSLATE_NEVER, expected);
        run_crowded(CPU_TRANSLATE_ALWAYS, found);
        assert_memory_equal(found, expected, sizeof(found));
        run_crowded(CPU_TRANSLATE_HOT, found);
        assert_memory_equal(found, expected, sizeof(found));
}

/* A loop of one indirect jump, to the place of the jump table that all look at while somebody
 * wants the dispatcher. It counts where the test can see. */
GUEST_CODE(turns, 64, "inc qword ptr [rbp]; jmp rbx");

#define KICKS 20u

struct kicks {
        struct cpu *cpu;
        const uint64_t *count;
};

/* When the loop has come far enough to be translated. */
static void *kick(void *arg)
{
        const struct kicks *k = arg;
        uint64_t from = __atomic_load_n(k->count, __ATOMIC_RELAXED);
        while (__atomic_load_n(k->count, __ATOMIC_RELAXED) - from < 100)
                ;
        cpu_kick(k->cpu);
        return NULL;
}

static void a_loop_of_one_indirect_jump_is_left(void **state)
{
        (void)state;
        struct guest g;
        guest_create(&g);
        struct cpu_state *s = guest_code(&g, true, turns, turns_end);
        s->gpr[CPU_RBP] = s->gpr[CPU_RBX];
        s->gpr[CPU_RBX] = USER_CODE;
        struct kicks kicks = { g.cpu,
                               (const uint64_t *)(const void *)(g.ram + GUEST_FREE + 0x2000) };
        for (unsigned n = 0; n < KICKS; n++) {
                pthread_t thread;
                assert_int_equal(pthread_create(&thread, NULL, kick, &kicks), 0);
                assert_int_equal(cpu_run(g.cpu, CPU_NO_BUDGET), CPU_EXIT_KICK);
                pthread_join(thread, NULL);
        }
        guest_destroy(&g);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(flags_are_there_for_who_reads_them_behind_a_jump),
                cmocka_unit_test(registers_stay_where_none_is_left_for_temporaries),
                cmocka_unit_test(a_loop_of_one_indirect_jump_is_left),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
