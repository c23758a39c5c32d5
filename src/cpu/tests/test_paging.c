/* What page tables allow, and what an access that they do not allow leaves behind. Guest code is
 * assembled by the compiler's assembler. */
#include "cpu/tests/guest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static struct cpu_state *setup(struct guest *g, bool user, const uint8_t *code, const uint8_t *end)
{
        guest_create(g);
        return guest_code(g, user, code, end);
}

GUEST_CODE(read_rbx, 64, "mov rax, [rbx]; ud2");
GUEST_CODE(write_rbx, 64, "mov [rbx], rax; ud2");
GUEST_CODE(call_rbx, 64, "jmp rbx");

enum access { READ, WRITE, EXECUTE };

/* What the processor must say about one access; -1 none. */
static int expected_error(uint64_t pte, enum access access, bool user, uint64_t cr4, bool wp)
{
        bool present = pte & 1, writable = pte & 2, upage = pte & 4, nx = pte >> 63;
        bool fault = !present;
        if (access == EXECUTE)
                fault |= nx || (user && !upage) || (!user && upage && cr4 & 0x100000);
        else if (user)
                fault |= !upage || (access == WRITE && !writable);
        else
                fault |= (upage && cr4 & 0x200000) || (access == WRITE && !writable && wp);
        if (!fault)
                return -1;
        return (present ? 1 : 0) | (access == WRITE ? 2 : 0) | (user ? 4 : 0) |
               (access == EXECUTE ? 16 : 0);
}

static void check_fault(uint64_t pte, enum access access, bool user, uint64_t cr4, bool wp)
{
        struct guest g;
        const uint8_t *code = access == READ ? read_rbx : access == WRITE ? write_rbx : call_rbx;
        struct cpu_state *s = setup(&g, user, code, code + 16);
        uint64_t at = 0x700000;
        guest_map(&g, at, GUEST_FREE + 0x4000, 0);
        memcpy(g.ram + GUEST_FREE + 0x4000, "\x0f\x0b", 2);
        uint64_t top = g.next_table;
        for (uint64_t t = GUEST_TABLES; t < top; t += 8) {
                uint64_t entry;
                memcpy(&entry, g.ram + t, 8);
                if ((entry & ~0xfffull) == GUEST_FREE + 0x4000) {
                        entry = (entry & ~1ull) | pte;
                        memcpy(g.ram + t, &entry, 8);
                }
        }
        s->cr4 |= cr4;
        if (!wp)
                s->cr0 &= ~0x10000ull;
        s->gpr[CPU_RBX] = at;
        cpu_state_changed(g.cpu);
        struct guest_end end = guest_run(&g, 100);
        int error = expected_error(pte, access, user, cr4, wp);
        if (error < 0) {
                assert_int_equal(end.vector, 6);
        } else {
                if (end.vector != 14)
                        print_message("pte %llx access %d user %d cr4 %llx wp %d\n",
                                      (unsigned long long)pte, access, user,
                                      (unsigned long long)cr4, wp);
                assert_int_equal(end.vector, 14);
                assert_int_equal(end.error, error);
                assert_int_equal(s->cr2, at);
                assert_int_equal(end.rip, access == EXECUTE ? at : USER_CODE);
        }
        guest_destroy(&g);
}

static void page_faults_have_exact_error_codes(void **state)
{
        (void)state;
        static const uint64_t cr4s[] = { 0, 0x100000, 0x200000 };
        for (unsigned bits = 0; bits < 16; bits++) {
                uint64_t pte = (bits & 7) | (bits & 8 ? GUEST_PTE_NX : 0);
                for (unsigned n = 0; n < 3 * 3 * 2 * 2; n++) {
                        bool user = n & 1, wp = n & 2;
                        check_fault(pte, (enum access)(n / 4 % 3), user, cr4s[n / 12], wp);
                }
        }
}

GUEST_CODE(straddle, 64, "mov rax, 0x1122334455667788; mov [rbx], rax; ud2");

static void an_access_across_pages_faults_before_it_changes_anything(void **state)
{
        (void)state;
        struct guest g;
        struct cpu_state *s = setup(&g, true, straddle, straddle_end);
        s->gpr[CPU_RBX] = USER_DATA + 0x2000 - 4; /* the next page is not mapped */
        struct guest_end end = guest_run(&g, 100);
        assert_int_equal(end.vector, 14);
        assert_int_equal(end.error, 6);
        assert_int_equal(s->cr2, USER_DATA + 0x2000);
        uint32_t left;
        memcpy(&left, g.ram + GUEST_FREE + 0x4000 - 4, 4);
        assert_int_equal(left, 0);
        s->gpr[CPU_RBX] = USER_DATA + 0x1000 - 4; /* both mapped */
        s->rip = USER_CODE;
        guest_destroy(&g);
}

GUEST_CODE(rep_fault, 64, "cld; rep stosb; ud2");

static void rep_faults_in_the_middle_and_restarts(void **state)
{
        (void)state;
        struct guest g;
        struct cpu_state *s = setup(&g, true, rep_fault, rep_fault_end);
        s->gpr[CPU_RDI] = USER_DATA + 0x1ff0;
        s->gpr[CPU_RCX] = 0x30;
        s->gpr[CPU_RAX] = 0xab;
        struct guest_end end = guest_run(&g, 100);
        assert_int_equal(end.vector, 14);
        assert_int_equal(end.rip, USER_CODE + 1);
        assert_int_equal(s->gpr[CPU_RCX], 0x20);
        assert_int_equal(s->gpr[CPU_RDI], USER_DATA + 0x2000);
        guest_destroy(&g);
}

/* ---- pages that are forgotten ---- */

#define SPAN   0x800000u  /* 2 MiB of a large page */
#define FIRST  0x1000000u /* and the memory it is first, and then */
#define SECOND 0x1200000u
#define LARGE  0x80u
#define TABLE  0xa00000u /* where the entry can be written */

/* Guest physical address of an entry of a level's table, which is there. */
static uint64_t entry_of(const struct guest *g, uint64_t linear, unsigned level)
{
        uint64_t table = g->root, entry;
        for (unsigned at = 4;; at--) {
                uint64_t place = table + (linear >> (3 + 9 * at) & 511) * 8;
                if (at == level)
                        return place;
                memcpy(&entry, g->ram + place, 8);
                table = entry & 0xffffffffff000;
        }
}

static void put64(struct guest *g, uint64_t gpa, uint64_t value)
{
        memcpy(g->ram + gpa, &value, 8);
}

/* RBX points into a large page, R8 to its entry, R9 is a new one; RCX is what is there now. */
GUEST_CODE(change_large, 64,
           "mov rcx, [rbx + 0x5000]; mov rdx, [rbx + 0x1ff000 - 0x3000]; mov [r8], r9\n"
           "mov rsi, [rbx + 0x5000]; invlpg [rbx]; mov rdi, [rbx + 0x5000]\n"
           "mov rbp, [rbx + 0x1ff000 - 0x3000]; ud2");
/* The same of code that RAX points to. */
GUEST_CODE(change_large_code, 64,
           "mov r10, rax; call r10; mov ecx, eax; call r10; mov [r8], r9; invlpg [rbx]; call r10; "
           "ud2");
GUEST_CODE(return_1, 64, "mov eax, 1; ret");
GUEST_CODE(return_2, 64, "mov eax, 2; ret");

static struct cpu_state *setup_large(struct guest *g, const uint8_t *code, const uint8_t *end)
{
        struct cpu_state *s = setup(g, false, code, end);
        guest_map(g, SPAN, FIRST, GUEST_PTE_W); /* makes the tables */
        uint64_t entry = entry_of(g, SPAN, 2);
        put64(g, entry, FIRST | LARGE | GUEST_PTE_W | 1);
        guest_map(g, TABLE, entry & ~0xfffull, GUEST_PTE_W);
        s->gpr[CPU_RBX] = SPAN + 0x3000;
        s->gpr[8] = TABLE + (entry & 0xfff);
        s->gpr[9] = SECOND | LARGE | GUEST_PTE_W | 1;
        return s;
}

static void invlpg_forgets_all_of_a_large_page(void **state)
{
        (void)state;
        struct guest g;
        struct cpu_state *s = setup_large(&g, change_large, change_large_end);
        put64(&g, FIRST + 0x8000, 11);
        put64(&g, FIRST + 0x1ff000, 12);
        put64(&g, SECOND + 0x8000, 21);
        put64(&g, SECOND + 0x1ff000, 22);
        assert_int_equal(guest_run(&g, UINT64_MAX).vector, 6);
        assert_int_equal(s->gpr[CPU_RCX], 11);
        assert_int_equal(s->gpr[CPU_RDX], 12);
        assert_int_equal(s->gpr[CPU_RSI], 11); /* that something is kept is the point */
        assert_int_equal(s->gpr[CPU_RDI], 21);
        assert_int_equal(s->gpr[CPU_RBP], 22);
        guest_destroy(&g);
}

static void invlpg_forgets_code_of_a_large_page(void **state)
{
        (void)state;
        struct guest g;
        struct cpu_state *s = setup_large(&g, change_large_code, change_large_code_end);
        memcpy(g.ram + FIRST + 0x7000, return_1, (size_t)(return_1_end - return_1));
        memcpy(g.ram + SECOND + 0x7000, return_2, (size_t)(return_2_end - return_2));
        s->gpr[CPU_RAX] = SPAN + 0x7000;
        assert_int_equal(guest_run(&g, UINT64_MAX).vector, 6);
        assert_int_equal(s->gpr[CPU_RCX], 1);
        assert_int_equal(s->gpr[CPU_RAX], 2);
        guest_destroy(&g);
}

/* RBX points to a global page, R8 to its entry, R9 is a new one. */
GUEST_CODE(reload_root, 64,
           "mov rcx, [rbx]; mov [r8], r9; mov rax, cr3; mov cr3, rax; mov rdx, [rbx]\n"
           "invlpg [rbx]; mov rsi, [rbx]; ud2");

static void check_global(bool enabled)
{
        struct guest g;
        struct cpu_state *s = setup(&g, false, reload_root, reload_root_end);
        guest_map(&g, SPAN, FIRST, GUEST_PTE_W | 0x100);
        uint64_t entry = entry_of(&g, SPAN, 1);
        guest_map(&g, TABLE, entry & ~0xfffull, GUEST_PTE_W);
        put64(&g, FIRST, 1);
        put64(&g, SECOND, 2);
        s->gpr[CPU_RBX] = SPAN;
        s->gpr[8] = TABLE + (entry & 0xfff);
        s->gpr[9] = SECOND | 0x103;
        s->cr4 = enabled ? s->cr4 | 0x80 : s->cr4 & ~0x80ull;
        cpu_state_changed(g.cpu);
        assert_int_equal(guest_run(&g, UINT64_MAX).vector, 6);
        assert_int_equal(s->gpr[CPU_RCX], 1);
        assert_int_equal(s->gpr[CPU_RDX], enabled ? 1 : 2);
        assert_int_equal(s->gpr[CPU_RSI], 2);
        guest_destroy(&g);
}

static void global_pages_stay_where_there_are_any(void **state)
{
        (void)state;
        check_global(true);
        check_global(false);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(page_faults_have_exact_error_codes),
                cmocka_unit_test(an_access_across_pages_faults_before_it_changes_anything),
                cmocka_unit_test(rep_faults_in_the_middle_and_restarts),
                cmocka_unit_test(invlpg_forgets_all_of_a_large_page),
                cmocka_unit_test(invlpg_forgets_code_of_a_large_page),
                cmocka_unit_test(global_pages_stay_where_there_are_any),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
