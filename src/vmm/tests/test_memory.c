/* An image put into guest memory: what it holds, and what it costs. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "vmm/memory.h"

#define PAGE    MEMORY_PAGE_SIZE
#define SIZE    (1u << 20)
#define IMAGE   (5 * PAGE + 100)
#define WHOLE   (9 * PAGE)
#define OUTSIDE 0x55

/* Pages 1 and 2 hold nothing, the others something. */
static void make_image(uint8_t image[IMAGE])
{
        memset(image, 0, IMAGE);
        image[7] = 1;
        image[3 * PAGE] = 2;
        memset(image + 4 * PAGE, 3, IMAGE - 4 * PAGE);
}

static void check(uint64_t base)
{
        static uint8_t image[IMAGE], zeros[WHOLE];
        struct memory m;
        assert_int_equal(memory_init(&m, SIZE, NULL, NULL), 0);
        make_image(image);
        memset(m.map, OUTSIDE, SIZE);
        assert_int_equal(memory_load(&m, gpa(base), image, IMAGE, WHOLE), 0);
        assert_memory_equal(m.map + base, image, IMAGE);
        assert_memory_equal(m.map + base + IMAGE, zeros, WHOLE - IMAGE);
        assert_int_equal(m.map[base - 1], OUTSIDE);
        assert_int_equal(m.map[base + WHOLE], OUTSIDE);
        memory_finish(&m);
}

static void memory_that_was_used_holds_the_image_and_zeros_behind_it(void **state)
{
        (void)state;
        check(4 * PAGE);
        check(4 * PAGE + 256);
}

static void pages_of_zeros_take_no_memory(void **state)
{
        (void)state;
        static uint8_t image[IMAGE];
        struct memory m;
        struct stat st;
        assert_int_equal(memory_init(&m, SIZE, NULL, NULL), 0);
        make_image(image);
        assert_int_equal(memory_load(&m, gpa(4 * PAGE), image, IMAGE, WHOLE), 0);
        assert_int_equal(fstat(m.fd, &st), 0);
        assert_int_equal(st.st_blocks * 512, 4 * PAGE); /* 0, 3, 4 and a part of 5 */
        memory_finish(&m);
}

static void an_image_that_does_not_fit_is_refused(void **state)
{
        (void)state;
        static uint8_t image[IMAGE];
        struct memory m;
        assert_int_equal(memory_init(&m, SIZE, NULL, NULL), 0);
        assert_int_equal(memory_load(&m, gpa(SIZE - PAGE), image, PAGE, 2 * PAGE), -EFAULT);
        assert_int_equal(memory_load(&m, gpa(0), image, 2 * PAGE, PAGE), -EFAULT);
        memory_finish(&m);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(memory_that_was_used_holds_the_image_and_zeros_behind_it),
                cmocka_unit_test(pages_of_zeros_take_no_memory),
                cmocka_unit_test(an_image_that_does_not_fit_is_refused),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
