/* Which pages a guest writes, under each provider that this host has. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/str.h"
#include "vmm/dirty.h"
#include "vmm/jail/thread.h"

#define CODE    0x1000
#define COUNTER 0x3000
#define ASKED   0x4000     /* only read by the guest */
#define ANSWER  0x5000     /* read first, then written */
#define MANY    (1u << 20) /* from here on all is written */
#define MEMORY  (32u << 20)

/* In real mode: again: inc word [COUNTER]; mov bl, [ANSWER]; mov al, [ASKED]; test al, al; jz
 * again; mov [ANSWER], al; jmp again */
static const uint8_t code[] = { 0xff, 0x06, 0x00, 0x30, 0x8a, 0x1e, 0x00, 0x50, 0xa0, 0x00,
                                0x40, 0x84, 0xc0, 0x74, 0xf1, 0xa2, 0x00, 0x50, 0xeb, 0xec };

/* In 32 bits: again: mov edi, MANY; next: inc byte [edi]; add edi, 4096; cmp edi, MEMORY; jb next;
 * inc word [COUNTER]; jmp again */
static const uint8_t code_of_many[] = {
        0xbf, 0x00, 0x00, 0x10, 0x00, 0xfe, 0x07, 0x81, 0xc7, 0x00, 0x10, 0x00, 0x00, 0x81, 0xff,
        0x00, 0x00, 0x00, 0x02, 0x72, 0xf0, 0x66, 0xff, 0x05, 0x00, 0x30, 0x00, 0x00, 0xeb, 0xe2
};

/* A vCPU's thread brings a signal stack of its own, which the sanitizer would take for its own when
 * the thread ends. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
        return "use_sigaltstack=0";
}

static struct machine *m;

static volatile uint8_t *at(uint64_t address)
{
        return memory_at(&m->memory, gpa(address), 1);
}

static void make(const struct vcpu_ops *cpu, struct loop *loop, bool of_many)
{
        struct err err = { 0 };
        struct cpu_state s;
        const struct machine_options options = { .cpu = cpu, .vcpus = 1, .memory_bytes = MEMORY };
        if (machine_create(loop, &options, &m, &err) < 0)
                fail_msg("%s", err_text(&err));
        assert_int_equal(memory_write(&m->memory, gpa(CODE), of_many ? code_of_many : code,
                                      of_many ? sizeof(code_of_many) : sizeof(code)),
                         0);
        assert_int_equal(cpu->get_state(&m->vcpus[0], &s, &err), 0);
        s.seg[CPU_CS].base = s.seg[CPU_CS].selector = 0;
        s.rip = CODE;
        if (of_many) {
                s.cr0 |= 1; /* protected, flat */
                for (unsigned i = 0; i < CPU_SEGS; i++)
                        s.seg[i] = (struct cpu_segment){
                                0, 0xffffffff, i == CPU_CS ? 0xc09b : 0xc093, 8, { 0 }
                        };
        }
        assert_int_equal(cpu->set_state(&m->vcpus[0], &s, &err), 0);
        assert_int_equal(machine_start(m, &err), 0);
}

static void run_until_counted(void)
{
        uint8_t before = *at(COUNTER);
        machine_resume(m);
        while (*at(COUNTER) == before)
                sched_yield();
        machine_pause(m);
}

static void expect(uint64_t pages)
{
        struct err err = { 0 };
        auto_free uint64_t *words = xcalloc(dirty_words(m), sizeof(*words));
        if (dirty_take(m, words, &err) < 0)
                fail_msg("%s", err_text(&err));
        assert_int_equal(dirty_words(m), MEMORY / MEMORY_PAGE_SIZE / 64);
        assert_int_equal(words[0], pages);
        for (uint64_t i = 1; i < dirty_words(m); i++)
                assert_int_equal(words[i], 0);
}

#define PAGE(address) (1ull << (address) / MEMORY_PAGE_SIZE)

static void *written(void *arg)
{
        struct err err = { 0 };
        const uint8_t yes = 1;
        jail_thread(JAIL_MAIN);
        run_until_counted(); /* translated, and in the TLB, before it begins */
        assert_int_equal(dirty_start(m, &err), 0);
        expect(0);
        run_until_counted();
        expect(PAGE(COUNTER)); /* and not what is only read */
        expect(0);
        run_until_counted();
        expect(PAGE(COUNTER)); /* each time anew */
        assert_int_equal(memory_write(&m->memory, gpa(ASKED), &yes, 1), 0);
        expect(PAGE(ASKED)); /* as a device */
        machine_resume(m);
        while (!*at(ANSWER))
                sched_yield();
        machine_pause(m);
        expect(PAGE(COUNTER) | PAGE(ANSWER));
        memory_dirtied(&m->memory, gpa(MEMORY - 1), 1);
        assert_int_equal(dirty_start(m, &err), 0); /* forgets it */
        expect(0);
        return arg;
}

/* As often as to be told of all pages twice. */
static void *many_written(void *arg)
{
        struct err err = { 0 };
        auto_free uint64_t *words = xcalloc(dirty_words(m), sizeof(*words));
        jail_thread(JAIL_MAIN);
        run_until_counted();
        assert_int_equal(dirty_start(m, &err), 0);
        for (unsigned round = 0; round < 2; round++) {
                run_until_counted(); /* from where it stood, and all from the start */
                run_until_counted();
                if (dirty_take(m, words, &err) < 0)
                        fail_msg("%s", err_text(&err));
                assert_int_equal(words[0], PAGE(COUNTER));
                for (uint64_t i = 1; i < dirty_words(m); i++)
                        assert_int_equal(words[i], i < MANY / MEMORY_PAGE_SIZE / 64 ? 0 : -1ull);
        }
        return arg;
}

/* Asks as the main thread does, jailed where jail_prepare() was called. */
static void tell(const struct vcpu_ops *cpu, bool of_many)
{
        struct err err = { 0 };
        struct loop *loop;
        pthread_t thread;
        assert_int_equal(loop_create(&loop, &err), 0);
        make(cpu, loop, of_many);
        assert_int_equal(pthread_create(&thread, NULL, of_many ? many_written : written, NULL), 0);
        assert_int_equal(pthread_join(thread, NULL), 0);
        machine_destroy(m);
        loop_destroy(loop);
}

static void soft_tells_what_is_written(void **state)
{
        (void)state;
        tell(&vcpu_soft, false);
        tell(&vcpu_soft, true);
}

static void kvm_tells_what_is_written(void **state)
{
        (void)state;
        struct err err = { 0 };
        if (access("/dev/kvm", R_OK | W_OK) < 0)
                skip(); /* a host without */
        assert_int_equal(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_int_equal(jail_prepare(&err), 0);
        tell(&vcpu_kvm, false);
        tell(&vcpu_kvm, true);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(soft_tells_what_is_written),
                cmocka_unit_test(kvm_tells_what_is_written),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
