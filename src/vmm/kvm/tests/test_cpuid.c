#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "vmm/kvm/cpuid.c"

static struct kvm_cpuid_entry2 amended(uint32_t leaf, uint32_t subleaf, unsigned index,
                                       unsigned vcpus)
{
        struct kvm_cpuid_entry2 e = { .function = leaf,
                                      .index = subleaf,
                                      .eax = UINT32_MAX,
                                      .ebx = UINT32_MAX,
                                      .ecx = UINT32_MAX,
                                      .edx = UINT32_MAX };
        amend(&e, index, vcpus);
        return e;
}

static void what_cannot_be_saved_is_not_offered(void **state)
{
        (void)state;
        struct kvm_cpuid_entry2 e = amended(LEAF_XSAVE, 0, 0, 1);
        assert_int_equal(e.eax, 7);
        assert_int_equal(e.edx, 0);
        assert_int_equal(e.ebx, 832);
        e = amended(LEAF_XSAVE, 1, 0, 1);
        assert_int_equal(e.eax & 0x18, 0);
        assert_int_equal(e.ecx | e.edx, 0);
        assert_int_equal(amended(LEAF_XSAVE, 2, 0, 1).eax, UINT32_MAX);
        for (unsigned i = 3; i < 64; i++)
                assert_int_equal(amended(LEAF_XSAVE, i, 0, 1).eax, 0);
        e = amended(LEAF_FEATURES, 0, 0, 1);
        assert_int_equal(e.ebx & 1u << 16, 0);     /* AVX512F */
        assert_int_equal(e.ebx & 1u << 5, 1 << 5); /* AVX2 */
        assert_int_equal(e.ecx & 1u << 3, 0);      /* PKU */
        assert_int_equal(e.ecx & 1u << 7, 0);      /* CET */
        assert_int_equal(e.edx & 1u << 24, 0);     /* AMX */
}

static void vcpus_are_cores_of_one_package(void **state)
{
        (void)state;
        struct kvm_cpuid_entry2 e = amended(1, 0, 5, 6);
        assert_int_equal(e.ebx >> 24, 5);
        assert_int_equal(e.ebx >> 16 & 0xff, 6);
        e = amended(LEAF_TOPOLOGY, 1, 5, 6);
        assert_int_equal(e.eax, 3); /* bits that hold 6 */
        assert_int_equal(e.ebx, 6);
        assert_int_equal(e.edx, 5);
        assert_int_equal(amended(LEAF_TOPOLOGY, 2, 5, 6).ebx, 0);
}

static void a_model_masks_and_reads_what_the_host_gives(void **state)
{
        (void)state;
        struct kvm_cpuid_entry2 e = amended(1, 0, 5, 6);
        mask(cpu_model_find("x86-64-v2"), &e);
        assert_int_equal(e.ecx, 0x81200000 | 0x982201);
        assert_int_equal(e.ebx >> 24, 5);
        e = amended(LEAF_XSAVE, 0, 0, 1);
        mask(cpu_model_find("x86-64-v2"), &e);
        assert_int_equal(e.eax | e.ebx | e.ecx | e.edx, 0);
        auto_free struct kvm_cpuid2 *host = xcalloc(1,
                                                    sizeof(*host) + 2 * sizeof(host->entries[0]));
        host->nent = 2;
        host->entries[0] = (struct kvm_cpuid_entry2){ .function = 7, .index = 0, .ebx = 1 };
        host->entries[1] = (struct kvm_cpuid_entry2){ .function = 7, .index = 1 };
        uint32_t r[4];
        read_leaf(host, 7, 0, r);
        assert_int_equal(r[1], 1);
        read_leaf(host, 7, 1, r);
        assert_int_equal(r[1], 0);
        read_leaf(host, 8, 0, r);
        assert_int_equal(r[0] | r[1] | r[2] | r[3], 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(what_cannot_be_saved_is_not_offered),
                cmocka_unit_test(vcpus_are_cores_of_one_package),
                cmocka_unit_test(a_model_masks_and_reads_what_the_host_gives),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
