/* Pages in common with a template, without a machine. */
#include "vmm/share.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define PAGE  ((size_t)MEMORY_PAGE_SIZE)
#define PAGES 256u
#define SIZE  (PAGES * PAGE)

struct place {
        struct memory memory;
        int fd; /* the template's file */
        uint8_t *template;
};

static void fill(uint8_t *at, unsigned page)
{
        memset(at + page * PAGE, (int)(page % 251 + 1), PAGE);
}

static void make(struct place *p)
{
        FILE *file = tmpfile();
        assert_non_null(file);
        p->fd = dup(fileno(file));
        fclose(file);
        assert_int_equal(ftruncate(p->fd, SIZE), 0);
        uint8_t *write = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, p->fd, 0);
        assert_ptr_not_equal(write, MAP_FAILED);
        for (unsigned i = 0; i < PAGES; i++)
                fill(write, i);
        munmap(write, SIZE);
        p->template = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE, p->fd, 0);
        assert_ptr_not_equal(p->template, MAP_FAILED);
        assert_int_equal(memory_init(&p->memory, SIZE, NULL, NULL), 0);
}

static void destroy(struct place *p)
{
        memory_finish(&p->memory);
        munmap(p->template, SIZE);
        close(p->fd);
}

static uint64_t held_pages(const struct place *p)
{
        struct stat st;
        assert_int_equal(fstat(p->memory.fd, &st), 0);
        return (uint64_t)st.st_blocks * 512 / PAGE;
}

static void share(struct place *p, uint64_t shared_pages, uint64_t zero_pages)
{
        struct share_sums sums;
        assert_int_equal(share_pages(&p->memory, p->template, SIZE, &sums, NULL), 0);
        assert_int_equal(sums.shared, shared_pages * PAGE);
        assert_int_equal(sums.zero, zero_pages * PAGE);
}

/* 0-31 the same, 32-63 zero, 64-95 others, 96 alone the same, the rest untouched. */
static void write_guest(struct place *p)
{
        uint8_t *map = p->memory.map;
        for (unsigned i = 0; i < 32; i++)
                fill(map, i);
        memset(map + 32 * PAGE, 0, 32 * PAGE);
        memset(map + 64 * PAGE, 0xee, 32 * PAGE);
        fill(map, 96);
}

static void what_is_the_same_or_zero_is_not_held_twice(void **state)
{
        (void)state;
        struct place p;
        uint8_t before[97 * MEMORY_PAGE_SIZE];
        make(&p);
        write_guest(&p);
        memcpy(before, p.memory.map, sizeof(before));
        assert_int_equal(held_pages(&p), 97);
        share(&p, 32, 32);
        assert_int_equal(held_pages(&p), 33);
        assert_memory_equal(p.memory.map, before, sizeof(before));
        share(&p, 0, 32); /* looking at zeros made pages of them */
        destroy(&p);
}

static void a_write_is_the_guests_own(void **state)
{
        (void)state;
        struct place p;
        uint8_t byte;
        make(&p);
        write_guest(&p);
        share(&p, 32, 32);
        p.memory.map[5 * PAGE] = 0xab;
        p.memory.map[40 * PAGE] = 0xcd;
        share(&p, 0, 0); /* what differs is left alone */
        assert_int_equal(p.memory.map[5 * PAGE], 0xab);
        assert_int_equal(p.memory.map[5 * PAGE + 1], 6);
        assert_int_equal(p.memory.map[40 * PAGE], 0xcd);
        assert_int_equal(pread(p.fd, &byte, 1, 5 * (off_t)PAGE), 1);
        assert_int_equal(byte, 6);
        destroy(&p);
}

static void what_the_guest_frees_goes_back_from_there_too(void **state)
{
        (void)state;
        struct place p;
        make(&p);
        write_guest(&p);
        share(&p, 32, 32);
        memset(p.memory.map, 0x55, 8 * PAGE);
        memory_forget(&p.memory, 0, 8 * PAGE);
        /* The copies are gone: what is read is the template's again. */
        assert_int_equal(p.memory.map[3 * PAGE], 4);
        destroy(&p);
}

static void a_template_that_is_shorter_has_less_to_share(void **state)
{
        (void)state;
        struct place p;
        struct share_sums sums;
        make(&p);
        write_guest(&p);
        assert_int_equal(share_pages(&p.memory, p.template, 16 * PAGE, &sums, NULL), 0);
        assert_int_equal(sums.shared, 16 * PAGE);
        destroy(&p);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(what_is_the_same_or_zero_is_not_held_twice),
                cmocka_unit_test(a_write_is_the_guests_own),
                cmocka_unit_test(what_the_guest_frees_goes_back_from_there_too),
                cmocka_unit_test(a_template_that_is_shorter_has_less_to_share),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
