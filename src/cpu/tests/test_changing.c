/* Code that changes: through other mappings of its page, by another vCPU, where it is
 * called from often enough to be translated and remembered by jump tables. */
#include "cpu/tests/guest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define CALLER   0x400000ull
#define FUNCTION 0x500200ull /* not at the caller's place of a jump table */
#define ALIASES  0x600000ull /* the function's page again, 2 MiB apart and next to each other */
#define ALIAS(n) (ALIASES + (n) % 6 * 0x1000ull + (n) / 6 * 0x200000ull)
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
        guest_map(g, FUNCTION & ~0xfffull, GUEST_FREE + 0x2000, GUEST_PTE_U | GUEST_PTE_W);
        for (unsigned n = 0; n < COUNT; n++)
                guest_map(g, ALIAS(n), GUEST_FREE + 0x2000, GUEST_PTE_U | GUEST_PTE_W);
        memcpy(g->ram + GUEST_FREE, caller, sizeof(caller));
        g->ram[GUEST_FREE + 0x100] = 0xc3; /* ret */
        memcpy(g->ram + GUEST_FREE + 0x2200, function, sizeof(function));
}

/* Runs the caller on a vCPU; its mode and TLB stay as they are between runs: the handler's
 * return to user mode is made here. Returns the sum. */
static uint64_t call_at(struct guest *g, struct cpu *cpu, uint64_t store_to, uint8_t value,
                        uint64_t target)
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
        s->gpr[CPU_RBX] = target;
        s->gpr[8] = 0;
        s->gpr[9] = CALLS;
        g->cpu = cpu;
        struct guest_end end = guest_run(g, CPU_NO_BUDGET);
        g->cpu = first;
        assert_int_equal(end.vector, 6);
        return s->gpr[8];
}

static uint64_t call(struct guest *g, struct cpu *cpu, uint64_t store_to, uint8_t value)
{
        return call_at(g, cpu, store_to, value, FUNCTION);
}

/* Stores to data of the function's page without running the function. */
static void touch(struct guest *g, struct cpu *cpu, uint64_t alias)
{
        call_at(g, cpu, alias + 0x800, 0, CALLER + 0x100);
}

/* The page may be written through more places than are kept for one page. */
static void stores_through_any_mapping_are_seen(void **state)
{
        (void)state;
        struct guest g;
        map_all(&g);
        uint64_t value = 1;
        for (unsigned n = 0; n < 3 * COUNT; n++) {
                for (unsigned k = 0; k < COUNT; k++)
                        touch(&g, g.cpu, ALIAS(k)); /* may be written unseen from now on */
                assert_int_equal(call(&g, g.cpu, 0, 0), CALLS * value); /* or not any more */
                value = 2 + n;
                assert_int_equal(call(&g, g.cpu, ALIAS(n % COUNT) + 0x201, (uint8_t)value),
                                 CALLS * value);
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
        uint64_t value = 1;
        for (unsigned n = 0; n < 20; n++) {
                touch(&g, other, ALIAS(n % COUNT));
                assert_int_equal(call(&g, g.cpu, 0, 0), CALLS * value);
                value = 2 + n;
                call_at(&g, other, ALIAS(n % COUNT) + 0x201, (uint8_t)value, CALLER + 0x100);
                assert_int_equal(call(&g, g.cpu, 0, 0), CALLS * value);
        }
        cpu_destroy(other);
        guest_destroy(&g);
}

/* A block that did not change serves again, but its translation, chained to one that did, does
 * not. */
static void what_did_not_change_in_a_page_is_not_decoded_again(void **state)
{
        (void)state;
        static const uint8_t jump[] = { 0xeb, 0x0e }; /* to what comes 16 bytes on */
        struct guest g;
        map_all(&g);
        memcpy(g.ram + GUEST_FREE + 0x2200, jump, sizeof(jump));
        memcpy(g.ram + GUEST_FREE + 0x2210, function, sizeof(function));
        assert_int_equal(call(&g, g.cpu, 0, 0), CALLS);
        touch(&g, g.cpu, ALIAS(0));
        uint64_t decoded = cpu_counters(g.cpu)->blocks_decoded;
        assert_int_equal(call(&g, g.cpu, 0, 0), CALLS);
        assert_int_equal(cpu_counters(g.cpu)->blocks_renewed, 2);
        assert_int_equal(cpu_counters(g.cpu)->blocks_decoded, decoded);
        assert_int_equal(call(&g, g.cpu, ALIAS(0) + 0x211, 5), CALLS * 5);
        assert_int_equal(cpu_counters(g.cpu)->blocks_renewed, 3);
        memcpy(g.ram + GUEST_FREE + 0x2220, function, sizeof(function));
        assert_int_equal(call(&g, g.cpu, ALIAS(0) + 0x201, 0x1e), CALLS); /* to there */
        assert_int_equal(cpu_counters(g.cpu)->blocks_renewed, 3);
        guest_destroy(&g);
}

/* A function without a branch inside does not depend on what else is in its page. */
static void a_translation_that_leads_nowhere_outlives_its_page(void **state)
{
        (void)state;
        struct guest g;
        map_all(&g);
        assert_int_equal(call(&g, g.cpu, 0, 0), CALLS);
        touch(&g, g.cpu, ALIAS(0));
        uint64_t translated = cpu_counters(g.cpu)->blocks_translated;
        assert_int_equal(call(&g, g.cpu, 0, 0), CALLS);
        assert_int_equal(cpu_counters(g.cpu)->blocks_renewed, 1);
        assert_int_equal(cpu_counters(g.cpu)->blocks_translated, translated);
        assert_int_equal(call(&g, g.cpu, ALIAS(0) + 0x201, 5), CALLS * 5);
        assert_int_equal(cpu_counters(g.cpu)->blocks_renewed, 1);
        guest_destroy(&g);
}

/* It is written, called once and written again. */
static const uint8_t rewriter[] = {
        0x44, 0x88, 0x0f, /* mov [rdi], r9b */
        0xff, 0xd3,       /* call rbx */
        0x49, 0x01, 0xc0, /* add r8, rax */
        0x41, 0xff, 0xc9, /* dec r9d */
        0x75, 0xf3,       /* jnz 0 */
        0x0f, 0x0b,       /* ud2 */
};

static void code_that_is_written_again_and_again_takes_no_memory(void **state)
{
        (void)state;
        struct guest g;
        map_all(&g);
        memcpy(g.ram + GUEST_FREE, rewriter, sizeof(rewriter));
        const uint64_t sum = CALLS * (CALLS + 1) / 2;
        assert_int_equal(call(&g, g.cpu, ALIAS(0) + 0x201, 0), sum);
        assert_int_equal(call(&g, g.cpu, ALIAS(0) + 0x201, 0), sum);
        size_t size = cpu_code_bytes(g.cpu);
        uint64_t decoded = cpu_counters(g.cpu)->blocks_decoded;
        assert_int_equal(call(&g, g.cpu, ALIAS(0) + 0x201, 0), sum);
        assert_true(cpu_counters(g.cpu)->blocks_decoded - decoded >= CALLS);
        if (!getenv("GUEST_TRANSLATED")) /* what is translated is kept */
                assert_int_equal(cpu_code_bytes(g.cpu), size);
        guest_destroy(&g);
}

/* INVLPG, in the mode of the handler that ended the run before. */
static void invalidate(struct guest *g, uint64_t linear)
{
        struct cpu_state *s = cpu_state(g->cpu);
        static const uint8_t flush[] = { 0x0f, 0x01, 0x3b, 0xf4 }; /* invlpg [rbx]; hlt */
        memcpy(g->ram + GUEST_HANDLERS + 0xf80, flush, sizeof(flush));
        s->rip = GUEST_HIGH + GUEST_HANDLERS + 0xf80;
        s->activity = CPU_RUNNING;
        s->gpr[CPU_RBX] = linear;
        assert_int_equal(cpu_run(g->cpu, CPU_NO_BUDGET), CPU_EXIT_HALT);
}

/* A new page table, a copy of the old one, for the 2 MiB around `linear`. */
static void replace_table(struct guest *g, uint64_t linear)
{
        uint64_t at = g->root, entry, fresh = g->next_table;
        for (unsigned shift = 39; shift > 21; shift -= 9) {
                memcpy(&entry, g->ram + at + (linear >> shift & 511) * 8, 8);
                at = entry & ~0xfffull;
        }
        uint8_t *pde = g->ram + at + (linear >> 21 & 511) * 8;
        memcpy(&entry, pde, 8);
        memcpy(g->ram + fresh, g->ram + (entry & ~0xfffull), 4096);
        entry = fresh | (entry & 0xfff);
        memcpy(pde, &entry, 8);
        g->next_table += 4096;
}

/* The function moves to another page of memory: a page table says so, the same or a new one;
 * then INVLPG. */
static void follow_mapping(bool new_table)
{
        struct guest g;
        map_all(&g);
        assert_int_equal(call(&g, g.cpu, 0, 0), CALLS);
        if (new_table)
                replace_table(&g, FUNCTION);
        memcpy(g.ram + GUEST_FREE + 0x3200, function, sizeof(function));
        g.ram[GUEST_FREE + 0x3201] = 9;
        guest_map(&g, FUNCTION & ~0xfffull, GUEST_FREE + 0x3000, GUEST_PTE_U);
        invalidate(&g, FUNCTION);
        assert_int_equal(call(&g, g.cpu, 0, 0), CALLS * 9);
        guest_destroy(&g);
}

static void a_mapping_that_changed_is_followed(void **state)
{
        (void)state;
        follow_mapping(false);
        follow_mapping(true);
}

#define CROSSING 0x700ffeull /* two bytes in front of the end of its page */
#define NEXT     (CROSSING + 2)

static void map_crossing(struct guest *g)
{
        map_all(g);
        guest_map(g, CROSSING & ~0xfffull, GUEST_FREE + 0x4000, GUEST_PTE_U | GUEST_PTE_W);
        guest_map(g, NEXT, GUEST_FREE + 0x5000, GUEST_PTE_U | GUEST_PTE_W);
        guest_map(g, NEXT + 0x1000, GUEST_FREE + 0x6000, GUEST_PTE_U | GUEST_PTE_W);
}

static void an_instruction_across_pages_changes_with_either(void **state)
{
        (void)state;
        struct guest g;
        map_crossing(&g);
        memcpy(g.ram + GUEST_FREE + 0x4ffe, function, sizeof(function));
        assert_int_equal(call_at(&g, g.cpu, 0, 0, CROSSING), CALLS);
        /* Another page that ran code and did not change either takes the place of the second. */
        memcpy(g.ram + GUEST_FREE + 0x6000, "\2\0\0\xc3", 4);
        call_at(&g, g.cpu, 0, 0, NEXT + 0x1003);
        guest_map(&g, NEXT, GUEST_FREE + 0x6000, GUEST_PTE_U | GUEST_PTE_W);
        invalidate(&g, NEXT);
        assert_int_equal(call_at(&g, g.cpu, 0, 0, CROSSING), CALLS * 0x201);
        assert_int_equal(call_at(&g, g.cpu, CROSSING + 1, 7, CROSSING), CALLS * 0x207);
        assert_int_equal(call_at(&g, g.cpu, NEXT, 1, CROSSING), CALLS * 0x107);
        guest_destroy(&g);
}

/* A jump whose distance changes, the only instruction there is in the second page. */
static void the_end_of_an_instruction_guards_its_page(void **state)
{
        (void)state;
        struct guest g;
        map_crossing(&g);
        for (unsigned n = 2; n < 4; n++) {
                memcpy(g.ram + GUEST_FREE + 0x100 * n, function, sizeof(function));
                g.ram[GUEST_FREE + 0x100 * n + 1] = (uint8_t)n;
        }
        int32_t distance = (int32_t)(CALLER + 0x200 - (CROSSING + 5));
        g.ram[GUEST_FREE + 0x4ffe] = 0xe9;
        memcpy(g.ram + GUEST_FREE + 0x4fff, &distance, 4);
        touch(&g, g.cpu, NEXT);
        assert_int_equal(call_at(&g, g.cpu, 0, 0, CROSSING), CALLS * 2);
        uint8_t further = (uint8_t)(((uint32_t)distance >> 8) + 1);
        assert_int_equal(call_at(&g, g.cpu, NEXT, further, CROSSING), CALLS * 3);
        guest_destroy(&g);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(stores_through_any_mapping_are_seen),
                cmocka_unit_test(stores_of_another_vcpu_are_seen),
                cmocka_unit_test(what_did_not_change_in_a_page_is_not_decoded_again),
                cmocka_unit_test(a_translation_that_leads_nowhere_outlives_its_page),
                cmocka_unit_test(code_that_is_written_again_and_again_takes_no_memory),
                cmocka_unit_test(a_mapping_that_changed_is_followed),
                cmocka_unit_test(an_instruction_across_pages_changes_with_either),
                cmocka_unit_test(the_end_of_an_instruction_guards_its_page),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
