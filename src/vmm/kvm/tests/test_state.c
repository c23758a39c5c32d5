#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>

#include <cmocka.h>

/* A vCPU's vectors in a kernel that has more components than we know. */
static int told(unsigned long request, void *argument);
#define ioctl(fd, request, argument) ((void)(fd), told(request, argument))
#include "vmm/kvm/state.c"
#undef ioctl

#define XCR0_AVX512  0xe7ull
#define XSAVE_OPMASK 1088 /* where the processors that have AVX-512 put it */

static struct {
        struct kvm_xcrs xcrs;
        unsigned xsave_sets, xcrs_sets;
} kernel;
static struct kvm_xsave xsave_area;

static int told(unsigned long request, void *argument)
{
        switch (request) {
        case KVM_GET_XSAVE:
                memcpy(argument, &xsave_area, sizeof(xsave_area));
                return 0;
        case KVM_SET_XSAVE:
                memcpy(&xsave_area, argument, sizeof(xsave_area));
                kernel.xsave_sets++;
                return 0;
        case KVM_GET_XCRS:
                memcpy(argument, &kernel.xcrs, sizeof(kernel.xcrs));
                return 0;
        case KVM_SET_XCRS:
                memcpy(&kernel.xcrs, argument, sizeof(kernel.xcrs));
                kernel.xcrs_sets++;
                return 0;
        case KVM_GET_REGS:
                memset(argument, 0, sizeof(struct kvm_regs));
                return 0;
        case KVM_GET_SREGS:
                memset(argument, 0, sizeof(struct kvm_sregs));
                return 0;
        case KVM_GET_DEBUGREGS:
                memset(argument, 0, sizeof(struct kvm_debugregs));
                return 0;
        case KVM_GET_VCPU_EVENTS:
                memset(argument, 0, sizeof(struct kvm_vcpu_events));
                return 0;
        case KVM_GET_MP_STATE:
                memset(argument, 0, sizeof(struct kvm_mp_state));
                return 0;
        case KVM_GET_MSRS:
        case KVM_SET_MSRS:
                return 1;
        default:
                return 0;
        }
}

static uint8_t *area(void)
{
        return (uint8_t *)xsave_area.region;
}

static uint64_t present(void)
{
        uint64_t bits;
        memcpy(&bits, area() + XSAVE_HEADER, sizeof(bits));
        return bits;
}

static struct vcpu vcpu;
static struct kvm_vcpu provider = { .vcpu = &vcpu };

static int set_up(void **state)
{
        uint64_t bits = XCR0_AVX512;
        (void)state;
        memset(&kernel, 0, sizeof(kernel));
        memset(area(), 0x5a, sizeof(xsave_area.region));
        memset(area() + XSAVE_HEADER, 0, 64);
        memcpy(area() + XSAVE_HEADER, &bits, sizeof(bits));
        kernel.xcrs = (struct kvm_xcrs){ .nr_xcrs = 1, .xcrs[0].value = XCR0_AVX512 };
        return 0;
}

static void what_is_known_changes_and_the_rest_stays(void **state)
{
        (void)state;
        struct cpu_state s;
        assert_int_equal(kvm_get_state(&provider, &s, NULL), 0);
        assert_int_equal(s.xcr0, XCR0_AVX512);
        assert_int_equal(s.vec[3].bytes[31], 0x5a);
        memset(s.vec[3].bytes, 0x11, sizeof(s.vec[3].bytes));
        assert_int_equal(kvm_set_state(&provider, &s, NULL), 0);
        assert_int_equal(present(), XCR0_AVX512);
        assert_int_equal(kernel.xcrs.xcrs[0].value, XCR0_AVX512);
        assert_int_equal(area()[XSAVE_XMM + 16 * 3], 0x11);
        assert_int_equal(area()[XSAVE_YMM_HIGH + 16 * 3], 0x11);
        for (size_t i = XSAVE_OPMASK; i < sizeof(xsave_area.region); i++)
                assert_int_equal(area()[i], 0x5a);
}

static void vectors_that_did_not_change_are_not_set(void **state)
{
        (void)state;
        struct cpu_state s;
        assert_int_equal(kvm_get_state(&provider, &s, NULL), 0);
        s.gpr[CPU_RAX] = 7;
        assert_int_equal(kvm_set_state(&provider, &s, NULL), 0);
        assert_int_equal(kernel.xsave_sets, 0);
        assert_int_equal(kernel.xcrs_sets, 0);
        s.x87.control ^= 1;
        s.xcr0 = 7;
        assert_int_equal(kvm_set_state(&provider, &s, NULL), 0);
        assert_int_equal(kernel.xsave_sets, 1);
        assert_int_equal(kernel.xcrs_sets, 1);
        assert_int_equal(kernel.xcrs.xcrs[0].value, 7);
}

static void a_component_in_its_initial_state_is_as_the_area_says(void **state)
{
        (void)state;
        struct cpu_state s;
        uint64_t bits = 3;
        memcpy(area() + XSAVE_HEADER, &bits, sizeof(bits));
        assert_int_equal(kvm_get_state(&provider, &s, NULL), 0);
        assert_int_equal(s.vec[3].bytes[31], 0);
        s.vec[3].bytes[31] = 1;
        assert_int_equal(kvm_set_state(&provider, &s, NULL), 0);
        assert_int_equal(present(), 7);
        assert_int_equal(area()[XSAVE_YMM_HIGH + 16 * 3 + 15], 1);
        assert_int_equal(area()[XSAVE_YMM_HIGH + 16 * 4], 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup(what_is_known_changes_and_the_rest_stays, set_up),
                cmocka_unit_test_setup(vectors_that_did_not_change_are_not_set, set_up),
                cmocka_unit_test_setup(a_component_in_its_initial_state_is_as_the_area_says,
                                       set_up),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
