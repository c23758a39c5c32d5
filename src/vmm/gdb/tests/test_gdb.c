#include <errno.h>
#include <string.h>

#include "base/auto.h"
#include "base/str.h"
#include "base/tests/test.h"
#include "vmm/gdb/packet.h"
#include "vmm/gdb/points.h"
#include "vmm/gdb/registers.h"
#include "vmm/gdb/walk.h"

static enum gdb_event take_all(struct gdb_packet *p, const char *text)
{
        enum gdb_event event = GDB_NOTHING;
        for (; *text; text++)
                event = gdb_packet_take(p, (uint8_t)*text);
        return event;
}

static void packets_are_checked_and_unescaped(void **state)
{
        (void)state;
        static struct gdb_packet p;
        auto_buf out = { 0 };
        assert_int_equal(take_all(&p, "+$m0,4#fd"), GDB_PACKET);
        assert_memory_equal(p.data, "m0,4", 4);
        assert_int_equal(take_all(&p, "$m0,4#fe"), GDB_DAMAGED);
        assert_int_equal(take_all(&p, "$lost$g#67"), GDB_PACKET);
        assert_int_equal(p.size, 1);
        assert_int_equal(take_all(&p, "\3"), GDB_BREAK);
        assert_int_equal(take_all(&p, "-"), GDB_RESEND);
        gdb_packet_write(&out, "a$b}*#\0c", 8);
        enum gdb_event event = GDB_NOTHING;
        for (size_t i = 0; i < out.size; i++)
                event = gdb_packet_take(&p, (uint8_t)out.data[i]);
        assert_int_equal(event, GDB_PACKET);
        assert_int_equal(p.size, 8);
        assert_memory_equal(p.data, "a$b}*#\0c", 8);
}

static void a_packet_that_is_too_long_is_told_and_over(void **state)
{
        (void)state;
        static struct gdb_packet p;
        unsigned sum = 0;
        gdb_packet_take(&p, '$');
        for (unsigned i = 0; i < GDB_PACKET_MAX + 1; i++, sum += 'x')
                assert_int_equal(gdb_packet_take(&p, 'x'), GDB_NOTHING);
        char end[8];
        snprintf(end, sizeof(end), "#%02x", sum & 0xff);
        assert_int_equal(take_all(&p, end), GDB_TOO_LONG);
        assert_int_equal(take_all(&p, "$g#67"), GDB_PACKET);
}

static unsigned named(const char *name)
{
        auto_buf xml = { 0 };
        auto_free char *wanted = xasprintf("<reg name=\"%s\"", name);
        gdb_registers_describe(&xml);
        const char *end = strstr(buf_text(&xml), wanted);
        assert_non_null(end);
        unsigned index = 0;
        for (const char *at = buf_text(&xml); (at = strstr(at, "<reg ")) && at < end; at++)
                index++;
        return index;
}

static uint64_t value(const struct cpu_state *s, const char *name)
{
        uint8_t bytes[GDB_REGISTER_BYTES] = { 0 };
        uint64_t low;
        gdb_register_get(s, named(name), bytes);
        memcpy(&low, bytes, sizeof(low));
        return gdb_register_size(named(name)) == 4 ? (uint32_t)low : low;
}

/* Descriptors from 0x1000 on, and nothing else. */
static const uint64_t descriptors[] = {
        0,
        0x00af9a000000ffff, /* 0x08: code, 64 bits */
        0x00cf92000000ffff, /* 0x10: data */
        0x00cffa000000ffff, /* 0x18: code of level 3, 32 bits */
        0x12cf92345678ffff, /* 0x20: data from 0x12345678 on */
        0x00cf12000000ffff, /* 0x28: data, not present */
        0x00008b0000000067, /* 0x30: a TSS */
        0x00cf98000000ffff, /* 0x38: code that cannot be read */
};

static int read_descriptors(void *arg, uint64_t address, uint8_t *bytes, size_t size)
{
        (void)arg;
        if (address < 0x1000 || address - 0x1000 + size > sizeof(descriptors))
                return -EFAULT;
        memcpy(bytes, (const uint8_t *)descriptors + (address - 0x1000), size);
        return 0;
}

static struct err set_err;

static int set(struct cpu_state *s, const char *name, uint64_t low)
{
        const struct gdb_reader reader = { read_descriptors, NULL };
        uint8_t bytes[GDB_REGISTER_BYTES] = { 0 };
        memcpy(bytes, &low, sizeof(low));
        set_err = (struct err){ 0 };
        return gdb_register_set(s, named(name), bytes, &reader, &set_err);
}

static void registers_are_where_gdb_looks(void **state)
{
        (void)state;
        struct cpu_state s = { .rip = 0x1234, .rflags = 2, .cr3 = 0x5000, .efer = 0x500 };
        s.gpr[CPU_RBX] = 7;
        s.seg[CPU_SS].selector = 0x18;
        s.x87.mxcsr = 0x1f80;
        assert_int_equal(named("rbx"), 1);
        assert_int_equal(named("rip"), 16);
        assert_int_equal(named("st0"), 24);
        assert_int_equal(named("xmm0"), 40);
        assert_int_equal(value(&s, "rbx"), 7);
        assert_int_equal(value(&s, "rip"), 0x1234);
        assert_int_equal(value(&s, "ss"), 0x18);
        assert_int_equal(value(&s, "cr3"), 0x5000);
        assert_int_equal(value(&s, "efer"), 0x500);
        assert_int_equal(set(&s, "eflags", 0xffffffff), 0);
        assert_int_equal(s.rflags, 0x257fd7); /* neither VM nor what is not there */
        assert_int_equal(set(&s, "mxcsr", 0xffffffff), 0);
        assert_int_equal(s.x87.mxcsr, 0xffff);
}

/* The value is refused, with these words, and nothing changes. */
static void refused(const struct cpu_state *s, const char *name, uint64_t low, const char *why)
{
        struct cpu_state copy = *s;
        assert_int_equal(set(&copy, name, low), -EINVAL);
        assert_string_equal(err_text(&set_err), why);
        assert_memory_equal(&copy, s, sizeof(copy));
}

static void control_registers_keep_their_rules(void **state)
{
        (void)state;
        struct cpu_state s = { .cr0 = 0x11, .cr4 = 0x20, .efer = 0x100 };
        refused(&s, "cr0", 0x80000010, "CR0: paging (PG) wants protected mode (PE)");
        refused(&s, "cr0", 0x20000011, "CR0: NW wants CD");
        refused(&s, "cr0", 1ull << 32, "CR0 has 32 bits");
        refused(&s, "cr3", 1ull << 32, "CR3 has 32 bits in this mode");
        refused(&s, "efer", 0x500, "EFER: LMA follows LME and paging");
        assert_int_equal(set(&s, "cr4", 0), 0);
        refused(&s, "cr0", 0x80000011, "CR0: paging in long mode wants PAE in CR4");
        assert_int_equal(set(&s, "cr4", 0x20), 0);
        assert_int_equal(set(&s, "cr0", 0x80010041), 0);
        assert_int_equal(s.cr0, 0x80010011);
        assert_int_equal(s.efer, 0x500);
        refused(&s, "efer", 0x400, "EFER: LME stays while CR0 has paging on");
        assert_int_equal(set(&s, "efer", 0xd01), 0);
        refused(&s, "cr4", 0x10, "CR4: long mode keeps PAE");
        assert_int_equal(set(&s, "cr3", 0x234567000018), 0);
        refused(&s, "cr4", 0x20020, "CR4: PCIDE wants long mode and the low 12 bits of CR3 clear");
        assert_int_equal(set(&s, "cr3", 0x234567000000), 0);
        assert_int_equal(set(&s, "cr4", 0x20020), 0);
        refused(&s, "cr0", 0x11, "CR0: paging stays while PCIDE in CR4 is set");
        assert_int_equal(set(&s, "cr4", 0x20), 0);
        refused(&s, "cr8", 16, "CR8 is 0 to 15");
        assert_int_equal(set(&s, "cr8", 15), 0);
        assert_int_equal(s.cr8, 15);
        s.seg[CPU_CS].attributes = 0xa09b;
        refused(&s, "cr0", 0x11, "CR0: 64-bit code cannot do without paging");
        s.seg[CPU_CS].attributes = 0xc09b;
        assert_int_equal(set(&s, "cr0", 0x11), 0);
        assert_int_equal(s.efer, 0x901);
}

static void selectors_bring_their_descriptors(void **state)
{
        (void)state;
        struct cpu_state s = { .gdtr = { 0x1000, sizeof(descriptors) - 1 } };
        assert_int_equal(set(&s, "ds", 0x1234), 0); /* real mode */
        assert_int_equal(s.seg[CPU_DS].base, 0x12340);
        s.cr0 = 1;
        s.ldtr.attributes = 0x10000;
        assert_int_equal(set(&s, "ds", 0x20), 0);
        assert_int_equal(s.seg[CPU_DS].selector, 0x20);
        assert_int_equal(s.seg[CPU_DS].base, 0x12345678);
        assert_int_equal(s.seg[CPU_DS].limit, 0xffffffff);
        assert_int_equal(s.seg[CPU_DS].attributes, 0xc093);
        assert_int_equal(set(&s, "ss", 0x10), 0);
        assert_int_equal(set(&s, "cs", 0x08), 0);
        refused(&s, "cs", 0x10, "selector 0x10 is not code of the vCPU's privilege level");
        refused(&s, "cs", 0x1b, "selector 0x1b is not code of the vCPU's privilege level");
        refused(&s, "cs", 0, "CS cannot be null");
        refused(&s, "ss", 0x13, "selector 0x13 is not a stack of the vCPU's privilege level");
        refused(&s, "ss", 0, "SS can be null only in 64-bit code of the kernel");
        refused(&s, "es", 0x38, "selector 0x38 cannot be read");
        refused(&s, "fs", 0x28, "selector 0x28 is not present");
        refused(&s, "fs", 0x30, "selector 0x30 is of the system");
        refused(&s, "fs", 0x40, "selector 0x40 is not in the GDT");
        refused(&s, "fs", 0x0c, "selector 0xc is not in the LDT");
        refused(&s, "fs", 0x10010, "selectors have 16 bits");
        s.efer = 0x500;
        assert_int_equal(set(&s, "ss", 0), 0);
        assert_int_equal(s.seg[CPU_SS].attributes, 0x10000);
        s.seg[CPU_SS].attributes = 0x10060; /* level 3 */
        refused(&s, "es", 0x10, "selector 0x10 is of a higher privilege level");
        s.gdtr.base = 0x8000;
        struct cpu_state before = s;
        assert_int_equal(set(&s, "es", 0x10), -EFAULT);
        assert_string_equal(err_text(&set_err),
                            "descriptor of selector 0x10 at 0x8010 is not mapped");
        assert_memory_equal(&s, &before, sizeof(s));
}

static void tags_have_two_bits(void **state)
{
        (void)state;
        struct cpu_state s = { .x87 = { .status = 7 << 11, .tag = 0x83 } };
        const uint8_t one[10] = { [7] = 0x80, [8] = 0xff, [9] = 0x3f };
        memcpy(s.x87.st[0], one, sizeof(one));       /* register 7; 0 is zero */
        memset(s.x87.st[2] + 8, 0xff, 2);            /* register 1: special */
        assert_int_equal(value(&s, "ftag"), 0x3ff9); /* 7 valid, 1 special, 0 zero */
        assert_int_equal(set(&s, "ftag", 0x3ff9), 0);
        assert_int_equal(s.x87.tag, 0x83);
}

/* ---- memory ---- */

#define PML4 0x1000
#define PDPT 0x2000
#define PD   0x3000
#define PT   0x4000

static void put64(const struct memory *m, uint64_t at, uint64_t v)
{
        assert_int_equal(memory_write(m, gpa(at), &v, 8), 0);
}

static void tables_of_every_mode_are_walked(void **state)
{
        (void)state;
        struct memory m = { .fd = -1 };
        struct gpa at;
        struct cpu_state s = { 0 };
        assert_int_equal(memory_init(&m, 2u << 20, NULL, NULL), 0);
        assert_true(gdb_walk(&m, &s, 0x100012345, &at));
        assert_int_equal(at.value, 0x12345); /* 32 bits, as they are */

        s.cr0 = 1ull << 31;
        s.cr3 = PML4;
        s.cr4 = 1 << 5;
        s.efer = 1 << 10;
        put64(&m, PML4 + 8ull * 511, PDPT | 1);
        put64(&m, PDPT + 8ull * 510, PD | 1);
        put64(&m, PDPT + 8ull * 511, 0x40000000 | 0x81);
        put64(&m, PD + 8 * 8, 0x200000 | 0x81);
        put64(&m, PD + 8 * 9, PT | 1);
        put64(&m, PT + 8 * 3, 0x8000000000007001); /* not executed: looked at */
        assert_true(gdb_walk(&m, &s, 0xffffffff81012345, &at));
        assert_int_equal(at.value, 0x212345);
        assert_true(gdb_walk(&m, &s, 0xffffffff81203456, &at));
        assert_int_equal(at.value, 0x7456);
        assert_true(gdb_walk(&m, &s, 0xffffffffc0000005, &at));
        assert_int_equal(at.value, 0x40000005);
        assert_false(gdb_walk(&m, &s, 0xffffffff81204000, &at));
        assert_false(gdb_walk(&m, &s, 0x1000, &at));

        s.efer = 0; /* PAE */
        s.cr3 = 0x5020;
        put64(&m, 0x5020 + 8 * 3, PD | 1);
        assert_true(gdb_walk(&m, &s, 0xc1203456, &at));
        assert_int_equal(at.value, 0x7456);

        s.cr4 = 1 << 4; /* two levels, large pages beyond 4 GiB */
        s.cr3 = 0x6000;
        put64(&m, 0x6000 + 4 * 0x300, 0x400000 | 1 << 13 | 0x81 | (uint64_t)(PT | 1) << 32);
        put64(&m, PT + 4 * 2, 0x9000 | 1);
        assert_true(gdb_walk(&m, &s, 0xc0000123, &at));
        assert_int_equal(at.value, 0x100400123);
        assert_true(gdb_walk(&m, &s, 0xc0402123, &at));
        assert_int_equal(at.value, 0x9123);
        memory_finish(&m);
}

static void breakpoints_hide_and_survive_writes(void **state)
{
        (void)state;
        static struct gdb_points p;
        struct memory m = { .fd = -1 };
        uint8_t bytes[4] = { 0x90, 0x91, 0x92, 0x93 };
        assert_int_equal(memory_init(&m, 1u << 20, NULL, NULL), 0);
        memory_write(&m, gpa(0x1000), bytes, 4);
        assert_int_equal(gdb_points_insert(&p, &m, gpa(0x1001)), 0);
        assert_int_equal(gdb_points_insert(&p, &m, gpa(0x1001)), 0); /* by another address */
        assert_int_equal(gdb_points_insert(&p, &m, gpa(0x40000000)), -EFAULT);
        memory_read(&m, gpa(0x1000), bytes, 4);
        assert_int_equal(bytes[1], 0xcc);
        gdb_points_hide(&p, gpa(0x1000), bytes, 4);
        assert_int_equal(bytes[1], 0x91);
        assert_int_equal(gdb_points_write(&p, &m, gpa(0x1000), (const uint8_t *)"abcd", 4), 0);
        memory_read(&m, gpa(0x1000), bytes, 4);
        assert_memory_equal(bytes,
                            "a\xcc"
                            "cd",
                            4);
        assert_int_equal(gdb_points_remove(&p, &m, gpa(0x1001)), 0);
        assert_true(gdb_points_has(&p, gpa(0x1001)));
        assert_int_equal(gdb_points_remove(&p, &m, gpa(0x1001)), 0);
        memory_read(&m, gpa(0x1000), bytes, 4);
        assert_memory_equal(bytes, "abcd", 4);
        assert_int_equal(gdb_points_remove(&p, &m, gpa(0x1001)), -ENOENT);
        gdb_points_insert(&p, &m, gpa(0x1002));
        memory_write(&m, gpa(0x1002), "X", 1); /* by the guest */
        gdb_points_clear(&p, &m);
        memory_read(&m, gpa(0x1000), bytes, 4);
        assert_memory_equal(bytes, "abXd", 4);
        memory_finish(&m);
}

static void wide_watchpoints_take_several_registers(void **state)
{
        (void)state;
        static struct gdb_points p;
        struct vcpu_debug d = { 0 };
        assert_int_equal(gdb_points_watch(&p, GDB_WRITE, 0x1006, 10), 0); /* 2 and 8 */
        assert_int_equal(gdb_points_watch(&p, GDB_HARDWARE, 0x2003, 1), 0);
        gdb_points_registers(&p, &d);
        assert_int_equal(d.dr[0], 0x1006);
        assert_int_equal(d.dr[1], 0x1008);
        assert_int_equal(d.dr[2], 0x2003);
        assert_int_equal(d.dr7, 0x400 | 0x2a | 5ull << 16 | 9ull << 20);
        assert_int_equal(gdb_points_watch(&p, GDB_ACCESS, 0x3001, 2), -ENOSPC); /* 1 and 1 */
        assert_int_equal(gdb_points_watch(&p, GDB_ACCESS, 0x3000, 2), 0);
        assert_int_equal(gdb_points_unwatch(&p, GDB_WRITE, 0x1006, 10), 0);
        assert_int_equal(gdb_points_unwatch(&p, GDB_WRITE, 0x1006, 10), -ENOENT);
        assert_int_equal(gdb_points_watch(&p, GDB_READ, 0, 33), -EINVAL);
        gdb_points_registers(&p, &d);
        assert_int_equal(d.dr7, 0x400 | 0xa0 | 7ull << 28);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(packets_are_checked_and_unescaped),
                cmocka_unit_test(a_packet_that_is_too_long_is_told_and_over),
                cmocka_unit_test(registers_are_where_gdb_looks),
                cmocka_unit_test(control_registers_keep_their_rules),
                cmocka_unit_test(selectors_bring_their_descriptors),
                cmocka_unit_test(tags_have_two_bits),
                cmocka_unit_test(tables_of_every_mode_are_walked),
                cmocka_unit_test(breakpoints_hide_and_survive_writes),
                cmocka_unit_test(wide_watchpoints_take_several_registers),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
