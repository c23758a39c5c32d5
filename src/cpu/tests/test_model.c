#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/str.h"
#include "cpu/core.h"
#include "cpu/model.h"
#include "cpu/tests/guest.h"

/* ---- leaves ---- */

static uint32_t masked(const char *model, uint32_t leaf, uint32_t subleaf, unsigned reg)
{
        uint32_t r[4] = { UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX };
        cpu_model_mask(cpu_model_find(model), leaf, subleaf, r);
        return r[reg];
}

static void levels_are_the_abi_s(void **state)
{
        (void)state;
        /* SSE3 SSSE3 CX16 SSE4.1 SSE4.2 POPCNT; x2APIC, TSC deadline, hypervisor */
        uint32_t v2 = 0x00982201, machine = 0x81200000;
        /* FMA MOVBE XSAVE OSXSAVE AVX F16C */
        uint32_t v3 = v2 | 0x3c401000;
        assert_int_equal(masked("x86-64", 1, 0, 2), machine);
        assert_int_equal(masked("x86-64-v2", 1, 0, 2), v2 | machine);
        assert_int_equal(masked("x86-64-v3", 1, 0, 2), v3 | machine);
        /* ECX counts only where there are subleaves. */
        assert_int_equal(masked("x86-64-v3", 1, 0x1234, 2), v3 | machine);
        assert_int_equal(masked("x86-64-v3", 7, 0x1234, 1), 0);
        assert_int_equal(masked("x86-64-v2", 7, 0, 1), 0);
        assert_int_equal(masked("x86-64-v3", 7, 0, 1), 0x1a9); /* FSGSBASE BMI1 AVX2 SMEP BMI2 */
        assert_int_equal(masked("x86-64-v3", 7, 0, 0), 0);
        assert_int_equal(masked("x86-64-v3", 7, 0, 2) | masked("x86-64-v3", 7, 0, 3), 0);
        assert_int_equal(masked("x86-64-v3", 7, 1, 0), 0);
        assert_int_equal(masked("x86-64-v2", 0x80000001, 0, 2), 1);
        assert_int_equal(masked("x86-64-v3", 0x80000001, 0, 2), 0x21);
        assert_int_equal(masked("x86-64-v2", 0x80000001, 0, 3) & 0x2c100800, 0x28100800);
}

static void what_goes_beyond_is_zero_and_what_is_no_feature_stays(void **state)
{
        (void)state;
        for (unsigned i = 0; i < 4; i++) {
                assert_int_equal(masked("x86-64-v3", 0xa, 0, i), 0);        /* counters */
                assert_int_equal(masked("x86-64-v3", 0x1d, 0, i), 0);       /* tiles */
                assert_int_equal(masked("x86-64-v3", 0x80000021, 0, i), 0); /* AMD's second page */
                assert_int_equal(masked("x86-64-v2", 0xd, 0, i), 0);
                assert_int_equal(masked("x86-64-v2", 0xd, 2, i), 0);
                assert_int_equal(masked("x86-64-v3", 0xd, 9, i), 0);
                assert_int_equal(masked("x86-64-v3", 4, 1, i), UINT32_MAX);
                assert_int_equal(masked("x86-64-v3", 0x40000001, 0, i), UINT32_MAX);
                assert_int_equal(masked("host", 0xd, 0, i), UINT32_MAX);
        }
        assert_int_equal(masked("x86-64-v3", 0xd, 0, 0), 7);
        assert_int_equal(masked("x86-64-v3", 0xd, 0, 2), 832);
        assert_int_equal(masked("x86-64-v3", 0xd, 1, 0), 1); /* XSAVEOPT */
        assert_int_equal(masked("x86-64-v3", 0xd, 2, 0), UINT32_MAX);
        assert_int_equal(masked("x86-64-v3", 0, 0, 0), 0xd);
        assert_int_equal(masked("x86-64-v3", 0x80000000, 0, 0), 0x80000008);
        assert_int_equal(masked("x86-64-v3", 0x80000007, 0, 3), 0x100);
        assert_int_equal(masked("x86-64-v3", 0x80000008, 0, 1), 0);
}

/* A host with everything but what `arg` names as leaf, register and bit. */
static void read_all_but(void *arg, uint32_t leaf, uint32_t subleaf, uint32_t r[4])
{
        const uint32_t *hole = arg;
        (void)subleaf;
        memset(r, 0xff, 16);
        if (leaf == hole[0])
                r[hole[1]] &= ~(1u << hole[2]);
}

static void a_host_that_lacks_something_is_told_what_and_what_it_can_be(void **state)
{
        (void)state;
        struct err err = { 0 };
        uint32_t avx2[3] = { 7, 1, 5 }, popcnt[3] = { 1, 2, 23 }, aes[3] = { 1, 2, 25 };
        const struct cpu_model *v2 = cpu_model_find("x86-64-v2"), *v3 = cpu_model_find("x86-64-v3");
        assert_int_equal(cpu_model_check(v3, read_all_but, aes, &err), 0);
        assert_int_equal(cpu_model_check(v2, read_all_but, avx2, &err), 0);
        assert_int_equal(cpu_model_check(v3, read_all_but, avx2, &err), -ENOTSUP);
        assert_string_equal(err.text, "--cpu-model 'x86-64-v3': this host's processor lacks avx2; "
                                      "it can be 'x86-64-v2'");
        assert_int_equal(cpu_model_check(v2, read_all_but, popcnt, &err), -ENOTSUP);
        assert_non_null(strstr(err.text, "lacks popcnt; it can be 'x86-64'"));
        assert_int_equal(cpu_model_check(NULL, read_all_but, popcnt, &err), 0);
        assert_null(cpu_model_find("host"));
}

/* ---- the processor ---- */

GUEST_CODE(sse2_code, 64, "mov eax, 7; paddq xmm0, xmm1; ud2");
GUEST_CODE(lahf_code, 64, "mov eax, 7; lahf; ud2");
GUEST_CODE(fisttp_code, 64, "fld1; fisttp dword ptr [rbx]; ud2");
GUEST_CODE(pshufb_code, 64, "mov eax, 7; pshufb xmm0, xmm1; ud2");
GUEST_CODE(cx16_code, 64, "mov eax, 7; cmpxchg16b [rbx]; ud2");
GUEST_CODE(avx2_code, 64, "mov eax, 7; vpaddd ymm0, ymm0, ymm0; ud2");
GUEST_CODE(bmi2_code, 64, "mov eax, 7; rorx rbx, rbx, 3; ud2");
GUEST_CODE(popcnt_code, 64, "mov eax, 7; popcnt eax, eax; ud2");
GUEST_CODE(rdrand_code, 64, "mov eax, 7; rdrand ebx; ud2");
GUEST_CODE(xsavec_code, 64, "mov eax, 7; xsavec [rbx]; ud2");
GUEST_CODE(rdpkru_code, 64, "mov ecx, 0; rdpkru; ud2");
GUEST_CODE(serialize_code, 64, "mov ecx, 0; .byte 0x0f, 0x01, 0xe8; ud2");
/* A kernel's, which are not defined but refused. */
GUEST_CODE(smap_code, 64, "mov ecx, 0x200000; mov rax, cr4; or rax, rcx; mov cr4, rax; ud2");
GUEST_CODE(smep_code, 64, "mov ecx, 0x100000; mov rax, cr4; or rax, rcx; mov cr4, rax; ud2");
GUEST_CODE(keys_code, 64, "mov eax, 0x203; mov edx, 0; mov ecx, 0; xsetbv; ud2");
GUEST_CODE(avx_state_code, 64, "mov eax, 7; mov edx, 0; mov ecx, 0; xsetbv; ud2");
GUEST_CODE(capabilities_code, 64, "mov ecx, 0x10a; rdmsr; ud2");
GUEST_CODE(speculation_code, 64, "mov ecx, 0x48; mov eax, 1; mov edx, 0; wrmsr; ud2");

struct sample {
        const char *name;
        const uint8_t *code, *end;
        bool user;
        /* With what it ends by each model: 0 where it gets by, to its last instruction. */
        uint8_t v1, v2, v3;
};
#define SAMPLE(name, ...)                                                                          \
        {                                                                                          \
#name, name##_code, name##_code_end, __VA_ARGS__                                   \
        }

static const struct sample samples[] = {
        SAMPLE(sse2, true, 0, 0, 0),
        SAMPLE(lahf, true, 6, 0, 0),
        SAMPLE(fisttp, true, 6, 0, 0),
        SAMPLE(pshufb, true, 6, 0, 0),
        SAMPLE(cx16, true, 6, 0, 0),
        SAMPLE(popcnt, true, 6, 0, 0),
        SAMPLE(avx2, true, 6, 6, 0),
        SAMPLE(bmi2, true, 6, 6, 0),
        SAMPLE(rdrand, true, 6, 6, 6),
        SAMPLE(xsavec, true, 6, 6, 6),
        SAMPLE(rdpkru, true, 6, 6, 6),
        SAMPLE(serialize, true, 6, 6, 6),
        SAMPLE(smep, false, 13, 13, 0),
        SAMPLE(smap, false, 13, 13, 13),
        SAMPLE(keys, false, 6, 6, 13),
        SAMPLE(avx_state, false, 6, 6, 0),
        SAMPLE(capabilities, false, 13, 13, 13),
        SAMPLE(speculation, false, 13, 13, 13),
};

static void expect(const struct sample *sample, const char *model, unsigned vector,
                   enum cpu_translation translation)
{
        struct guest g;
        guest_create(&g);
        assert_int_equal(cpu_set_model(g.cpu, cpu_model_find(model), NULL), 0);
        cpu_set_translation(g.cpu, translation);
        struct cpu_state *s = guest_code(&g, sample->user, sample->code, sample->end);
        if (streq(model, "host"))
                s->cr4 |= CR4_PKE;
        cpu_state_changed(g.cpu);
        struct guest_end end = guest_run(&g,
                                         translation == CPU_TRANSLATE_NEVER ? 100 : CPU_NO_BUDGET);
        uint64_t last = USER_CODE + (uint64_t)(sample->end - sample->code) - 2;
        if (end.vector != (int)(vector ? vector : 6) || (end.rip == last) != !vector)
                fail_msg("%s under %s: vector %d at 0x%llx", sample->name, model, end.vector,
                         (unsigned long long)end.rip);
        guest_destroy(&g);
}

static void what_is_hidden_is_not_there(void **state)
{
        (void)state;
        static const enum cpu_translation ways[] = { CPU_TRANSLATE_NEVER, CPU_TRANSLATE_ALWAYS };
        for (unsigned i = 0; i < ELEMENTS(samples); i++)
                for (unsigned k = 0; k < ELEMENTS(ways); k++) {
                        expect(&samples[i], "x86-64", samples[i].v1, ways[k]);
                        expect(&samples[i], "x86-64-v2", samples[i].v2, ways[k]);
                        expect(&samples[i], "x86-64-v3", samples[i].v3, ways[k]);
                        expect(&samples[i], "host", 0, ways[k]);
                }
}

GUEST_CODE(zeros_code, 64, "mov eax, 0x50; tzcnt ecx, eax; lzcnt edx, eax; ud2");

static void counts_of_zeros_are_scans_for_who_does_not_know_them(void **state)
{
        (void)state;
        static const struct {
                const char *model;
                uint64_t rdx;
        } all[] = { { "x86-64", 6 }, { "x86-64-v2", 6 }, { "x86-64-v3", 25 } };
        for (unsigned i = 0; i < 2 * ELEMENTS(all); i++) {
                struct guest g;
                guest_create(&g);
                assert_int_equal(cpu_set_model(g.cpu, cpu_model_find(all[i / 2].model), NULL), 0);
                cpu_set_translation(g.cpu, i % 2 ? CPU_TRANSLATE_ALWAYS : CPU_TRANSLATE_NEVER);
                struct cpu_state *s = guest_code(&g, true, zeros_code, zeros_code_end);
                assert_int_equal(guest_run(&g, i % 2 ? CPU_NO_BUDGET : 100).vector, 6);
                assert_int_equal(s->gpr[CPU_RCX], 4);
                assert_int_equal(s->gpr[CPU_RDX], all[i / 2].rdx);
                guest_destroy(&g);
        }
}

static void a_state_that_uses_more_is_not_taken(void **state)
{
        (void)state;
        struct guest g;
        struct err err = { 0 };
        auto_buf saved = { 0 };
        guest_create(&g);
        guest_long_mode(&g, false);
        cpu_state(g.cpu)->cr4 |= CR4_SMAP;
        assert_int_equal(cpu_save(g.cpu, &saved, NULL), 0);
        assert_int_equal(cpu_load(g.cpu, saved.data, saved.size, NULL), 0);
        assert_int_equal(cpu_set_model(g.cpu, cpu_model_find("x86-64-v3"), NULL), 0);
        assert_int_equal(cpu_load(g.cpu, saved.data, saved.size, &err), -EINVAL);
        assert_non_null(strstr(err.text, "uses features that this processor does not have"));
        guest_destroy(&g);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(levels_are_the_abi_s),
                cmocka_unit_test(what_goes_beyond_is_zero_and_what_is_no_feature_stays),
                cmocka_unit_test(a_host_that_lacks_something_is_told_what_and_what_it_can_be),
                cmocka_unit_test(what_is_hidden_is_not_there),
                cmocka_unit_test(counts_of_zeros_are_scans_for_who_does_not_know_them),
                cmocka_unit_test(a_state_that_uses_more_is_not_taken),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
