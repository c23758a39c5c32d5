/* An instruction by the software CPU in a vCPU of this host's KVM, where it has one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/str.h"
#include "vmm/kvm/kvm.h"

#define CODE     0x1000
#define MEMORY   (4u << 20)
#define HEADER   512
#define ZMM_HIGH 0xe0ull /* opmasks, the upper halves of ZMM0 to 15, ZMM16 to 31 */

/* movd %eax, %xmm3; xgetbv */
static const uint8_t code[] = { 0x66, 0x0f, 0x6e, 0xd8, 0x0f, 0x01, 0xd0 };

static struct machine *make(struct loop *loop, uint64_t xcr0)
{
        struct err err = { 0 };
        struct cpu_state s;
        struct machine *m = NULL;
        const struct machine_options options = { .cpu = &vcpu_kvm,
                                                 .vcpus = 1,
                                                 .memory_bytes = MEMORY };
        if (machine_create(loop, &options, &m, &err) < 0)
                fail_msg("%s", err_text(&err));
        assert_int_equal(memory_write(&m->memory, gpa(CODE), code, sizeof(code)), 0);
        assert_int_equal(vcpu_kvm.get_state(&m->vcpus[0], &s, &err), 0);
        s.seg[CPU_CS].base = s.seg[CPU_CS].selector = 0;
        s.rip = CODE;
        s.cr4 |= 0x40600; /* OSXSAVE, OSXMMEXCPT, OSFXSR */
        s.gpr[CPU_RAX] = 0x01020304;
        if (vcpu_kvm.set_state(&m->vcpus[0], &s, &err) < 0)
                fail_msg("%s", err_text(&err));
        const struct kvm_vcpu *v = m->vcpus[0].provider;
        struct kvm_xcrs xcrs = { .nr_xcrs = 1, .xcrs[0].value = xcr0 };
        if (ioctl(v->fd, KVM_SET_XCRS, &xcrs) < 0) { /* it keeps to what the guest was told */
                assert_int_equal(ioctl(v->fd, KVM_GET_XCRS, &xcrs), 0);
                assert_int_equal(xcrs.xcrs[0].value & ~KVM_XCR0_KNOWN, 0);
                machine_destroy(m);
                return NULL;
        }
        return m;
}

static uint64_t host_components(void)
{
        uint32_t a, b, c, d;
        __asm__("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(0xd), "c"(0));
        return a;
}

/* Everything behind AVX, in a pattern. */
static void fill(const struct kvm_vcpu *v, struct kvm_xsave *x)
{
        uint64_t present;
        uint8_t *area = (uint8_t *)x->region;
        assert_int_equal(ioctl(v->fd, KVM_GET_XSAVE, x), 0);
        memcpy(&present, area + HEADER, sizeof(present));
        present |= ZMM_HIGH;
        memcpy(area + HEADER, &present, sizeof(present));
        for (unsigned component = 5; component <= 7; component++) {
                uint32_t size, at, c, d;
                __asm__("cpuid"
                        : "=a"(size), "=b"(at), "=c"(c), "=d"(d)
                        : "a"(0xd), "c"(component));
                memset(area + at, 0x50 + (int)component, size);
        }
        assert_int_equal(ioctl(v->fd, KVM_SET_XSAVE, x), 0);
        assert_int_equal(ioctl(v->fd, KVM_GET_XSAVE, x), 0);
}

static void expect_kept(const uint8_t *before, const uint8_t *after)
{
        for (unsigned component = 5; component <= 7; component++) {
                uint32_t size, at, c, d;
                __asm__("cpuid"
                        : "=a"(size), "=b"(at), "=c"(c), "=d"(d)
                        : "a"(0xd), "c"(component));
                assert_int_equal(before[at], 0x50 + component);
                assert_memory_equal(after + at, before + at, size);
        }
}

static void registers_that_the_software_cpu_has_not_survive_it(void **state)
{
        (void)state;
        struct err err = { 0 };
        uint64_t xcr0 = KVM_XCR0_KNOWN | ZMM_HIGH;
        struct kvm_xsave before, after;
        struct cpu_state s;
        struct loop *loop = NULL;
        if (access("/dev/kvm", R_OK | W_OK) < 0 || (host_components() & xcr0) != xcr0)
                return;
        assert_int_equal(loop_create(&loop, &err), 0);
        struct machine *m = make(loop, xcr0);
        if (m) {
                struct kvm_vcpu *v = m->vcpus[0].provider;
                fill(v, &before);
                for (unsigned i = 0; i < 2; i++)
                        if (kvm_rescue(v, &err) < 0)
                                fail_msg("%s", err_text(&err));
                assert_int_equal(ioctl(v->fd, KVM_GET_XSAVE, &after), 0);
                expect_kept((const uint8_t *)before.region, (const uint8_t *)after.region);
                assert_int_equal(kvm_get_state(v, &s, &err), 0);
                assert_int_equal(s.vec[3].dwords[0], 0x01020304);
                assert_int_equal(s.gpr[CPU_RAX], xcr0);
                assert_int_equal(s.rip, CODE + sizeof(code));
                machine_destroy(m);
        }
        loop_destroy(loop);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(registers_that_the_software_cpu_has_not_survive_it),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
