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

static int set(struct cpu_state *s, const char *name, uint64_t low)
{
        uint8_t bytes[GDB_REGISTER_BYTES] = { 0 };
        memcpy(bytes, &low, sizeof(low));
        return gdb_register_set(s, named(name), bytes);
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
        assert_int_equal(set(&s, "cr3", 0x5000), 0);
        assert_int_equal(set(&s, "cr3", 0x6000), -EPERM);
        assert_int_equal(s.cr3, 0x5000);
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
                cmocka_unit_test(tags_have_two_bits),
                cmocka_unit_test(tables_of_every_mode_are_walked),
                cmocka_unit_test(breakpoints_hide_and_survive_writes),
                cmocka_unit_test(wide_watchpoints_take_several_registers),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
