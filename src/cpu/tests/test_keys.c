/* Protection keys: PKRU and IA32_PKRS against a model of what the manual says, the rights that
 * the TLB remembers, and PKRU in the XSAVE area. Guest code is assembled by the compiler's
 * assembler. */
#include "cpu/tests/guest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define CR0_WP      0x10000u
#define CR4_PKE     0x400000u
#define CR4_PKS     0x1000000u
#define XCR0_ALL    0x207u
#define KEYED       0x700000u /* the page that tests give a key */
#define KEYED_FRAME (GUEST_FREE + 0x4000)
#define KEY(n)      ((uint64_t)(n) << 59)
#define PTE_P       1u

enum vector { VEC_UD = 6, VEC_GP = 13, VEC_PF = 14 };
enum access { READ, WRITE, EXECUTE };

static uint32_t rights(unsigned key, bool no_access, bool no_write)
{
        return ((uint32_t)no_access | (uint32_t)no_write << 1) << 2 * key;
}

/* A guest of `code` with keys on, and RBX at a page of this key. */
static struct cpu_state *setup(struct guest *g, bool user, const uint8_t *code, const uint8_t *end,
                               uint64_t pte)
{
        guest_create(g);
        struct cpu_state *s = guest_code(g, user, code, end);
        guest_map(g, KEYED, KEYED_FRAME, pte);
        memcpy(g->ram + KEYED_FRAME, "\x0f\x0b", 2);
        s->cr4 |= CR4_PKE | CR4_PKS;
        s->xcr0 = XCR0_ALL;
        s->gpr[CPU_RBX] = KEYED;
        s->gpr[CPU_RCX] = s->gpr[CPU_RDX] = 0;
        cpu_state_changed(g->cpu);
        return s;
}

/* ---- who may what ---- */

/* Once with all rights, which fills the TLB, then with those in R8 (PKRU) and R9 (IA32_PKRS),
 * which a gate of the kernel sets. */
GUEST_CODE(read_twice, 64, "mov rax, [rbx]; int 3; mov rax, [rbx]; ud2");
GUEST_CODE(write_twice, 64, "mov [rbx], rax; int 3; mov [rbx], rax; ud2");
GUEST_CODE(call_twice, 64, "int 3; jmp rbx; ud2");
/* At the handler of INT3: IA32_PKRS, CR0 and PKRU from R9, R10 and R8. */
GUEST_CODE(take_rights, 64,
           "xor edx, edx; mov ecx, 0x6e1; mov eax, r9d; wrmsr; mov cr0, r10; xor ecx, ecx; "
           "mov eax, r8d; wrpkru; iretq");

struct attempt {
        uint64_t pte;
        enum access access;
        bool user, wp;
        uint32_t pkru, pkrs, cr4;
};

static bool key_denies(const struct attempt *a)
{
        unsigned key = a->pte >> 59 & 15;
        bool upage = a->pte & GUEST_PTE_U;
        uint32_t two = (upage ? a->pkru : a->pkrs) >> 2 * key & 3;
        if (a->access == EXECUTE || !(a->cr4 & (upage ? CR4_PKE : CR4_PKS)))
                return false;
        return two & 1 || (two == 2 && a->access == WRITE && (a->wp || a->user));
}

/* What the processor must say about the second access; -1 nothing. */
static int expected_error(const struct attempt *a)
{
        bool upage = a->pte & GUEST_PTE_U, writable = a->pte & GUEST_PTE_W;
        bool fault = key_denies(a) || (a->user && !upage) ||
                     (a->access == WRITE && !writable && (a->user || a->wp));
        if (!fault)
                return -1;
        return PTE_P | (a->access == WRITE ? 2 : 0) | (a->user ? 4 : 0) |
               (a->access == EXECUTE ? 16 : 0) | (key_denies(a) ? 32 : 0);
}

static void attempt(const struct attempt *a)
{
        static const struct {
                const uint8_t *code, *end;
        } codes[] = { { read_twice, read_twice_end },
                      { write_twice, write_twice_end },
                      { call_twice, call_twice_end } };
        struct guest g;
        struct cpu_state *s = setup(&g, a->user, codes[a->access].code, codes[a->access].end,
                                    a->pte);
        memcpy(g.ram + GUEST_HANDLERS + 0x900, take_rights,
               (size_t)(take_rights_end - take_rights));
        memcpy(g.ram + GUEST_HANDLERS + 3 * 16, "\xe9\xcb\x08\0\0", 5); /* jmp there */
        s->cr4 = (s->cr4 & ~(uint64_t)(CR4_PKE | CR4_PKS)) | a->cr4 | CR4_PKE;
        s->gpr[8] = a->pkru;
        s->gpr[9] = a->pkrs;
        s->gpr[10] = s->cr0 & ~(a->wp ? 0 : (uint64_t)CR0_WP);
        s->cr0 &= ~(uint64_t)CR0_WP;
        /* The first access passes, or is left out. */
        bool passes = !a->user ||
                      (a->pte & GUEST_PTE_U && (a->access != WRITE || a->pte & GUEST_PTE_W));
        if (!passes && a->access != EXECUTE)
                s->rip += 3;
        cpu_state_changed(g.cpu);
        struct guest_end end = guest_run(&g, 100);
        int error = expected_error(a);
        if (end.vector != (error < 0 ? VEC_UD : VEC_PF) ||
            (error >= 0 && end.error != (unsigned)error))
                print_message("pte %llx access %d user %d wp %d pkru %x pkrs %x cr4 %x\n",
                              (unsigned long long)a->pte, a->access, a->user, a->wp, a->pkru,
                              a->pkrs, a->cr4);
        assert_int_equal(end.vector, error < 0 ? VEC_UD : VEC_PF);
        if (error >= 0) {
                assert_int_equal(end.error, error);
                assert_int_equal(s->cr2, KEYED);
        }
        guest_destroy(&g);
}

static void keys_deny_what_the_manual_says(void **state)
{
        (void)state;
        static const uint32_t cr4s[] = { CR4_PKE, CR4_PKE | CR4_PKS };
        static const unsigned keys[] = { 0, 5, 15 };
        for (unsigned n = 0; n < 3u * 3 * 4 * 2 * 2 * 2 * 4; n++) {
                unsigned rest = n, key = keys[rest % 3];
                enum access access = (enum access)((rest /= 3) % 3);
                uint64_t flags = ((rest /= 3) % 4) * 2; /* writable, user */
                bool user = (rest /= 4) % 2, wp = (rest /= 2) % 2;
                uint32_t cr4 = cr4s[(rest /= 2) % 2];
                bool no_access = (rest /= 2) & 1, no_write = rest & 2;
                uint32_t denied = rights(key, no_access, no_write);
                /* Rights of key 0 also guard code that the test itself writes no data to. */
                attempt(&(struct attempt){ KEY(key) | flags, access, user, wp, denied,
                                           key ? denied : 0, cr4 });
        }
}

static void other_keys_change_nothing(void **state)
{
        (void)state;
        for (unsigned key = 1; key < 16; key++) {
                uint32_t others = ~rights(key, true, true) & ~3u;
                attempt(&(struct attempt){ KEY(key) | GUEST_PTE_U | GUEST_PTE_W, WRITE, true, true,
                                           others, others, CR4_PKE | CR4_PKS });
        }
}

/* A page of 2 MiB has its key in the directory's entry. */
static void large_pages_have_keys(void **state)
{
        (void)state;
        struct guest g;
        struct cpu_state *s = setup(&g, true, read_twice, read_twice_end, 0);
        uint64_t at = 0x40000000, entry = 0x600000 | KEY(3) | GUEST_PTE_U | GUEST_PTE_W | 0x81;
        guest_map(&g, at, 0, GUEST_PTE_U); /* makes the tables above it */
        memcpy(g.ram + g.next_table - 8192, &entry, 8);
        s->gpr[CPU_RBX] = at + 0x12340;
        s->pkru = rights(3, true, false);
        cpu_state_changed(g.cpu);
        struct guest_end end = guest_run(&g, 100);
        assert_int_equal(end.vector, VEC_PF);
        assert_int_equal(end.error, 0x25);
        guest_destroy(&g);
}

/* ---- the instructions ---- */

GUEST_CODE(write_and_read, 64, "wrpkru; xor eax, eax; dec rdx; rdpkru; ud2");
GUEST_CODE(write_pkrs, 64, "wrmsr; xor eax, eax; rdmsr; ud2");

static struct guest_end run_with(struct guest *g, uint64_t cr4, uint64_t rcx, uint64_t rdx)
{
        struct cpu_state *s = setup(g, true, write_and_read, write_and_read_end, GUEST_PTE_U);
        s->cr4 = (s->cr4 & ~(uint64_t)CR4_PKE) | cr4;
        s->gpr[CPU_RAX] = 0xdead00005555aa54;
        s->gpr[CPU_RCX] = rcx;
        s->gpr[CPU_RDX] = rdx;
        cpu_state_changed(g->cpu);
        return guest_run(g, 100);
}

static void pkru_is_written_and_read_by_its_instructions(void **state)
{
        (void)state;
        struct guest g;
        assert_int_equal(run_with(&g, CR4_PKE, 0xffffffff00000000, 0x100000000).rip,
                         USER_CODE + 11);
        assert_int_equal(cpu_state(g.cpu)->pkru, 0x5555aa54);
        assert_int_equal(cpu_state(g.cpu)->gpr[CPU_RAX], 0x5555aa54);
        assert_int_equal(cpu_state(g.cpu)->gpr[CPU_RDX], 0);
        guest_destroy(&g);
        static const struct {
                uint64_t cr4, rcx, rdx;
                int vector;
        } refused[] = { { 0, 0, 0, VEC_UD }, { CR4_PKE, 1, 0, VEC_GP }, { CR4_PKE, 0, 1, VEC_GP } };
        for (unsigned i = 0; i < 3; i++) {
                struct guest_end end = run_with(&g, refused[i].cr4, refused[i].rcx, refused[i].rdx);
                assert_int_equal(end.vector, refused[i].vector);
                assert_int_equal(end.rip, USER_CODE);
                assert_int_equal(cpu_state(g.cpu)->pkru, 0);
                assert_int_equal(cpu_counters(g.cpu)->unimplemented, 0);
                guest_destroy(&g);
        }
}

static void pkrs_is_a_register_of_32_bits(void **state)
{
        (void)state;
        for (unsigned high = 0; high < 2; high++) {
                struct guest g;
                struct cpu_state *s = setup(&g, false, write_pkrs, write_pkrs_end, 0);
                s->gpr[CPU_RAX] = 0x89abcdec;
                s->gpr[CPU_RCX] = 0x6e1;
                s->gpr[CPU_RDX] = high;
                struct guest_end end = guest_run(&g, 100);
                assert_int_equal(end.vector, high ? VEC_GP : VEC_UD);
                assert_int_equal(s->pkrs, high ? 0 : 0x89abcdec);
                assert_int_equal(s->gpr[CPU_RAX], 0x89abcdec);
                guest_destroy(&g);
        }
}

static void cpuid_tells_of_keys(void **state)
{
        (void)state;
        struct guest g;
        struct cpu_state *s = setup(&g, true, read_twice, read_twice_end, 0);
        uint32_t r[4];
        cpu_cpuid(g.cpu, 7, 0, r);
        assert_int_equal(r[2] & 0x80000018, 0x80000018); /* PKU, OSPKE, PKS */
        s->cr4 &= ~(uint64_t)CR4_PKE;
        cpu_cpuid(g.cpu, 7, 0, r);
        assert_int_equal(r[2] & 0x18, 0x8);
        cpu_cpuid(g.cpu, 0xd, 9, r);
        assert_int_equal(r[0], 8);
        assert_int_equal(r[1], 832);
        cpu_cpuid(g.cpu, 0xd, 0, r);
        assert_int_equal(r[0] & 0x200, 0x200);
        assert_int_equal(r[1], 840);
        assert_int_equal(r[2], 840);
        s->xcr0 = 0x203;
        cpu_cpuid(g.cpu, 0xd, 1, r);
        assert_int_equal(r[1], 584); /* compacted */
        guest_destroy(&g);
}

/* ---- what the TLB remembers ---- */

/* A sandbox: the page is opened for a store and shut again, many times, then read. */
GUEST_CODE(sandbox, 64,
           "mov r9d, 1000; 1: xor eax, eax; wrpkru; add qword ptr [rbx], 1; mov eax, r8d; wrpkru; "
           "add qword ptr [r11], 1; dec r9d; jnz 1b; mov rax, [rbx]; ud2");

static void rights_are_taken_and_given_at_once(void **state)
{
        (void)state;
        for (unsigned no_access = 0; no_access < 2; no_access++) {
                struct guest g;
                struct cpu_state *s = setup(&g, true, sandbox, sandbox_end,
                                            KEY(7) | GUEST_PTE_U | GUEST_PTE_W);
                memset(g.ram + KEYED_FRAME, 0, 8);
                s->gpr[8] = rights(7, no_access, true);
                s->gpr[11] = USER_DATA;
                uint64_t misses = cpu_counters(g.cpu)->tlb_misses, count[2];
                struct guest_end end = guest_run(&g, 100000);
                assert_int_equal(end.vector, no_access ? VEC_PF : VEC_UD);
                assert_int_equal(s->gpr[9] & 0xffffffff, 0);
                memcpy(&count[0], g.ram + KEYED_FRAME, 8);
                memcpy(&count[1], g.ram + GUEST_FREE + 0x2000, 8);
                assert_int_equal(count[0], 1000);
                assert_int_equal(count[1], 1000);
                /* The page of the key is walked to each time, at most once for the load and once
                 * for the store; the other one is not. */
                assert_in_range(cpu_counters(g.cpu)->tlb_misses - misses, 1000, 2020);
                guest_destroy(&g);
        }
}

/* Code of a page that may not be read still runs; so do stores next to it. */
GUEST_CODE(run_hidden, 64,
           "mov r9d, 100; 1: xor eax, eax; wrpkru; mov eax, [rbx]; mov eax, r8d; wrpkru; call rbx; "
           "dec r9d; jnz 1b; mov eax, [rbx]; ud2");

static void code_that_may_not_be_read_runs(void **state)
{
        (void)state;
        struct guest g;
        struct cpu_state *s = setup(&g, true, run_hidden, run_hidden_end, KEY(1) | GUEST_PTE_U);
        memcpy(g.ram + KEYED_FRAME, "\xff\xc6\xc3", 3); /* inc esi; ret */
        s->gpr[8] = rights(1, true, true);
        s->gpr[CPU_RSI] = 0;
        struct guest_end end = guest_run(&g, 100000);
        assert_int_equal(end.vector, VEC_PF);
        assert_int_equal(end.error, 0x25);
        assert_int_equal(s->gpr[CPU_RSI], 100);
        guest_destroy(&g);
}

/* ---- PKRU as a component of XSAVE ---- */

#define XSAVE_AREA USER_DATA /* 64-aligned, 4 KiB and more */

GUEST_CODE(do_xsave, 64, "xsave64 [rbx]; ud2");
GUEST_CODE(do_xsavec, 64, "xsavec64 [rbx]; ud2");
GUEST_CODE(do_xrstor, 64, "xrstor64 [rbx]; ud2");

static uint8_t *area_of(struct guest *g)
{
        return g->ram + GUEST_FREE + 0x2000;
}

static struct cpu_state *setup_xsave(struct guest *g, const uint8_t *code, uint32_t mask)
{
        struct cpu_state *s = setup(g, true, code, code + 16, GUEST_PTE_U);
        s->gpr[CPU_RBX] = XSAVE_AREA;
        s->gpr[CPU_RAX] = mask;
        memset(area_of(g), 0, 64);
        memset(area_of(g) + 576, 0xaa, 512);
        memset(area_of(g) + 512, 0, 64);
        return s;
}

static void check_saved(const uint8_t *code, uint32_t mask, uint32_t pkru, unsigned at)
{
        struct guest g;
        struct cpu_state *s = setup_xsave(&g, code, mask);
        s->pkru = pkru;
        uint64_t found, header;
        assert_int_equal(guest_run(&g, 10).vector, VEC_UD);
        memcpy(&found, area_of(&g) + at, 8);
        memcpy(&header, area_of(&g) + 512, 8);
        bool compacted = code == do_xsavec;
        assert_int_equal(header & 0x200, pkru ? mask & 0x200 : 0);
        if (!(mask & 0x200) || (compacted && !pkru))
                assert_int_equal(found, 0xaaaaaaaaaaaaaaaa);
        else
                assert_int_equal(found, pkru);
        memcpy(&found, area_of(&g) + at + 8, 8);
        assert_int_equal(found, 0xaaaaaaaaaaaaaaaa); /* not a byte beyond */
        guest_destroy(&g);
}

static void pkru_is_saved_where_cpuid_says(void **state)
{
        (void)state;
        check_saved(do_xsave, 0x207, 0x55555554, 832);
        check_saved(do_xsave, 0x200, 0x55555554, 832);
        check_saved(do_xsave, 0x207, 0, 832);
        check_saved(do_xsave, 0x007, 0x55555554, 832);
        check_saved(do_xsavec, 0x207, 0x55555554, 832);
        check_saved(do_xsavec, 0x203, 0x55555554, 576);
        check_saved(do_xsavec, 0x203, 0, 576);
}

static void check_restored(uint32_t mask, uint64_t bv, uint64_t compaction, unsigned at,
                           uint32_t expected)
{
        struct guest g;
        struct cpu_state *s = setup_xsave(&g, do_xrstor, mask);
        uint64_t image = 0xffffffff5555aaa8;
        memcpy(area_of(&g) + at, &image, 8);
        memcpy(area_of(&g) + 512, &bv, 8);
        memcpy(area_of(&g) + 520, &compaction, 8);
        memcpy(area_of(&g) + 24, &s->x87.mxcsr, 4);
        s->pkru = 0x1234;
        assert_int_equal(guest_run(&g, 10).vector, VEC_UD);
        assert_int_equal(s->pkru, expected);
        guest_destroy(&g);
}

static void pkru_is_restored_or_initial(void **state)
{
        (void)state;
        check_restored(0x207, 0x200, 0, 832, 0x5555aaa8);
        check_restored(0x200, 0x200, 0, 832, 0x5555aaa8);
        check_restored(0x207, 0x007, 0, 832, 0); /* in its initial state */
        check_restored(0x007, 0x207, 0, 832, 0x1234);
        check_restored(0x207, 0x200, 1ull << 63 | 0x207, 832, 0x5555aaa8);
        check_restored(0x207, 0x200, 1ull << 63 | 0x203, 576, 0x5555aaa8);
        check_restored(0x207, 0, 1ull << 63 | 0x203, 576, 0);
}

GUEST_CODE(restore_and_read, 64, "mov rsi, [r9]; xrstor64 [rbx]; mov rsi, [r9]; ud2");

static void restored_rights_count_at_once(void **state)
{
        (void)state;
        struct guest g;
        struct cpu_state *s = setup(&g, true, restore_and_read, restore_and_read_end,
                                    KEY(2) | GUEST_PTE_U);
        uint64_t bv = 0x200, image = rights(2, true, false);
        memset(area_of(&g), 0, 1024);
        memcpy(area_of(&g) + 512, &bv, 8);
        memcpy(area_of(&g) + 832, &image, 8);
        s->gpr[CPU_RAX] = 0x200;
        s->gpr[CPU_RBX] = XSAVE_AREA;
        s->gpr[9] = KEYED;
        struct guest_end end = guest_run(&g, 10);
        assert_int_equal(end.vector, VEC_PF);
        assert_int_equal(end.error, 0x25);
        assert_int_equal(end.rip, USER_CODE + 7);
        guest_destroy(&g);
}

static void rights_survive_saving(void **state)
{
        (void)state;
        struct guest g;
        auto_buf saved = { 0 };
        struct err err;
        struct cpu_state *s = setup(&g, true, read_twice, read_twice_end, KEY(2) | GUEST_PTE_U);
        s->pkru = rights(2, true, false);
        s->pkrs = 0x30;
        assert_int_equal(cpu_save(g.cpu, &saved, &err), 0);
        s->pkru = s->pkrs = 0;
        cpu_state_changed(g.cpu);
        assert_int_equal(cpu_load(g.cpu, saved.data, saved.size, &err), 0);
        assert_int_equal(s->pkrs, 0x30);
        assert_int_equal(guest_run(&g, 10).error, 0x25);
        guest_destroy(&g);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(keys_deny_what_the_manual_says),
                cmocka_unit_test(other_keys_change_nothing),
                cmocka_unit_test(large_pages_have_keys),
                cmocka_unit_test(pkru_is_written_and_read_by_its_instructions),
                cmocka_unit_test(pkrs_is_a_register_of_32_bits),
                cmocka_unit_test(cpuid_tells_of_keys),
                cmocka_unit_test(rights_are_taken_and_given_at_once),
                cmocka_unit_test(code_that_may_not_be_read_runs),
                cmocka_unit_test(pkru_is_saved_where_cpuid_says),
                cmocka_unit_test(pkru_is_restored_or_initial),
                cmocka_unit_test(restored_rights_count_at_once),
                cmocka_unit_test(rights_survive_saving),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
