/* A storm over translated code: a program of everything that the translator treats in its
 * own way, while another thread interrupts it and this one takes its translations, its TLB
 * entries and its decoded code away at whatever boundary that comes to. It must not notice.
 */
#include "cpu/tests/guest.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define VECTOR   0x40u
#define TURNS    "30000"
#define STORMS   3u
#define SHORT    2000u /* turns of a counting loop between two inputs, at most */
#define CROSSING 4091  /* where an instruction of ten bytes crosses into the next page */
#define TEXT_(x) #x
#define TEXT(x)  TEXT_(x)

/* rbx: two pages of data. The sum of everything ends in r8, xmm0, ymm5 and st0. */
GUEST_CODE(program, 64,
           "fld1; mov ecx, " TURNS "; xor r8d, r8d; xorps xmm0, xmm0; vxorps ymm5, ymm5, ymm5\n"
           "1: lea eax, [rcx + rcx * 8]; and eax, 0xfff\n"
           "mov [rbx + rax], r8; add r8, [rbx + rax]\n" /* over the page's end now and then */
           "mov rdx, 0x9e3779b97f4a7c15; imul rdx, r8; rol r8, 7; adc r8, rdx\n"
           "push r8; push rcx; push rdx; call 2f; pop rdx; pop rcx; pop r9\n"
           "xor r8, r9; add r8, rax\n"
           "cvtsi2sd xmm1, ecx; addsd xmm0, xmm1; sqrtsd xmm2, xmm0; movq r10, xmm2; add r8, r10\n"
           "mov edx, 6; 8: add r8, rdx; rol r8, 3; dec edx; jnz 8b\n"
           "mov edx, 6; 9: test edx, 1; jz 10f; add [rbx + 40], r8; 10: dec edx; jnz 9b\n"
           "jmp 3f\n"
           ".skip " TEXT(
                   CROSSING) " - (. - program)\n"
                             "3: mov r11, 0x1122334455667788; xor r8, r11\n" /* crosses */
                             "vmovq xmm3, r8; vinsertf128 ymm4, ymm3, xmm0, 1; vaddpd ymm5, ymm5, "
                             "ymm4\n"
                             "test ecx, 7; jnz 4f; vzeroupper; 4:\n"
                             "mov [rbx + 64], ecx; fild dword ptr [rbx + 64]; fadd st(1), st; "
                             "fxch; fsqrt; faddp\n"
                             "mov eax, ecx; lea rsi, [rbx + 16]; lea rdi, [rbx + 0xff0]; mov ecx, "
                             "50; rep movsb\n"
                             "mov ecx, eax; cmp r8, r9; setb al; movzx eax, al; mov [rbx + 8], r8\n"
                             "lahf; mov [rbx + 4], ah; xor r8, [rbx + 8]; add r8, [rbx + 4]; add "
                             "r8, r9\n"
                             "lea rdx, [rip + 5f]; test ecx, 15; jnz 6f; mov byte ptr [rdx + 1], "
                             "cl; 6: call rdx\n"
                             "add r8, rax; dec ecx; jnz 1b; ud2\n"
                             "2: sub rsp, 24; mov [rsp], rdx; mov [rsp + 8], r8; mov rax, [rsp]; "
                             "add rax, [rsp + 8]\n"
                             "add rsp, 24; test dl, 1; jz 7f; ret; 7: ret 0\n"
                             "5: mov eax, 0; ret\n"); /* with a constant that changes */

static void copy_program(struct guest *g)
{
        for (size_t at = 0; at < (size_t)(program_end - program); at++)
                g->ram[GUEST_FREE + at] = program[at];
        cpu_memory_written(&g->memory, GUEST_FREE, (uint64_t)(program_end - program));
}

/* ---- the other thread ---- */

static atomic_bool over;
static atomic_uint interrupts;
static struct cpu *victim;

static int on_acknowledge(void *arg)
{
        (void)arg;
        cpu_set_irq(victim, false);
        atomic_fetch_add(&interrupts, 1);
        return VECTOR;
}

static uint32_t next_random(uint32_t *state)
{
        *state = *state * 1664525u + 1013904223u;
        return *state >> 8;
}

static void *disturb(void *arg)
{
        uint32_t seed = *(const uint32_t *)arg;
        while (!atomic_load(&over)) {
                uint32_t random = next_random(&seed);
                for (volatile unsigned wait = random % SHORT; wait; wait--)
                        ;
                if (random & 0x10000)
                        cpu_set_irq(victim, true);
                else
                        cpu_kick(victim);
        }
        return NULL;
}

/* ---- the comparison ---- */

struct outcome {
        struct cpu_state state;
        uint8_t data[8192];
};

static void take_away(struct cpu *cpu, uint32_t random)
{
        if (random % 4 == 1)
                cpu_state_changed(cpu); /* the TLB, and jump tables with it */
        else if (random % 64 == 2)
                cpu_flush(cpu);
        else if (random % 64 == 3)
                cpu_trim(cpu);
}

static void run(bool storm, uint32_t seed, struct outcome *ret)
{
        static const uint8_t handler[] = { 0x50, 0x31, 0xc0, 0x58, 0x48, 0xcf };
        struct guest g;
        guest_create(&g);
        g.bus.interrupt_acknowledge = on_acknowledge;
        struct cpu_state *s = guest_code(&g, true, program, program);
        copy_program(&g);
        /* push rax; xor eax, eax; pop rax; iretq */
        memcpy(g.ram + GUEST_HANDLERS + VECTOR * 16, handler, sizeof(handler));
        s->rflags |= 0x200;
        s->cr0 &= ~8ull;
        cpu_state_changed(g.cpu);
        cpu_set_translation(g.cpu, storm ? CPU_TRANSLATE_HOT : CPU_TRANSLATE_NEVER);
        victim = g.cpu;
        atomic_store(&over, !storm);
        pthread_t thread;
        uint32_t random = seed;
        assert_int_equal(pthread_create(&thread, NULL, disturb, &seed), 0);
        enum cpu_exit exit;
        while ((exit = cpu_run(g.cpu, CPU_NO_BUDGET)) == CPU_EXIT_KICK)
                take_away(g.cpu, next_random(&random));
        atomic_store(&over, true);
        pthread_join(thread, NULL);
        assert_int_equal(exit, CPU_EXIT_HALT);
        ret->state = *cpu_state(g.cpu);
        memcpy(ret->data, g.ram + GUEST_FREE + 0x2000, sizeof(ret->data));
        guest_destroy(&g);
}

static void a_program_does_not_notice_a_storm(void **state)
{
        (void)state;
        static struct outcome calm, rough;
        run(false, 1, &calm);
        assert_int_equal(calm.state.gpr[CPU_RCX], 0); /* it came to its end */
        for (uint32_t seed = 1; seed <= STORMS; seed++) {
                atomic_store(&interrupts, 0);
                run(true, seed, &rough);
                assert_true(atomic_load(&interrupts) > 0);
                assert_memory_equal(calm.state.gpr, rough.state.gpr, sizeof(calm.state.gpr));
                assert_memory_equal(calm.state.vec, rough.state.vec, sizeof(calm.state.vec));
                assert_memory_equal(&calm.state.x87, &rough.state.x87, sizeof(calm.state.x87));
                assert_memory_equal(calm.data, rough.data, sizeof(calm.data));
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_program_does_not_notice_a_storm),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
