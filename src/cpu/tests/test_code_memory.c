/* The memory of translated code: what is written is what is executed, and all but a first large
 * page are such as soon as they are begun. */
#include "cpu/translate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#define LARGE          (2u << 20)
#define MADV_COLLAPSE_ 25

/* KiB of the mapping at `at` that are in large pages. */
static unsigned long large_kib(const void *at)
{
        char line[256], begin[32];
        (void)snprintf(begin, sizeof(begin), "%lx-", (unsigned long)(uintptr_t)at);
        FILE *f = fopen("/proc/self/smaps", "re");
        assert_non_null(f);
        bool here = false;
        unsigned long kib = 0;
        while (fgets(line, sizeof(line), f)) {
                if (!strncmp(line, begin, strlen(begin)))
                        here = true;
                else if (here && sscanf(line, "ShmemPmdMapped: %lu", &kib) == 1)
                        break;
        }
        (void)fclose(f);
        return kib;
}

static void fill(struct translator *t, uint32_t from, uint32_t to)
{
        for (uint32_t at = from; at < to; at += 4)
                memcpy(t->writable + at, &at, 4);
        cpu_code_memory_fill(t, to);
        for (uint32_t at = from; at < to; at += 4)
                assert_memory_equal(t->executable + at, &at, 4);
}

static void check(bool nameless)
{
        struct translator t = { 0 };
        assert_int_equal(cpu_code_memory_create(&t, nameless, NULL), 0);
        assert_int_equal((uintptr_t)t.writable % LARGE, 0);
        assert_int_equal((uintptr_t)t.executable % LARGE, 0);
        fill(&t, 0, LARGE);
        assert_int_equal(t.large, 0);
        fill(&t, LARGE, 2 * LARGE + 4096);
        assert_int_equal(t.large, 3 * LARGE);
        /* A kernel that does not know how does not for us either. */
        if (large_kib(t.executable) != 3 * LARGE >> 10)
                assert_int_equal(madvise(t.writable, LARGE, MADV_COLLAPSE_), -1);
        /* And it is still one memory. */
        fill(&t, 64, LARGE + 64);
        cpu_code_memory_destroy(&t);
}

static void code_of_a_file(void **state)
{
        (void)state;
        check(false);
}

static void code_without_a_name(void **state)
{
        (void)state;
        check(true);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(code_of_a_file),
                cmocka_unit_test(code_without_a_name),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
