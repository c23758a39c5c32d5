/* Code that changes: through other mappings of its page, by another vCPU, where it is
 * called from often enough to be translated and remembered by jump tables. */
#include "cpu/tests/guest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define CALLER   0x400000ull
#define FUNCTION 0x500000ull
#define ALIASES  0x600000ull /* the function's page again, 2 MiB apart and next to each other */
#define ALIAS(n) (ALIASES + (n) % 6 * 0x1000ull + (n) / 6 * 0x1000000ull)
#define COUNT    12u
#define CALLS    40u /* enough to be translated */

static const uint8_t function[] = { 0xb8, 1, 0, 0, 0, 0xc3 }; /* mov eax, 1; ret */

/* Writes dl to [rdi] if rdi is not 0, then calls rbx r9 times and adds up in r8. */
static const uint8_t caller[] = {
        0x48, 0x85, 0xff, /* test rdi, rdi */
        0x74, 0x02,       /* jz 7 */
        0x88, 0x17,       /* mov [rdi], dl */
        0xff, 0xd3,       /* 7: call rbx */
        0x49, 0x01, 0xc0, /* add r8, rax */
        0x41, 0xff, 0xc9, /* dec r9d */
        0x75, 0xf6,       /* jnz 7 */
        0x0f, 0x0b,       /* ud2 */
};

static void map_all(struct guest *g)
{
        guest_create(g);
        guest_long_mode(g, true);
        guest_map(g, CALLER, GUEST_FREE, GUEST_PTE_U | GUEST_PTE_W);
        guest_map(g, CALLER + 0x1000, GUEST_FREE + 0x1000, GUEST_PTE_U | GUEST_PTE_W); /* stack */
        guest_map(g, FUNCTION, GUEST_FREE + 0x2000, GUEST_PTE_U | GUEST_PTE_W);
        for (unsigned n = 0; n < COUNT; n++)
                guest_map(g, ALIAS(n), GUEST_FREE + 0x2000, GUEST_PTE_U | GUEST_PTE_W);
        memcpy(g->ram + GUEST_FREE, caller, sizeof(caller));
        memcpy(g->ram + GUEST_FREE + 0x2000, function, sizeof(function));
}

/* Runs the caller on a vCPU; its mode and TLB stay as they are between runs: the handler's
 * return to user mode is made here. Returns the sum. */
static uint64_t call(struct guest *g, struct cpu *cpu, uint64_t store_to, uint8_t value)
{
        struct cpu *first = g->cpu;
        struct cpu_state *s = cpu_state(cpu);
        static const uint8_t to_user[] = { 0x48, 0xcf }; /* iretq */
        uint64_t frame[] = { CALLER, GUEST_USER64, 0x202, CALLER + 0x1800, GUEST_USERDATA };
        memcpy(g->ram + GUEST_STACK0 - 0x800, frame, sizeof(frame));
        memcpy(g->ram + GUEST_HANDLERS + 0xf00, to_user, sizeof(to_user));
        if (s->seg[CPU_CS].selector == GUEST_USER64) {
                s->rip = CALLER;
                s->gpr[CPU_RSP] = CALLER + 0x1800;
        } else {
                s->rip = GUEST_HIGH + GUEST_HANDLERS + 0xf00;
                s->gpr[CPU_RSP] = GUEST_HIGH + GUEST_STACK0 - 0x800;
        }
        s->activity = CPU_RUNNING;
        s->gpr[CPU_RDI] = store_to;
        s->gpr[CPU_RDX] = value;
        s->gpr[CPU_RBX] = FUNCTION;
        s->gpr[8] = 0;
        s->gpr[9] = CALLS;
        g->cpu = cpu;
        struct guest_end end = guest_run(g, CPU_NO_BUDGET);
        g->cpu = first;
        assert_int_equal(end.vector, 6);
        return s->gpr[8];
}

/* The page may be written through more places than are kept for one page. */
static void stores_through_any_mapping_are_seen(void **state)
{
        (void)state;
        struct guest g;
        map_all(&g);
        for (unsigned n = 0; n < COUNT; n++) /* all of them may be written now, at data */
                call(&g, g.cpu, ALIAS(n) + 0x800, 0);
        assert_int_equal(call(&g, g.cpu, 0, 0), CALLS);
        for (unsigned n = 0; n < 3 * COUNT; n++) {
                uint64_t value = 2 + n;
                assert_int_equal(call(&g, g.cpu, ALIAS(n % COUNT) + 1, (uint8_t)value),
                                 CALLS * value);
                /* Data beside the code, through another mapping: writable from now on. */
                assert_int_equal(call(&g, g.cpu, ALIAS((n + 5) % COUNT) + 0x800, 1), CALLS * value);
        }
        guest_destroy(&g);
}

/* A second vCPU that may write the page before the first decodes it, changes it later. */
static void stores_of_another_vcpu_are_seen(void **state)
{
        (void)state;
        struct guest g;
        struct err err;
        struct cpu *other;
        map_all(&g);
        assert_int_equal(cpu_create(&g.bus, 1, &other, &err), 0);
        *cpu_state(other) = *cpu_state(g.cpu);
        cpu_state_changed(other);
        call(&g, other, ALIAS(0) + 0x800, 0);
        for (unsigned n = 0; n < 20; n++) {
                uint64_t value = 2 + n;
                call(&g, other, ALIAS(n % COUNT) + 1, (uint8_t)value);
                assert_int_equal(call(&g, g.cpu, 0, 0), CALLS * value);
                call(&g, g.cpu, FUNCTION + 1, (uint8_t)(value + 100));
                assert_int_equal(call(&g, other, 0, 0), CALLS * (value + 100));
        }
        cpu_destroy(other);
        guest_destroy(&g);
}

/* The function moves to another page of memory: the page table says so, then INVLPG. */
static void a_mapping_that_changed_is_followed(void **state)
{
        (void)state;
        struct guest g;
        map_all(&g);
        assert_int_equal(call(&g, g.cpu, 0, 0), CALLS);
        memcpy(g.ram + GUEST_FREE + 0x3000, function, sizeof(function));
        g.ram[GUEST_FREE + 0x3001] = 9;
        guest_map(&g, FUNCTION, GUEST_FREE + 0x3000, GUEST_PTE_U);
        struct cpu_state *s = cpu_state(g.cpu);
        static const uint8_t flush[] = { 0x0f, 0x01, 0x3b, 0xf4 }; /* invlpg [rbx]; hlt */
        memcpy(g.ram + GUEST_HANDLERS + 0xf80, flush, sizeof(flush));
        s->rip = GUEST_HIGH + GUEST_HANDLERS + 0xf80; /* in the handler's mode */
        s->activity = CPU_RUNNING;
        s->gpr[CPU_RBX] = FUNCTION;
        assert_int_equal(cpu_run(g.cpu, CPU_NO_BUDGET), CPU_EXIT_HALT);
        assert_int_equal(call(&g, g.cpu, 0, 0), CALLS * 9);
        guest_destroy(&g);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(stores_through_any_mapping_are_seen),
                cmocka_unit_test(stores_of_another_vcpu_are_seen),
                cmocka_unit_test(a_mapping_that_changed_is_followed),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
