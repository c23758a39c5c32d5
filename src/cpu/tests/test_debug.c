/* Debugging, by the guest itself and by a debugger outside of it. */
#include "cpu/decode.h"
#include "cpu/tests/guest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static struct cpu_state *guest_setup(struct guest *g, bool user, const uint8_t *code,
                                     const uint8_t *end)
{
        guest_create(g);
        return guest_code(g, user, code, end);
}

GUEST_CODE(steps, 64, "inc rax; mov [rbx], rax; inc rax; ud2");

static void the_trap_flag_stops_after_each_instruction(void **state)
{
        (void)state;
        struct guest g;
        struct cpu_state *s = guest_setup(&g, true, steps, steps_end);
        s->rflags |= 0x100;
        cpu_state_changed(g.cpu);
        struct guest_end end = guest_run(&g, 100);
        assert_int_equal(end.vector, 1);
        assert_int_equal(end.rip, USER_CODE + 3);
        assert_int_equal(s->dr6 & 0x4000, 0x4000);
        assert_int_equal(end.rflags & 0x100, 0x100);
        assert_int_equal(s->rflags & 0x100, 0);
        guest_destroy(&g);
}

GUEST_CODE(held_steps, 64, "mov ss, [rbx]; int3; ud2");

/* The watched word that MOV SS loads: its trap comes after the next instruction. */
static void mov_ss_holds_back_a_watchpoint(void **state)
{
        (void)state;
        struct guest g;
        struct cpu_state *s = guest_setup(&g, false, held_steps, held_steps_end);
        static const uint16_t data = GUEST_DATA;
        memcpy(g.ram + GUEST_FREE + 0x2000, &data, 2);
        s->dr[1] = USER_DATA;
        s->dr7 = 0x404 | 7ull << 20; /* two bytes, reads and writes */
        cpu_state_changed(g.cpu);
        struct guest_end end = guest_run(&g, 100);
        assert_int_equal(end.vector, 1);
        assert_int_equal(end.rip, (GUEST_HIGH | GUEST_HANDLERS) + 16 * 3); /* INT3 was first */
        assert_int_equal(s->dr6 & 0xf, 2);
        guest_destroy(&g);
}

GUEST_CODE(sti_steps, 64, "sti; inc rax; ud2");
GUEST_CODE(int1_steps, 64, ".byte 0xf1; inc rax; ud2");
GUEST_CODE(hlt_steps, 64, "hlt; inc rax; ud2");

static void the_trap_flag_and_instructions_with_a_say_in_it(void **state)
{
        (void)state;
        static const struct {
                const uint8_t *code, *end;
                uint64_t single_step; /* whether DR6 calls it one */
        } cases[] = {
                { sti_steps, sti_steps_end, 0x4000 }, /* holds back interrupts, not traps */
                { int1_steps, int1_steps_end, 0 },    /* its gate clears TF */
                { hlt_steps, hlt_steps_end, 0x4000 }, /* which the trap ends */
        };
        for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                struct guest g;
                struct cpu_state *s = guest_setup(&g, false, cases[i].code, cases[i].end);
                s->rflags = 0x102;
                cpu_state_changed(g.cpu);
                struct guest_end end = guest_run(&g, 100);
                assert_int_equal(end.vector, 1);
                assert_int_equal(end.rip, USER_CODE + 1);
                assert_int_equal(s->dr6 & 0x4000, cases[i].single_step);
                guest_destroy(&g);
        }
}

static void debug_registers_break_on_execution_and_on_writes(void **state)
{
        (void)state;
        struct guest g;
        struct cpu_state *s = guest_setup(&g, true, steps, steps_end);
        s->dr[0] = USER_CODE + 6; /* the second INC: a fault, before it */
        s->dr7 = 0x401;
        s->dr6 = 0xffff4ff2; /* of earlier hits only B0 to B3 are replaced */
        cpu_state_changed(g.cpu);
        struct guest_end end = guest_run(&g, 100);
        assert_int_equal(end.vector, 1);
        assert_int_equal(end.rip, USER_CODE + 6);
        assert_int_equal(s->dr6, 0xffff4ff1);
        guest_destroy(&g);

        s = guest_setup(&g, true, steps, steps_end);
        s->dr[1] = USER_DATA; /* 8 bytes, writes: a trap, after it */
        s->dr7 = 0x404 | 9ull << 20;
        cpu_state_changed(g.cpu);
        end = guest_run(&g, 100);
        assert_int_equal(end.vector, 1);
        assert_int_equal(end.rip, USER_CODE + 6);
        assert_int_equal(s->dr6 & 0xf, 2);
        guest_destroy(&g);
}

static void a_debugger_sets_breakpoints(void **state)
{
        (void)state;
        struct guest g;
        struct cpu_state *s = guest_setup(&g, true, steps, steps_end);
        struct cpu_debug debug = { .dr[2] = USER_CODE + 3, .dr7 = 1 << 4 };
        cpu_set_debug(g.cpu, &debug);
        assert_int_equal(cpu_run(g.cpu, 100), CPU_EXIT_DEBUG);
        assert_int_equal(cpu_debug_hits(g.cpu), 1 << 2);
        assert_int_equal(s->rip, USER_CODE + 3);
        assert_int_equal(cpu_run(g.cpu, CPU_NO_BUDGET), CPU_EXIT_DEBUG); /* still there */
        debug.dr[2] = USER_CODE + 0x1003;                                /* another page */
        cpu_set_debug(g.cpu, &debug);
        struct guest_end end = guest_run(&g, 100);
        assert_int_equal(end.vector, 6);
        assert_int_equal(s->gpr[CPU_RAX], 2);
        assert_int_equal(s->dr7, 0x400); /* the guest sees nothing */
        guest_destroy(&g);
}

static void a_debugger_watches_data(void **state)
{
        (void)state;
        struct guest g;
        struct cpu_state *s = guest_setup(&g, true, steps, steps_end);
        const struct cpu_debug debug = { .dr[1] = USER_DATA, .dr7 = 4 | 9ull << 20 };
        s->gpr[CPU_RBX] = USER_DATA;
        s->dr[3] = USER_DATA; /* and so does the guest: it has its exception */
        s->dr7 = 0x440 | 9ull << 28;
        cpu_state_changed(g.cpu);
        cpu_set_debug(g.cpu, &debug);
        assert_int_equal(cpu_run(g.cpu, 100), CPU_EXIT_DEBUG);
        assert_int_equal(cpu_debug_hits(g.cpu), 1 << 1);
        assert_int_equal(s->dr6 & 0xf, 1 << 3);
        s->dr7 = 0x400;
        s->rip = USER_CODE;
        cpu_state_changed(g.cpu);
        assert_int_equal(cpu_run(g.cpu, 100), CPU_EXIT_DEBUG);
        assert_int_equal(s->rip, USER_CODE + 6); /* after the instruction */
        guest_destroy(&g);
}

GUEST_CODE(int3_steps, 64, "inc rax; int3; inc rax; ud2");

static void a_debugger_has_int3_and_gives_it_back(void **state)
{
        (void)state;
        struct guest g;
        struct cpu_state *s = guest_setup(&g, true, int3_steps, int3_steps_end);
        cpu_set_debug(g.cpu, &(struct cpu_debug){ .int3 = true });
        for (unsigned i = 0; i < 2; i++) {
                assert_int_equal(cpu_run(g.cpu, CPU_NO_BUDGET), CPU_EXIT_DEBUG);
                assert_int_equal(cpu_debug_hits(g.cpu), 0);
                assert_int_equal(s->rip, USER_CODE + 3);
        }
        cpu_pass_int3(g.cpu);
        struct guest_end end = guest_run(&g, 100);
        assert_int_equal(end.vector, 3);
        assert_int_equal(end.rip, USER_CODE + 4);
        guest_destroy(&g);
}

static void a_budget_of_one_runs_one_instruction(void **state)
{
        (void)state;
        struct guest g;
        struct cpu_state *s = guest_setup(&g, true, steps, steps_end);
        s->gpr[CPU_RAX] = 0;
        assert_int_equal(cpu_run(g.cpu, 1), CPU_EXIT_BUDGET);
        assert_int_equal(s->rip, USER_CODE + 3);
        assert_int_equal(s->gpr[CPU_RAX], 1);
        guest_destroy(&g);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(the_trap_flag_stops_after_each_instruction),
                cmocka_unit_test(mov_ss_holds_back_a_watchpoint),
                cmocka_unit_test(the_trap_flag_and_instructions_with_a_say_in_it),
                cmocka_unit_test(debug_registers_break_on_execution_and_on_writes),
                cmocka_unit_test(a_debugger_sets_breakpoints),
                cmocka_unit_test(a_debugger_watches_data),
                cmocka_unit_test(a_debugger_has_int3_and_gives_it_back),
                cmocka_unit_test(a_budget_of_one_runs_one_instruction),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
