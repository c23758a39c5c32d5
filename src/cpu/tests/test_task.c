/* Hardware task switches in 32-bit protected mode without paging: task A at CODE_A, task B
 * at CODE_B, a GDT and an IDT of their own. */
#include "cpu/tests/guest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define CODE(name, text)                                                                           \
        __asm__(".pushsection .rodata\n.intel_syntax noprefix\n.code32\n" #name ":\n" text         \
                "\n" #name "_end:\n.code64\n.att_syntax prefix\n.popsection\n");                   \
        extern const uint8_t name[], name##_end[]

#define GDT     0x2000u
#define IDT     0x3000u
#define TSS_A   0x4000u
#define TSS_B   0x4100u
#define MARK    0x5000u
#define CODE_A  0x8000u
#define CODE_B  0x9000u
#define STACK_B 0xa000u

#define SEL_CODE  0x08
#define SEL_DATA  0x10
#define SEL_A     0x18
#define SEL_B     0x20
#define SEL_GATE  0x28
#define TASK_EIP  0x20
#define TASK_FLAG 0x24
#define TASK_ESP  0x38
#define TASK_SEGS 0x48
#define FLAG_NT   0x4000u
#define CR0_TS    8u

static uint32_t get32(const struct guest *g, uint32_t at)
{
        uint32_t value;
        memcpy(&value, g->ram + at, 4);
        return value;
}

static void put32(struct guest *g, uint32_t at, uint32_t value)
{
        memcpy(g->ram + at, &value, 4);
}

static void put_tss_descriptor(struct guest *g, unsigned selector, uint32_t base, uint32_t type)
{
        put32(g, GDT + selector, base << 16 | 0x67);
        put32(g, GDT + selector + 4, base >> 16 | (0x80 | type) << 8);
}

static struct cpu_state *setup(struct guest *g, const uint8_t *a, const uint8_t *a_end,
                               const uint8_t *b, const uint8_t *b_end)
{
        static const uint64_t flat[] = { 0, 0x00cf9b000000ffff, 0x00cf93000000ffff };
        guest_create(g);
        memcpy(g->ram + GDT, flat, sizeof(flat));
        put_tss_descriptor(g, SEL_A, TSS_A, 0xb);
        put_tss_descriptor(g, SEL_B, TSS_B, 0x9);
        put32(g, GDT + SEL_GATE, SEL_B << 16);
        put32(g, GDT + SEL_GATE + 4, 0x8500);
        put32(g, IDT + 13 * 8, SEL_B << 16); /* #GP is a task */
        put32(g, IDT + 13 * 8 + 4, 0x8500);
        put32(g, TSS_B + TASK_EIP, CODE_B);
        put32(g, TSS_B + TASK_FLAG, 2);
        put32(g, TSS_B + TASK_ESP, STACK_B);
        for (unsigned i = 0; i < CPU_SEGS; i++)
                put32(g, TSS_B + TASK_SEGS + 4 * i, i == CPU_CS ? SEL_CODE : SEL_DATA);
        memcpy(g->ram + CODE_A, a, (size_t)(a_end - a));
        memcpy(g->ram + CODE_B, b, (size_t)(b_end - b));
        struct cpu_state *s = cpu_state(g->cpu);
        s->cr0 = 0x11;
        s->rip = CODE_A;
        s->rflags = 2;
        s->gpr[CPU_RSP] = 0xb000;
        for (unsigned i = 0; i < CPU_SEGS; i++)
                s->seg[i] = (struct cpu_segment){ 0,
                                                  0xffffffff,
                                                  i == CPU_CS ? 0xc09b : 0xc093,
                                                  i == CPU_CS ? SEL_CODE : SEL_DATA,
                                                  { 0 } };
        s->gdtr = (struct cpu_table){ .base = GDT, .limit = 0x2f };
        s->idtr = (struct cpu_table){ .base = IDT, .limit = 0x7f };
        s->tr = (struct cpu_segment){ TSS_A, 0x67, 0x8b, SEL_A, { 0 } };
        cpu_state_changed(g->cpu);
        return s;
}

static bool busy(const struct guest *g, unsigned selector)
{
        return g->ram[GDT + selector + 5] & 2;
}

/* Far transfers by bytes: clang has no such syntax. */
CODE(call_b, "mov ebx, 1; .byte 0x9a; .long 0; .word 0x20\n mov eax, [0x5000]; hlt");
CODE(call_gate, "mov ebx, 1; .byte 0x9a; .long 0; .word 0x28\n mov eax, [0x5000]; hlt");
CODE(b_returns, "mov ebx, 7; mov [0x5000], ebx; iret");

static void a_task_is_called_and_returns(void **state)
{
        (void)state;
        for (unsigned gate = 0; gate < 2; gate++) {
                struct guest g;
                struct cpu_state *s = setup(&g, gate ? call_gate : call_b,
                                            gate ? call_gate_end : call_b_end, b_returns,
                                            b_returns_end);
                assert_int_equal(cpu_run(g.cpu, 100), CPU_EXIT_HALT);
                assert_int_equal(s->gpr[CPU_RAX], 7);
                assert_int_equal(s->gpr[CPU_RBX], 1); /* A's own */
                assert_int_equal(s->gpr[CPU_RSP], 0xb000);
                assert_int_equal(s->tr.selector, SEL_A);
                assert_int_equal(s->cr0 & CR0_TS, CR0_TS);
                assert_true(busy(&g, SEL_A));
                assert_false(busy(&g, SEL_B));
                assert_int_equal(get32(&g, TSS_B) & 0xffff, SEL_A);
                assert_int_equal(get32(&g, TSS_B + TASK_FLAG) & FLAG_NT, 0);
                assert_int_equal(get32(&g, TSS_B + TASK_EIP), CODE_B + b_returns_end - b_returns);
                guest_destroy(&g);
        }
}

CODE(jump_b, ".byte 0xea; .long 0; .word 0x20");
CODE(b_halts, "mov eax, 5; hlt");

static void a_jump_leaves_no_way_back(void **state)
{
        (void)state;
        struct guest g;
        struct cpu_state *s = setup(&g, jump_b, jump_b_end, b_halts, b_halts_end);
        assert_int_equal(cpu_run(g.cpu, 100), CPU_EXIT_HALT);
        assert_int_equal(s->gpr[CPU_RAX], 5);
        assert_int_equal(s->rflags & FLAG_NT, 0);
        assert_false(busy(&g, SEL_A));
        assert_true(busy(&g, SEL_B));
        assert_int_equal(get32(&g, TSS_A + TASK_EIP), CODE_A + jump_b_end - jump_b);
        guest_destroy(&g);
}

CODE(faults, "nop; mov ax, 0x1230; mov es, eax");
CODE(b_takes_error, "pop eax; hlt");

static void a_fault_may_be_a_task(void **state)
{
        (void)state;
        struct guest g;
        struct cpu_state *s = setup(&g, faults, faults_end, b_takes_error, b_takes_error_end);
        assert_int_equal(cpu_run(g.cpu, 100), CPU_EXIT_HALT);
        assert_int_equal(s->gpr[CPU_RAX], 0x1230);
        assert_int_equal(s->gpr[CPU_RSP], STACK_B);
        assert_int_equal(s->rflags & FLAG_NT, FLAG_NT);
        assert_int_equal(get32(&g, TSS_A + TASK_EIP), CODE_A + 5); /* the instruction itself */
        guest_destroy(&g);
}

/* What is wrong with the new task's segments is its own #TS; here nobody takes it. */
static void what_cannot_be_entered_faults(void **state)
{
        (void)state;
        static const struct {
                uint32_t at, value;
                bool in_old_task;
        } cases[] = {
                { GDT + SEL_B + 4, 0x8b00, true },                  /* busy */
                { GDT + SEL_B, TSS_B << 16 | 0x66, true },          /* too short */
                { TSS_B + TASK_SEGS + 4 * CPU_SS, SEL_CODE, false } /* not a stack */
        };
        for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                struct guest g;
                struct cpu_state *s = setup(&g, jump_b, jump_b_end, b_halts, b_halts_end);
                put32(&g, cases[i].at, cases[i].value);
                s->idtr.limit = 0;
                assert_int_equal(cpu_run(g.cpu, 100), CPU_EXIT_SHUTDOWN);
                assert_int_equal(s->tr.selector, cases[i].in_old_task ? SEL_A : SEL_B);
                assert_int_equal(s->rip, cases[i].in_old_task ? CODE_A : CODE_B);
                guest_destroy(&g);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_task_is_called_and_returns),
                cmocka_unit_test(a_jump_leaves_no_way_back),
                cmocka_unit_test(a_fault_may_be_a_task),
                cmocka_unit_test(what_cannot_be_entered_faults),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
