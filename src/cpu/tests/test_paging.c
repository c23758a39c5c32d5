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

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(page_faults_have_exact_error_codes),
                cmocka_unit_test(an_access_across_pages_faults_before_it_changes_anything),
                cmocka_unit_test(rep_faults_in_the_middle_and_restarts),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
