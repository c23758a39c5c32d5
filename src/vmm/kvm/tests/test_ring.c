/* What a ring tells, and which kernels have one that tells all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>

#include <cmocka.h>

#include "vmm/kvm/kvm.h"

/* A kernel that has some capabilities. */
static struct {
        uint32_t has[2];   /* these */
        int most_bytes;    /* of a ring */
        uint32_t enabled;  /* this one; 0: none */
        unsigned signals;  /* that come while rings are reset */
        int refuses_reset; /* errno; 0: it resets */
        unsigned resets;
} kernel;

#define FD 77 /* of the machine */
static int told(int fd, unsigned long request, uintptr_t argument);
#define ioctl(fd, request, argument) told(fd, request, (uintptr_t)(argument))
#include "vmm/kvm/ring.c"
#undef ioctl

static int reset_rings(void)
{
        kernel.resets++;
        errno = kernel.refuses_reset;
        if (kernel.signals) {
                kernel.signals--;
                errno = EINTR;
        }
        return errno ? -1 : 0;
}

static int told(int fd, unsigned long request, uintptr_t argument)
{
        const struct kvm_enable_cap *cap = (const struct kvm_enable_cap *)argument;
        assert_int_equal(fd, FD);
        switch (request) {
        case KVM_CHECK_EXTENSION:
                return argument == kernel.has[0] || argument == kernel.has[1] ? kernel.most_bytes
                                                                              : 0;
        case KVM_ENABLE_CAP:
                assert_int_equal(cap->args[0], ENTRIES * sizeof(struct kvm_dirty_gfn));
                kernel.enabled = cap->cap;
                return 0;
        case KVM_RESET_DIRTY_RINGS:
                return reset_rings();
        default:
                fail_msg("request 0x%lx", request);
                return -1;
        }
}

static void has(uint32_t one, uint32_t other, int most_bytes)
{
        memset(&kernel, 0, sizeof(kernel));
        kernel.has[0] = one;
        kernel.has[1] = other;
        kernel.most_bytes = most_bytes;
}

static void is_chosen_where_it_tells_all(void **state)
{
        (void)state;
        struct kvm_machine k = { .vm_fd = FD };
        has(KVM_CAP_DIRTY_LOG_RING, KVM_CAP_DIRTY_LOG_RING_ACQ_REL, 1 << 20);
        assert_true(kvm_rings_enable(&k));
        assert_int_equal(k.ring_length, ENTRIES);
        assert_int_equal(kernel.enabled, KVM_CAP_DIRTY_LOG_RING_ACQ_REL);
        has(KVM_CAP_DIRTY_LOG_RING, 0, 1 << 20); /* before Linux 6.1 */
        assert_true(kvm_rings_enable(&k));
        assert_int_equal(kernel.enabled, KVM_CAP_DIRTY_LOG_RING);
}

static void is_not_chosen_elsewhere(void **state)
{
        (void)state;
        struct kvm_machine k = { .vm_fd = FD };
        has(0, 0, 0);
        assert_false(kvm_rings_enable(&k));
        has(KVM_CAP_DIRTY_LOG_RING_ACQ_REL, KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP, 1 << 20);
        assert_false(kvm_rings_enable(&k));
        has(KVM_CAP_DIRTY_LOG_RING_ACQ_REL, 0, 4096); /* too small */
        assert_false(kvm_rings_enable(&k));
        assert_int_equal(kernel.enabled, 0);
        assert_int_equal(k.ring_length, 0);
}

/* ---- entries ---- */

#define LENGTH    8
#define HIGH      (1ull << 32)
#define HIGH_PAGE (HIGH / MEMORY_PAGE_SIZE)

static struct kvm_dirty_gfn entries[LENGTH];
static uint64_t words[(HIGH_PAGE + 64) / 64];
/* 64 pages low, 16 above the hole. */
static const struct memory memory = { .slots = { { .size_bytes = 64 * MEMORY_PAGE_SIZE },
                                                 { .base = { HIGH },
                                                   .size_bytes = 16 * MEMORY_PAGE_SIZE } },
                                      .length = 2,
                                      .dirty = words };
static struct kvm_ring ring;

static int fresh(void **state)
{
        (void)state;
        memset(entries, 0, sizeof(entries));
        memset(words, 0, sizeof(words));
        ring = (struct kvm_ring){ .entries = entries, .length = LENGTH };
        return 0;
}

static void push(unsigned at, uint32_t slot, uint64_t page)
{
        entries[at % LENGTH] = (struct kvm_dirty_gfn){ KVM_DIRTY_GFN_F_DIRTY, slot, page };
}

/* As KVM_RESET_DIRTY_RINGS. */
static void free_taken(void)
{
        for (unsigned i = 0; i < LENGTH; i++)
                if (entries[i].flags & KVM_DIRTY_GFN_F_RESET)
                        entries[i].flags = 0;
}

static int take(void)
{
        struct err err = { 0 };
        return kvm_ring_take(&ring, &memory, &err);
}

static void tells_pages_of_each_slot(void **state)
{
        (void)state;
        push(0, 0, 3);
        push(1, 1, 15);
        push(3, 0, 9); /* behind one that is not there yet */
        assert_int_equal(take(), 2);
        assert_int_equal(words[0], 1ull << 3);
        assert_int_equal(words[HIGH_PAGE / 64], 1ull << 15);
        assert_int_equal(entries[0].flags, KVM_DIRTY_GFN_F_RESET);
        assert_int_equal(entries[1].flags, KVM_DIRTY_GFN_F_RESET);
        assert_int_equal(entries[3].flags, KVM_DIRTY_GFN_F_DIRTY);
        push(2, 0, 63);
        assert_int_equal(take(), 2);
        assert_int_equal(words[0], 1ull << 3 | 1ull << 9 | 1ull << 63);
}

static void goes_round(void **state)
{
        (void)state;
        for (unsigned i = 0; i < LENGTH; i++)
                push(i, 0, i);
        assert_int_equal(take(), LENGTH);
        assert_int_equal(words[0], 0xff);
        assert_int_equal(take(), 0); /* all taken, and none free */
        free_taken();
        assert_int_equal(take(), 0);
        push(LENGTH, 0, 40);
        assert_int_equal(take(), 1);
        assert_int_equal(words[0], 0xff | 1ull << 40);
        ring.next = UINT32_MAX; /* the last entry, then the first */
        free_taken();
        push(LENGTH - 1, 0, 41);
        push(0, 0, 42);
        assert_int_equal(take(), 2);
        assert_int_equal(words[0], 0xff | 7ull << 40);
}

static void refuses_what_is_not_there(void **state)
{
        (void)state;
        static const struct {
                uint32_t slot;
                uint64_t page;
        } wrong[] = { { 0, 64 }, { 1, 16 }, { 2, 0 }, { 1u << 16, 0 }, { UINT32_MAX, UINT64_MAX } };
        for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
                struct err err = { 0 };
                fresh(NULL);
                push(0, wrong[i].slot, wrong[i].page);
                assert_int_equal(kvm_ring_take(&ring, &memory, &err), -EIO);
                assert_non_null(strstr(err_text(&err), "which is not there"));
                assert_int_equal(words[0], 0);
                assert_int_equal(words[HIGH_PAGE / 64], 0);
        }
}

static void is_reset_in_spite_of_signals(void **state)
{
        (void)state;
        struct err err = { 0 };
        struct machine m = { .memory = memory };
        struct kvm_machine k = { .machine = &m, .vm_fd = FD };
        struct vcpu vcpu = { 0 };
        struct kvm_vcpu v = { .vcpu = &vcpu, .kvm = &k, .ring = ring };
        push(0, 0, 5);
        has(0, 0, 0);
        kernel.signals = 2;
        assert_int_equal(kvm_ring_empty(&v, &err), 0);
        assert_int_equal(kernel.resets, 3);
        assert_int_equal(words[0], 1ull << 5);
        kernel.refuses_reset = ENXIO;
        assert_int_equal(kvm_ring_empty(&v, &err), -ENXIO);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(is_chosen_where_it_tells_all),
                cmocka_unit_test(is_not_chosen_elsewhere),
                cmocka_unit_test_setup(tells_pages_of_each_slot, fresh),
                cmocka_unit_test_setup(goes_round, fresh),
                cmocka_unit_test_setup(refuses_what_is_not_there, fresh),
                cmocka_unit_test_setup(is_reset_in_spite_of_signals, fresh),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
