/* The IOMMU as a driver and as devices see it: tables, what is remembered of them, faults,
 * invalidation, remapped interrupts, and a virtqueue behind it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <errno.h>

#include <cmocka.h>

#include "vmm/virtio/queue.h"
#include "vmm/vtd/tests/unit.h"

#define GCMD   0x18u
#define GSTS   0x1cu
#define RTADDR 0x20u
#define CCMD   0x28u
#define FSTS   0x34u
#define FECTL  0x38u
#define IQH    0x80u
#define IQT    0x88u
#define IQA    0x90u
#define ICS    0x9cu
#define IECTL  0xa0u
#define IRTA   0xb8u
#define IVA    0xf0u
#define IOTLB  0xf8u
#define FRCD   0x220u

#define TE    0x80000000u
#define SRTP  0x40000000u
#define QIE   0x04000000u
#define IRE   0x02000000u
#define SIRTP 0x01000000u
#define CFI   0x00800000u

#define SOURCE  0x0018u /* 00:03.0 */
#define CONTEXT (ROOT + 0x1000u)
#define TABLES  (ROOT + 0x2000u) /* top, then downwards */
#define DOMAIN  7u
#define R       1ull
#define W       2ull
#define LARGE   0x80ull

static void command(struct machine *m, uint32_t bits)
{
        set_reg(m, GCMD, 4, (reg(m, GSTS, 4) & ~(SRTP | SIRTP)) | bits);
}

/* Tables for one device, with `levels` of them down to an entry for address 0x1234 << 12, which
 * is returned: where it is. */
static uint64_t set_up(struct machine *m, unsigned levels)
{
        put64(m, ROOT, CONTEXT | 1);
        put64(m, CONTEXT + SOURCE * 16, TABLES | 1);
        put64(m, CONTEXT + SOURCE * 16 + 8, (levels - 2) | DOMAIN << 8);
        uint64_t at = TABLES;
        for (unsigned level = levels; level > 1; level--) {
                put64(m, at + (0x1234000ull >> (3 + 9 * level) & 511) * 8, (at + 0x1000) | R | W);
                at += 0x1000;
        }
        at += 0x34ull * 8;
        put64(m, at, 0x567000 | R | W);
        set_reg(m, RTADDR, 8, ROOT);
        command(m, SRTP);
        command(m, TE);
        return at;
}

static bool reach(struct machine *m, uint64_t address, bool write, struct iommu_page *ret)
{
        return m->iommu->translate(m->iommu->arg, SOURCE, address, write, ret);
}

/* The recorded fault's reason, 0 none; it is cleared. */
static unsigned fault(struct machine *m, uint64_t *ret_information)
{
        uint64_t low = reg(m, FRCD, 8), high = reg(m, FRCD + 8, 8);
        if (!(high >> 63))
                return 0;
        if (ret_information)
                *ret_information = low;
        assert_int_equal(reg(m, FSTS, 4) & 2, 2);
        set_reg(m, FRCD + 12, 4, 1u << 31);
        assert_int_equal(reg(m, FSTS, 4) & 2, 0);
        return high >> 32 & 0xff;
}

static void check_refused(struct machine *m, uint64_t address, bool write, unsigned reason)
{
        struct iommu_page page;
        uint64_t information;
        assert_false(reach(m, address, write, &page));
        assert_int_equal(reg(m, FRCD + 8, 8) >> 62 & 1, !write);
        assert_int_equal(reg(m, FRCD + 8, 8) & 0xffff, SOURCE);
        assert_int_equal(fault(m, &information), reason);
        assert_int_equal(information, address & ~0xfffull);
}

/* ---- translation ---- */

static void addresses_are_physical_until_translation_is_on(void **state)
{
        (void)state;
        struct machine *m = unit_create();
        struct iommu_page page;
        assert_true(reach(m, 0x1234567, true, &page));
        assert_int_equal(page.at, 0x1234567);
        set_up(m, 3);
        assert_int_equal(reg(m, GSTS, 4), TE | SRTP);
        assert_true(reach(m, 0x1234567, true, &page));
        assert_int_equal(page.at, 0x567567);
        assert_int_equal(page.size_bytes, 0x1000 - 0x567);
        set_reg(m, GCMD, 4, 0);
        assert_int_equal(reg(m, GSTS, 4), SRTP);
        assert_true(reach(m, 0x1234567, true, &page));
        assert_int_equal(page.at, 0x1234567);
        unit_destroy(m);
}

static void pages_of_all_sizes_and_depths(void **state)
{
        (void)state;
        for (unsigned levels = 3; levels <= 4; levels++) {
                struct machine *m = unit_create();
                struct iommu_page page;
                uint64_t last = set_up(m, levels);
                assert_true(reach(m, 0x1234abc, false, &page));
                assert_int_equal(page.at, 0x567abc);
                check_refused(m, 1ull << (12 + 9 * levels), false, 4);
                uint64_t directory = (last & ~0xfffull) - 0x1000;
                put64(m, directory + 9 * 8, 0x800000 | LARGE | R | W); /* 2 MiB */
                command(m, SRTP);
                assert_true(reach(m, 0x1234abc, false, &page));
                assert_int_equal(page.at, 0x834abc);
                put64(m, directory + 9 * 8, 0x801000 | LARGE | R | W);
                command(m, SRTP);
                check_refused(m, 0x1234abc, false, 0xc);
                put64(m, directory - 0x1000, 0x40000000 | LARGE | R | W); /* 1 GiB */
                command(m, SRTP);
                assert_true(reach(m, 0x1234abc, false, &page));
                assert_int_equal(page.at, 0x41234abc);
                unit_destroy(m);
        }
}

static void what_is_not_allowed_is_refused_and_told(void **state)
{
        (void)state;
        struct machine *m = unit_create();
        struct iommu_page page;
        uint64_t last = set_up(m, 3), context = CONTEXT + SOURCE * 16;
        const struct {
                uint64_t at, value;
                unsigned reason;
                bool write;
        } rows[] = {
                { last, 0x567000, 6, false },
                { last, 0x567000, 5, true },
                { last, 0x567000 | R, 5, true },
                { last, 0x567000 | W, 6, false },
                { last, 0x567000 | R | 1ull << 50, 0xc, false },
                { last, 0x567000 | R | 1ull << 11, 0xc, false },
                { TABLES, 0x3ffffffff000 | R | W, 7, false },
                { TABLES, (TABLES + 0x1000) | W, 6, false },
                { TABLES, (TABLES + 0x1000) | R, 5, true },
                { context, TABLES, 2, false },
                { context, TABLES | 1 | 1 << 2, 3, false }, /* device TLBs */
                { context, TABLES | 1 | 2 << 2, 3, false }, /* passing through, too narrow */
                { context, TABLES | 1 | 1 << 4, 0xb, false },
                { context + 8, 1 | 1 << 7, 0xb, false },
                { context + 8, 0, 3, false }, /* two levels */
                { context + 8, 3, 3, false }, /* five */
                { ROOT, CONTEXT, 1, false },
                { ROOT, CONTEXT | 3, 0xa, false },
                { ROOT + 8, 1, 0xa, false },
                { ROOT, 0x3ffffffff001, 9, false },
        };
        for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
                uint64_t before = get64(m, rows[i].at);
                put64(m, rows[i].at, rows[i].value);
                command(m, SRTP);
                check_refused(m, 0x1234abc, rows[i].write, rows[i].reason);
                put64(m, rows[i].at, before);
                assert_true(reach(m, 0x1234abc, rows[i].write, &page)); /* was not remembered */
        }
        assert_false(reach(m, 0xfee00000, true, &page)); /* interrupts are no memory */
        set_reg(m, RTADDR, 8, 0x3ffffffff000);
        command(m, SRTP);
        check_refused(m, 0x1234abc, true, 8);
        unit_destroy(m);
}

static void a_context_may_pass_through_and_be_quiet(void **state)
{
        (void)state;
        struct machine *m = unit_create();
        struct iommu_page page;
        set_up(m, 4);
        put64(m, CONTEXT + SOURCE * 16, 1 | 2 << 2);
        assert_true(reach(m, 0x777123, true, &page));
        assert_int_equal(page.at, 0x777123);
        put64(m, CONTEXT + SOURCE * 16, TABLES | 1 | 2);
        assert_false(reach(m, 0x5000, true, &page));
        assert_int_equal(fault(m, NULL), 0);
        unit_destroy(m);
}

/* Two devices whose mappings have the same place in what is remembered. */
static void a_device_has_no_part_in_what_another_was_given(void **state)
{
        (void)state;
        struct machine *m = unit_create();
        struct iommu_page page;
        set_up(m, 3);
        assert_true(reach(m, 0x1234000, true, &page));
        assert_false(m->iommu->translate(m->iommu->arg, SOURCE + 0x20, 0x1234000, true, &page));
        assert_int_equal(fault(m, NULL), 2);
        unit_destroy(m);
}

/* ---- faults ---- */

static void the_first_fault_is_kept_and_told_once(void **state)
{
        (void)state;
        struct machine *m = unit_create();
        struct iommu_page page;
        set_up(m, 3);
        set_reg(m, 0x3c, 4, 0x41);
        set_reg(m, 0x40, 4, 0xfee01000);
        assert_false(reach(m, 0x5000, true, &page)); /* masked */
        loop_step(m->loop, 0);
        assert_int_equal(sent.times, 0);
        assert_int_equal(reg(m, FECTL, 4), 0xc0000000);
        set_reg(m, FECTL, 4, 0);
        loop_step(m->loop, 0);
        assert_int_equal(sent.times, 1);
        assert_int_equal(sent.address, 0xfee01000);
        assert_int_equal(sent.data, 0x41);
        assert_false(reach(m, 0x6000, true, &page));
        assert_int_equal(reg(m, FRCD, 8), 0x5000);
        assert_int_equal(reg(m, FSTS, 4), 3); /* overflow */
        set_reg(m, FRCD + 12, 4, 1u << 31);
        set_reg(m, FSTS, 4, 1);
        assert_int_equal(reg(m, FSTS, 4), 0);
        loop_step(m->loop, 0);
        assert_int_equal(sent.times, 1);
        assert_false(reach(m, 0x7000, true, &page));
        loop_step(m->loop, 0);
        assert_int_equal(sent.times, 2);
        unit_destroy(m);
}

/* ---- invalidation ---- */

static void submit(struct machine *m, uint64_t low, uint64_t high)
{
        uint64_t tail = reg(m, IQT, 8);
        put64(m, QUEUE + tail, low);
        put64(m, QUEUE + tail + 8, high);
        set_reg(m, IQT, 8, (tail + 16) & 0xfff);
}

static void start_queue(struct machine *m)
{
        set_reg(m, IQA, 8, QUEUE);
        command(m, QIE);
}

/* Whether the entry is still remembered after it was taken away, by each way to forget it. */
static void mappings_stay_until_they_are_invalidated(void **state)
{
        (void)state;
        static const struct {
                uint64_t low, high; /* low 0: by register, `high` is IOTLB and `iva` */
                bool forgets;
                uint64_t iva;
        } rows[] = {
                { 2 | 1 << 4, 0, true, 0 },
                { 2 | 2 << 4 | DOMAIN << 16, 0, true, 0 },
                { 2 | 2 << 4 | (DOMAIN + 1) << 16, 0, false, 0 },
                { 2 | 3 << 4 | DOMAIN << 16, 0x1234000, true, 0 },
                { 2 | 3 << 4 | DOMAIN << 16, 0x1235000, false, 0 },
                { 2 | 3 << 4 | DOMAIN << 16, 0x1236000 | 1, false, 0 },
                { 2 | 3 << 4 | DOMAIN << 16, 0x1230000 | 3, true, 0 },
                { 2 | 3 << 4 | DOMAIN << 16, 18, true, 0 },
                { 1 | 1 << 4, 0, true, 0 },
                { 4, 0, false, 0 },
                { 0, 1ull << 63 | 1ull << 60, true, 0 },
                { 0, 1ull << 63 | 2ull << 60 | (uint64_t)DOMAIN << 32, true, 0 },
                { 0, 1ull << 63 | 3ull << 60 | (uint64_t)DOMAIN << 32, true, 0x1234000 },
                { 0, 1ull << 63 | 3ull << 60 | (uint64_t)DOMAIN << 32, false, 0x1236000 },
        };
        for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
                struct machine *m = unit_create();
                struct iommu_page page;
                uint64_t last = set_up(m, 3);
                start_queue(m);
                assert_true(reach(m, 0x1234000, true, &page));
                put64(m, last, 0);
                assert_true(reach(m, 0x1234000, true, &page));
                if (rows[i].low) {
                        submit(m, rows[i].low, rows[i].high);
                } else {
                        set_reg(m, IVA, 8, rows[i].iva);
                        set_reg(m, IOTLB, 8, rows[i].high);
                        assert_int_equal(reg(m, IOTLB, 8) >> 63, 0);
                        assert_int_equal(reg(m, IOTLB, 8) >> 57 & 3, rows[i].high >> 60 & 3);
                }
                assert_int_equal(reach(m, 0x1234000, true, &page), !rows[i].forgets);
                assert_int_equal(reg(m, IQH, 8), reg(m, IQT, 8));
                unit_destroy(m);
        }
}

/* Any part of a large page takes it away as a whole. */
static void a_large_page_goes_as_a_whole(void **state)
{
        (void)state;
        struct machine *m = unit_create();
        struct iommu_page page;
        uint64_t directory = (set_up(m, 3) & ~0xfffull) - 0x1000;
        start_queue(m);
        put64(m, directory + 9 * 8, 0x800000 | LARGE | R | W);
        assert_true(reach(m, 0x1234000, true, &page));
        put64(m, directory + 9 * 8, 0);
        submit(m, 2 | 3 << 4 | DOMAIN << 16, 0x1201000);
        assert_false(reach(m, 0x1234000, true, &page));
        unit_destroy(m);
}

static void waiting_writes_and_tells(void **state)
{
        (void)state;
        struct machine *m = unit_create();
        start_queue(m);
        set_reg(m, 0xa4, 4, 0x51);
        set_reg(m, 0xa8, 4, 0xfee02000);
        set_reg(m, IECTL, 4, 0);
        submit(m, 5 | 1 << 5 | 0x89abcdefull << 32, 0x40004);
        assert_int_equal(get64(m, 0x40000) >> 32, 0x89abcdef);
        submit(m, 5 | 1 << 4, 0);
        loop_step(m->loop, 0);
        assert_int_equal(sent.times, 1);
        assert_int_equal(sent.address, 0xfee02000);
        assert_int_equal(reg(m, ICS, 4), 1);
        set_reg(m, ICS, 4, 1);
        assert_int_equal(reg(m, ICS, 4), 0);
        submit(m, 5 | 1 << 5, 0x7ffffffff000); /* into nothing */
        assert_int_equal(reg(m, FSTS, 4), 0);
        for (unsigned i = 0; i < 600; i++) /* round and round */
                submit(m, 5 | 1 << 5 | (uint64_t)i << 32, 0x40000);
        assert_int_equal(get64(m, 0x40000) & 0xffffffff, 599);
        unit_destroy(m);
}

static void the_queue_stands_at_what_it_knows_not(void **state)
{
        (void)state;
        static const uint64_t bad[][2] = {
                { 0, 0 },          { 3, 0 },           /* device TLBs */
                { 2, 0 },                              /* no granularity */
                { 1, 0 },          { 2 | 3 << 4, 19 }, /* too many pages */
                { 5 | 1 << 9, 0 }, { 15, 0 }
        };
        for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                struct machine *m = unit_create();
                start_queue(m);
                submit(m, 4, 0);
                submit(m, bad[i][0], bad[i][1]);
                submit(m, 5 | 1 << 5 | 77ull << 32, 0x40000);
                assert_int_equal(reg(m, FSTS, 4), 0x10);
                assert_int_equal(reg(m, IQH, 8), 16);
                assert_int_equal(get64(m, 0x40000), 0);
                put64(m, QUEUE + 16, 4); /* mended */
                set_reg(m, FSTS, 4, 0x10);
                assert_int_equal(reg(m, FSTS, 4), 0);
                assert_int_equal(reg(m, IQH, 8), 48);
                assert_int_equal(get64(m, 0x40000), 77);
                unit_destroy(m);
        }
        struct machine *m = unit_create();
        start_queue(m);
        set_reg(m, IQT, 8, 0x1000); /* beyond its end */
        assert_int_equal(reg(m, FSTS, 4), 0x10);
        set_reg(m, IQA, 8, 0x3ffffffff000);
        set_reg(m, IQT, 8, 0x10);
        set_reg(m, FSTS, 4, 0x10);
        assert_int_equal(reg(m, FSTS, 4), 0x10); /* no memory */
        unit_destroy(m);
}

/* ---- registers ---- */

static void registers_are_read_and_written_by_halves(void **state)
{
        (void)state;
        struct machine *m = unit_create();
        assert_int_equal(reg(m, 0, 4), 0x10);
        assert_int_equal(reg(m, 8, 4), reg(m, 8, 8) & 0xffffffff);
        assert_int_equal(reg(m, 12, 4), reg(m, 8, 8) >> 32);
        set_reg(m, RTADDR, 4, 0x12345fff);
        set_reg(m, RTADDR + 4, 4, 0x17);
        assert_int_equal(reg(m, RTADDR, 8), 0x0000001712345c00);
        set_reg(m, 0x38, 8, 0x5500000000ull); /* control and data at once */
        assert_int_equal(reg(m, 0x3c, 4), 0x55);
        assert_int_equal(reg(m, 0x38, 4), 0);
        set_reg(m, 8, 8, 0); /* not writable */
        assert_int_not_equal(reg(m, 8, 8), 0);
        set_reg(m, RTADDR + 2, 2, 0);
        set_reg(m, RTADDR + 4, 8, 0); /* neither aligned nor wide enough */
        assert_int_equal(reg(m, RTADDR, 8), 0x0000001712345c00);
        assert_int_equal(reg(m, 0x400, 8), 0);
        set_reg(m, CCMD, 8, 1ull << 63 | 3ull << 61);
        assert_int_equal(reg(m, CCMD, 8), 3ull << 61 | 3ull << 59);
        unit_destroy(m);
}

/* ---- interrupts ---- */

#define REMAPPED(handle) (0xfee00010ull | ((handle)&0x7fffull) << 5 | ((handle) >> 15 & 1ull) << 2)

static void start_remapping(struct machine *m)
{
        set_reg(m, IRTA, 8, IRTE | 3); /* 16 entries */
        command(m, SIRTP);
        command(m, IRE);
        assert_int_equal(reg(m, GSTS, 4), IRE | SIRTP);
}

static unsigned send(struct machine *m, int source, uint64_t address, uint32_t data)
{
        unsigned before = sent.times;
        irq_message(&m->irq, source, address, data);
        return sent.times - before;
}

static void messages_go_where_their_entry_says(void **state)
{
        (void)state;
        struct machine *m = unit_create();
        assert_int_equal(send(m, SOURCE, 0xfee03000, 0x33), 1); /* as it is, before */
        start_remapping(m);
        put64(m, IRTE + 5 * 16, 1 | 1 << 2 | 1 << 4 | 1 << 5 | 0x77 << 16 | 0x0300ull << 32);
        put64(m, IRTE + 5 * 16 + 8, 1 << 18 | SOURCE);
        assert_int_equal(send(m, SOURCE, REMAPPED(5), 0xdead), 1);
        assert_int_equal(sent.address, 0xfee03004);
        assert_int_equal(sent.data, 0xc177);
        assert_int_equal(send(m, SOURCE, REMAPPED(3) | 8, 2), 1); /* a subhandle is added */
        assert_int_equal(sent.data, 0xc177);
        assert_int_equal(send(m, IRQ_FROM_IOMMU, 0xfee03000, 0x33), 1);
        assert_int_equal(sent.address, 0xfee03000);
        unit_destroy(m);
}

static void check_dropped(struct machine *m, int source, uint64_t address, unsigned reason,
                          unsigned index)
{
        uint64_t information = 0;
        assert_int_equal(send(m, source, address, 0), 0);
        assert_int_equal(fault(m, &information), reason);
        assert_int_equal(information >> 48, index);
}

static void messages_without_a_right_entry_are_dropped(void **state)
{
        (void)state;
        struct machine *m = unit_create();
        start_remapping(m);
        check_dropped(m, SOURCE, 0xfee03000, 0x25, 0);
        check_dropped(m, SOURCE, REMAPPED(16), 0x21, 16);
        check_dropped(m, SOURCE, REMAPPED(0x8001), 0x21, 0x8001);
        check_dropped(m, SOURCE, REMAPPED(1), 0x22, 1);
        put64(m, IRTE + 16, 2); /* quiet */
        check_dropped(m, SOURCE, REMAPPED(1), 0, 0);
        put64(m, IRTE + 16, 1 | 1 << 15);
        check_dropped(m, SOURCE, REMAPPED(1), 0x24, 1);
        put64(m, IRTE + 16, 1);
        put64(m, IRTE + 24, 1 << 20);
        check_dropped(m, SOURCE, REMAPPED(1), 0x24, 1);
        put64(m, IRTE + 24, 1 << 18 | (SOURCE ^ 4));
        check_dropped(m, SOURCE, REMAPPED(1), 0x26, 1);
        put64(m, IRTE + 24, 1 << 18 | 1 << 16 | (SOURCE ^ 4)); /* that bit does not count */
        assert_int_equal(send(m, SOURCE, REMAPPED(1), 0), 1);
        put64(m, IRTE + 24, 2 << 18 | 0x0102);
        check_dropped(m, SOURCE, REMAPPED(1), 0x26, 1);
        put64(m, IRTE + 24, 2 << 18 | 0x0002);
        assert_int_equal(send(m, SOURCE, REMAPPED(1), 0), 1);
        put64(m, IRTE + 24, 3 << 18);
        check_dropped(m, SOURCE, REMAPPED(1), 0x26, 1);
        assert_int_equal(send(m, IRQ_FROM_IOAPIC, REMAPPED(1), 0), 1);
        command(m, CFI);
        assert_int_equal(send(m, SOURCE, 0xfee03000, 0), 1);
        set_reg(m, IRTA, 8, 0x3ffffffff000 | 15);
        command(m, SIRTP);
        check_dropped(m, SOURCE, REMAPPED(1), 0x23, 1);
        unit_destroy(m);
}

/* ---- a queue behind it ---- */

#define RINGS 0x1234000ull /* three pages of device addresses, in memory in reverse order */

static void map_page(struct machine *m, uint64_t table, unsigned page, uint64_t to, uint64_t rights)
{
        put64(m, (table & ~0xfffull) + (0x34ull + page) * 8, to | rights);
}

static void put_descriptor(struct machine *m, uint64_t at, uint64_t address, uint32_t size,
                           uint16_t flags, uint16_t next)
{
        put64(m, at, address);
        put64(m, at + 8, size | (uint64_t)flags << 32 | (uint64_t)next << 48);
}

/* 512 entries: descriptors on pages 0 and 1, the available ring on page 2, the used one across
 * 3 and 4, buffers on 5 and 6. */
static void start_virtq(struct machine *m, const struct dma *dma, struct virtq *q)
{
        uint64_t last = set_up(m, 3);
        for (unsigned i = 0; i < 7; i++)
                map_page(m, last, i, 0x300000 + (6 - i) * 0x1000, R | W);
        start_queue(m);
        *q = (struct virtq){ .dma = dma,
                             .size_max = 512,
                             .size = 512,
                             .descriptors = gpa(RINGS),
                             .available = gpa(RINGS + 0x2000),
                             .used = gpa(RINGS + 0x3000) };
        assert_int_equal(virtq_start(q), 0);
}

#define PAGE_OF(n) (0x300000u + (6 - (n)) * 0x1000u)

static void make_available(struct machine *m, unsigned index, uint16_t head)
{
        uint16_t next = (uint16_t)(index + 1);
        memory_write(&m->memory, gpa(PAGE_OF(2) + 4 + 2 * (index & 511)), &head, 2);
        memory_write(&m->memory, gpa(PAGE_OF(2) + 2), &next, 2);
}

static void rings_and_buffers_are_translated_page_by_page(void **state)
{
        (void)state;
        static struct virtq_chain chain;
        struct machine *m = unit_create();
        const struct dma dma = { &m->memory, m->iommu, SOURCE };
        struct virtq q;
        start_virtq(m, &dma, &q);
        /* Descriptor 300 is on the second page; its buffer crosses from page 5 to 6. */
        put_descriptor(m, PAGE_OF(1) + (300 - 256) * 16, RINGS + 0x5ff8, 16, 2, 0);
        for (unsigned i = 0; i < 513; i++) {
                make_available(m, i, 300);
                assert_int_equal(virtq_pop(&q, &chain), 1);
                assert_int_equal(chain.in_length, 2);
                assert_int_equal(chain.in_bytes, 16);
                assert_int_equal(virtq_write(&chain, 0, "0123456789abcdef", 16), 16);
                virtq_push(&q, &chain, 16);
        }
        assert_memory_equal(memory_at(&m->memory, gpa(PAGE_OF(5) + 0xff8), 8), "01234567", 8);
        assert_memory_equal(memory_at(&m->memory, gpa(PAGE_OF(6)), 8), "89abcdef", 8);
        /* Element 511 begins four bytes before the end of page 3. */
        assert_int_equal(get64(m, PAGE_OF(3) + 0xff8) >> 32, 300);
        assert_int_equal(get64(m, PAGE_OF(4)) & 0xffffffff, 16);
        assert_int_equal(get64(m, PAGE_OF(3)) >> 16 & 0xffff, 513);
        assert_int_equal(virtq_pop(&q, &chain), 0);
        unit_destroy(m);
}

static void a_queue_ends_where_its_mapping_does(void **state)
{
        (void)state;
        static struct virtq_chain chain;
        for (unsigned page = 0; page < 7; page++) {
                struct machine *m = unit_create();
                const struct dma dma = { &m->memory, m->iommu, SOURCE };
                struct virtq q;
                start_virtq(m, &dma, &q);
                put_descriptor(m, PAGE_OF(0), RINGS + 0x5000, 8, 0, 0);
                make_available(m, 0, 0);
                assert_int_equal(virtq_pop(&q, &chain), 1);
                virtq_push(&q, &chain, 0);
                make_available(m, 1, 0);
                map_page(m, TABLES + 0x2000, page, PAGE_OF(page), 0);
                submit(m, 2 | 1 << 4, 0);
                bool used = page == 0 || page == 2 || page == 5;
                int r = virtq_pop(&q, &chain);
                assert_int_equal(r, used ? -EIO : 1);
                if (page == 3 && r == 1) { /* the used ring: known at the next look */
                        virtq_push(&q, &chain, 0);
                        assert_int_equal(virtq_pop(&q, &chain), -EIO);
                        used = true;
                }
                assert_int_equal(fault(m, NULL) != 0, used);
                unit_destroy(m);
        }
}

static void a_buffer_that_may_only_be_read_is_not_written(void **state)
{
        (void)state;
        static struct virtq_chain chain;
        struct machine *m = unit_create();
        const struct dma dma = { &m->memory, m->iommu, SOURCE };
        struct virtq q;
        start_virtq(m, &dma, &q);
        map_page(m, TABLES + 0x2000, 5, PAGE_OF(5), R);
        put_descriptor(m, PAGE_OF(0), RINGS + 0x5000, 8, 0, 0);
        put_descriptor(m, PAGE_OF(0) + 16, RINGS + 0x5000, 8, 2, 0);
        make_available(m, 0, 0);
        assert_int_equal(virtq_pop(&q, &chain), 1);
        make_available(m, 1, 1);
        assert_int_equal(virtq_pop(&q, &chain), -EIO);
        assert_int_equal(fault(m, NULL), 5);
        unit_destroy(m);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(addresses_are_physical_until_translation_is_on),
                cmocka_unit_test(pages_of_all_sizes_and_depths),
                cmocka_unit_test(what_is_not_allowed_is_refused_and_told),
                cmocka_unit_test(a_context_may_pass_through_and_be_quiet),
                cmocka_unit_test(a_device_has_no_part_in_what_another_was_given),
                cmocka_unit_test(the_first_fault_is_kept_and_told_once),
                cmocka_unit_test(mappings_stay_until_they_are_invalidated),
                cmocka_unit_test(a_large_page_goes_as_a_whole),
                cmocka_unit_test(waiting_writes_and_tells),
                cmocka_unit_test(the_queue_stands_at_what_it_knows_not),
                cmocka_unit_test(registers_are_read_and_written_by_halves),
                cmocka_unit_test(messages_go_where_their_entry_says),
                cmocka_unit_test(messages_without_a_right_entry_are_dropped),
                cmocka_unit_test(rings_and_buffers_are_translated_page_by_page),
                cmocka_unit_test(a_queue_ends_where_its_mapping_does),
                cmocka_unit_test(a_buffer_that_may_only_be_read_is_not_written),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
