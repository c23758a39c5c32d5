/* Address spaces with PCIDs: what a switch keeps, what INVPCID and CR3's bit 63 make it forget, and
 * code that changes while its address space does not run. Guest code is assembled by the
 * compiler's assembler. */
#include "cpu/tests/guest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define VAR    0x700000ull /* other memory in each address space */
#define ALIAS  0x710000u   /* what VAR is in the first, here in both */
#define FIRST  0x1000000u
#define SECOND 0x1001000u
#define THIRD  0x1002000u
#define KEEP   (1ull << 63)
#define PCID_A 1u
#define PCID_B 2u
#define AT     0x20u /* of code in its page: place 0 of the jump table is never kept */
#define RW     (GUEST_PTE_U | GUEST_PTE_W)

/* INT3: to the other address space. */
GUEST_CODE(other_space, 64, "mov cr3, r8; xchg r8, r9; iretq");
/* INT 4: writes R15 to the entry that R14 points to, and, unless R11 is negative, INVPCID of type
 * R11 for PCID R12 and address R13. */
GUEST_CODE(change_entry, 64,
           "mov [r14], r15; test r11, r11; js 1f; push r13; push r12; invpcid r11, [rsp]\n"
           "add rsp, 16; 1: iretq");

static void put64(struct guest *g, uint64_t gpa, uint64_t value)
{
        memcpy(g->ram + gpa, &value, 8);
}

static uint64_t get64(const struct guest *g, uint64_t gpa)
{
        uint64_t value;
        memcpy(&value, g->ram + gpa, 8);
        return value;
}

static uint64_t copy_table(struct guest *g, uint64_t table)
{
        uint64_t copy = g->next_table;
        g->next_table += 4096;
        memcpy(g->ram + copy, g->ram + table, 4096);
        return copy;
}

/* Guest physical address of the last entry for `linear` under `root`. */
static uint64_t entry_of(const struct guest *g, uint64_t root, uint64_t linear)
{
        uint64_t table = root;
        for (unsigned shift = 39; shift > 12; shift -= 9)
                table = get64(g, table + (linear >> shift & 511) * 8) & 0xffffffffff000;
        return table + (linear >> 12 & 511) * 8;
}

/* Another root, with tables of its own on the way to VAR. */
static uint64_t second_root(struct guest *g)
{
        uint64_t root = copy_table(g, g->root), table = root;
        for (unsigned shift = 39; shift > 12; shift -= 9) {
                uint64_t at = table + (VAR >> shift & 511) * 8, entry = get64(g, at);
                table = copy_table(g, entry & 0xffffffffff000);
                put64(g, at, table | (entry & 0xfff));
        }
        return root;
}

static void handler(struct guest *g, unsigned vector, const uint8_t *code, const uint8_t *end)
{
        uint32_t at = 0x900 + vector * 0x80, jump = at - (vector * 16 + 5);
        memcpy(g->ram + GUEST_HANDLERS + at, code, (size_t)(end - code));
        g->ram[GUEST_HANDLERS + vector * 16] = 0xe9;
        memcpy(g->ram + GUEST_HANDLERS + vector * 16 + 1, &jump, 4);
}

/* RBX points to VAR, R14 to its entry in the first address space, which runs. */
static struct cpu_state *setup(struct guest *g, const uint8_t *code, const uint8_t *end)
{
        guest_create(g);
        struct cpu_state *s = guest_code(g, true, code, end);
        handler(g, 3, other_space, other_space_end);
        handler(g, 4, change_entry, change_entry_end);
        guest_map(g, VAR, FIRST, RW);
        guest_map(g, ALIAS, FIRST, RW);
        uint64_t root = second_root(g);
        put64(g, entry_of(g, root, VAR), SECOND | RW | 1);
        s->gpr[CPU_RBX] = VAR;
        s->gpr[8] = root | PCID_B | KEEP;
        s->gpr[9] = g->root | PCID_A | KEEP;
        s->gpr[14] = entry_of(g, g->root, VAR);
        s->cr3 |= PCID_A;
        s->cr4 |= 0x20000;
        cpu_state_changed(g->cpu);
        return s;
}

/* ---- data ---- */

GUEST_CODE(there_and_back, 64,
           "mov rax, [rbx]; int 3; mov rcx, [rbx]; int 4; mov rdi, [rbx]; int 3; mov rdx, [rbx]; "
           "int 3; mov rsi, [rbx]; ud2");

/* What the first address space finds at VAR when it runs again, its entry having changed. */
static uint64_t found(bool keep, int type, unsigned pcid)
{
        struct guest g;
        struct cpu_state *s = setup(&g, there_and_back, there_and_back_end);
        put64(&g, FIRST, 1);
        put64(&g, SECOND, 2);
        put64(&g, THIRD, 3);
        if (!keep)
                s->gpr[9] &= ~KEEP;
        s->gpr[11] = (uint64_t)type;
        s->gpr[12] = pcid;
        s->gpr[13] = VAR;
        s->gpr[15] = THIRD | RW | 1;
        assert_int_equal(guest_run(&g, UINT64_MAX).vector, 6);
        assert_int_equal(s->gpr[CPU_RAX], 1);
        assert_int_equal(s->gpr[CPU_RCX], 2);
        assert_int_equal(s->gpr[CPU_RDI], 2);
        assert_int_equal(s->gpr[CPU_RSI], 2);
        uint64_t value = s->gpr[CPU_RDX];
        guest_destroy(&g);
        return value;
}

static void a_switch_forgets_what_it_must(void **state)
{
        (void)state;
        assert_int_equal(found(false, -1, 0), 3); /* bit 63 clear */
        assert_int_equal(found(true, 0, PCID_A), 3);
        assert_int_equal(found(true, 1, PCID_A), 3);
        assert_int_equal(found(true, 2, 0), 3);
        assert_int_equal(found(true, 3, 0), 3);
}

/* A processor need not keep anything, but this one does. */
static void a_switch_keeps_what_it_may(void **state)
{
        (void)state;
        assert_int_equal(found(true, -1, 0), 1);
        assert_int_equal(found(true, 0, PCID_B), 1); /* that which runs */
        assert_int_equal(found(true, 1, PCID_B), 1);
        assert_int_equal(found(true, 1, 77), 1);
}

GUEST_CODE(cycle, 64,
           "mov ebp, 2000; 1: add rsi, [rbx]; mov [rbx + 8], rbp; int 3; dec ebp; jnz 1b; ud2");

static void each_space_has_its_own_memory(void **state)
{
        (void)state;
        struct guest g;
        struct cpu_state *s = setup(&g, cycle, cycle_end);
        put64(&g, FIRST, 3);
        put64(&g, SECOND, 5);
        uint64_t misses = cpu_counters(g.cpu)->tlb_misses;
        assert_int_equal(guest_run(&g, UINT64_MAX).vector, 6);
        assert_int_equal(s->gpr[CPU_RSI], 8000);
        assert_int_equal(get64(&g, FIRST + 8), 2);
        assert_int_equal(get64(&g, SECOND + 8), 1);
        assert_true(cpu_counters(g.cpu)->tlb_switches >= 1990);
        assert_true(cpu_counters(g.cpu)->tlb_misses - misses < 200);
        guest_destroy(&g);
}

/* More PCIDs than are remembered, all on the same tables. */
GUEST_CODE(many_numbers, 64,
           "mov ecx, 4000; 1: mov rax, [rbx]; add rsi, rax; inc rax; mov [rbx], rax\n"
           "lea rax, [r9 + rcx]; and rax, 31; or rax, r8; mov cr3, rax; dec ecx; jnz 1b; ud2");

static void there_may_be_more_numbers_than_places(void **state)
{
        (void)state;
        struct guest g;
        guest_create(&g);
        struct cpu_state *s = guest_code(&g, false, many_numbers, many_numbers_end);
        s->gpr[8] = g.root | KEEP;
        s->cr4 |= 0x20000;
        cpu_state_changed(g.cpu);
        assert_int_equal(guest_run(&g, UINT64_MAX).vector, 6);
        assert_int_equal(s->gpr[CPU_RSI], 4000ull * 3999 / 2);
        guest_destroy(&g);
}

/* ---- code ---- */

GUEST_CODE(return_1, 64, "mov eax, 1; ret");
GUEST_CODE(return_2, 64, "mov eax, 2; ret");

/* RDI points to what VAR is in the first. */
GUEST_CODE(call_both, 64,
           "mov ebp, 60; 1: call rbx; add esi, eax; int 3; call rbx; add esi, eax; int 3; dec ebp\n"
           "jnz 1b; int 3; mov byte ptr [rdi + 1], 9; int 3; call rbx; ud2");

static void code_that_changes_elsewhere_is_decoded_again(void **state)
{
        (void)state;
        struct guest g;
        struct cpu_state *s = setup(&g, call_both, call_both_end);
        memcpy(g.ram + FIRST + AT, return_1, (size_t)(return_1_end - return_1));
        memcpy(g.ram + SECOND + AT, return_2, (size_t)(return_2_end - return_2));
        s->gpr[CPU_RBX] = VAR + AT;
        s->gpr[CPU_RDI] = ALIAS + AT;
        assert_int_equal(guest_run(&g, UINT64_MAX).vector, 6);
        assert_int_equal(s->gpr[CPU_RSI], 60 * 3);
        assert_int_equal(s->gpr[CPU_RAX], 9);
        guest_destroy(&g);
}

GUEST_CODE(write_late, 64,
           "mov byte ptr [rbx + 1], 1; int 3; call rdi; mov esi, eax; int 3\n"
           "mov byte ptr [rbx + 1], 7; call rdi; ud2");

static void a_page_that_became_code_is_not_written_unseen(void **state)
{
        (void)state;
        struct guest g;
        struct cpu_state *s = setup(&g, write_late, write_late_end);
        memcpy(g.ram + FIRST, return_2, (size_t)(return_2_end - return_2));
        s->gpr[CPU_RDI] = ALIAS;
        assert_int_equal(guest_run(&g, UINT64_MAX).vector, 6);
        assert_int_equal(s->gpr[CPU_RSI], 1);
        assert_int_equal(s->gpr[CPU_RAX], 7);
        guest_destroy(&g);
}

GUEST_CODE(call_again, 64,
           "mov ebp, 60; 1: call rbx; dec ebp; jnz 1b; mov ecx, eax; int 4; call rbx; ud2");

/* A function at `at` returns a constant that is in VAR, which becomes another page. */
static void check_call(uint64_t at)
{
        struct guest g;
        struct cpu_state *s = setup(&g, call_again, call_again_end);
        guest_map(&g, VAR - 4096, FIRST - 4096, RW);
        memcpy(g.ram + FIRST - VAR + at, return_1, (size_t)(return_1_end - return_1));
        memcpy(g.ram + SECOND - VAR + at + 1, return_2 + 1, (size_t)(return_2_end - return_2) - 1);
        g.ram[SECOND + AT] = g.ram[FIRST + AT];
        s->gpr[CPU_RBX] = at;
        s->gpr[11] = 0;
        s->gpr[12] = PCID_A;
        s->gpr[13] = VAR;
        s->gpr[15] = SECOND | RW | 1;
        assert_int_equal(guest_run(&g, UINT64_MAX).vector, 6);
        assert_int_equal(s->gpr[CPU_RCX], 1);
        assert_int_equal(s->gpr[CPU_RAX], 2);
        guest_destroy(&g);
}

static void code_of_a_forgotten_page_is_looked_up_again(void **state)
{
        (void)state;
        check_call(VAR + AT);
        check_call(VAR - 1); /* crosses into it */
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_switch_forgets_what_it_must),
                cmocka_unit_test(a_switch_keeps_what_it_may),
                cmocka_unit_test(each_space_has_its_own_memory),
                cmocka_unit_test(there_may_be_more_numbers_than_places),
                cmocka_unit_test(code_that_changes_elsewhere_is_decoded_again),
                cmocka_unit_test(a_page_that_became_code_is_not_written_unseen),
                cmocka_unit_test(code_of_a_forgotten_page_is_looked_up_again),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
