/* A debugger outside of the guest: breakpoints, watchpoints, INT3. */
#include <string.h>

#include "base/tests/test.h"
#include "cpu/tests/guest.h"

#define CODE 0x400000u
#define DATA 0x600000u

#define INC_RAX 0x48, 0xff, 0xc0
#define MOV_MEM 0x48, 0x89, 0x03 /* [rbx], rax */
#define INT3    0xcc
#define UD2     0x0f, 0x0b

static const uint8_t steps[] = { INC_RAX, MOV_MEM, INC_RAX, UD2 };
static const uint8_t int3_steps[] = { INC_RAX, INT3, INC_RAX, UD2 };

static struct cpu_state *setup(struct guest *g, const uint8_t *code, size_t size)
{
        guest_create(g);
        guest_long_mode(g, true);
        guest_map(g, CODE, GUEST_FREE, GUEST_PTE_U);
        guest_map(g, DATA, GUEST_FREE + 0x1000, GUEST_PTE_U | GUEST_PTE_W);
        memcpy(g->ram + GUEST_FREE, code, size);
        struct cpu_state *s = cpu_state(g->cpu);
        s->rip = CODE;
        s->gpr[CPU_RSP] = DATA + 0x1000;
        s->gpr[CPU_RBX] = DATA;
        return s;
}

static void a_debugger_sets_breakpoints(void **state)
{
        (void)state;
        struct guest g;
        struct cpu_state *s = setup(&g, steps, sizeof(steps));
        struct cpu_debug debug = { .dr[2] = CODE + 3, .dr7 = 1 << 4 };
        cpu_set_debug(g.cpu, &debug);
        assert_int_equal(cpu_run(g.cpu, 100), CPU_EXIT_DEBUG);
        assert_int_equal(cpu_debug_hits(g.cpu), 1 << 2);
        assert_int_equal(s->rip, CODE + 3);
        assert_int_equal(cpu_run(g.cpu, CPU_NO_BUDGET), CPU_EXIT_DEBUG); /* still there */
        debug.dr[2] = CODE + 0x1003;                                     /* another page */
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
        struct cpu_state *s = setup(&g, steps, sizeof(steps));
        const struct cpu_debug debug = { .dr[1] = DATA, .dr7 = 4 | 9ull << 20 };
        s->gpr[CPU_RBX] = DATA;
        s->dr[3] = DATA; /* and so does the guest: it has its exception */
        s->dr7 = 0x440 | 9ull << 28;
        cpu_state_changed(g.cpu);
        cpu_set_debug(g.cpu, &debug);
        assert_int_equal(cpu_run(g.cpu, 100), CPU_EXIT_DEBUG);
        assert_int_equal(cpu_debug_hits(g.cpu), 1 << 1);
        assert_int_equal(s->dr6 & 0xf, 1 << 3);
        s->dr7 = 0x400;
        s->rip = CODE;
        cpu_state_changed(g.cpu);
        assert_int_equal(cpu_run(g.cpu, 100), CPU_EXIT_DEBUG);
        assert_int_equal(s->rip, CODE + 6); /* after the instruction */
        guest_destroy(&g);
}

static void a_debugger_has_int3_and_gives_it_back(void **state)
{
        (void)state;
        struct guest g;
        struct cpu_state *s = setup(&g, int3_steps, sizeof(int3_steps));
        cpu_set_debug(g.cpu, &(struct cpu_debug){ .int3 = true });
        for (unsigned i = 0; i < 2; i++) {
                assert_int_equal(cpu_run(g.cpu, CPU_NO_BUDGET), CPU_EXIT_DEBUG);
                assert_int_equal(cpu_debug_hits(g.cpu), 0);
                assert_int_equal(s->rip, CODE + 3);
        }
        cpu_pass_int3(g.cpu);
        struct guest_end end = guest_run(&g, 100);
        assert_int_equal(end.vector, 3);
        assert_int_equal(end.rip, CODE + 4);
        guest_destroy(&g);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_debugger_sets_breakpoints),
                cmocka_unit_test(a_debugger_watches_data),
                cmocka_unit_test(a_debugger_has_int3_and_gives_it_back),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
