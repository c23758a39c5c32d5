/* What every virtio device has in a snapshot, on both transports, and what of a snapshot's bytes is
 * believed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "vmm/layout.h"
#include "vmm/virtio/rng.h"
#include "vmm/virtio/tests/driver.h"

#define COMMON_SIZE 56
#define DATA        0x8000

static void make(struct unit *u, bool mmio)
{
        struct err err = { 0 };
        unit_init(u, mmio);
        assert_int_equal(virtio_rng_create(&u->machine, &err), 0);
        u->device = container_of(machine_last_device(&u->machine), struct virtio_device, device);
}

/* Where its registers are. */
static uint64_t registers(const struct unit *u)
{
        return u->device->mmio ? LAYOUT_VIRTIO_MMIO : LAYOUT_PCI_WINDOW;
}

static uint64_t get(struct unit *u, uint64_t offset, unsigned size)
{
        uint64_t value = 0;
        assert_true(bus_read(&u->machine.mmio, registers(u) + offset, size, &value));
        return value;
}

static void set(struct unit *u, uint64_t offset, unsigned size, uint64_t value)
{
        assert_true(bus_write(&u->machine.mmio, registers(u) + offset, size, value));
}

static void ask_for_bytes(struct unit *u, unsigned n, uint32_t size)
{
        driver_offer(u, 0, n, &(struct part){ DATA + n * 0x100, size, RING_WRITE }, 1);
        driver_notify(u, 0);
}

static void a_ring_goes_on_in_another_machine(void **state)
{
        (void)state;
        for (unsigned mmio = 0; mmio < 2; mmio++) {
                struct unit a, b;
                make(&a, mmio);
                make(&b, mmio);
                driver_begin(&a, 0);
                ask_for_bytes(&a, 0, 32);
                assert_int_equal(driver_used(&a, 0), 1);
                driver_offer(&a, 0, 1, &(struct part){ DATA, 48, RING_WRITE }, 1);
                unit_move(&a, &b);
                ask_for_bytes(&b, 2, 64);
                assert_int_equal(driver_used(&b, 0), 3); /* nothing twice, nothing lost */
                assert_int_equal(driver_written(&b, 0), 64);
                assert_int_equal(driver_used(&a, 0), 1);
                unit_finish(&a);
                unit_finish(&b);
        }
}

static void what_a_device_writes_is_noted(void **state)
{
        (void)state;
        struct unit u;
        make(&u, false);
        u.machine.memory.dirty = xcalloc(memory_pages(&u.machine.memory) / 64, sizeof(uint64_t));
        driver_begin(&u, 0);
        ask_for_bytes(&u, 0, 32);
        /* rings and buffer */
        assert_int_equal(u.machine.memory.dirty[0], 1 | 1u << DATA / MEMORY_PAGE_SIZE);
        unit_finish(&u);
}

static void registers_are_as_they_were_on_pci(void **state)
{
        (void)state;
        struct unit a, b;
        make(&a, false);
        make(&b, false);
        driver_begin(&a, VIRTIO_RING_F_INDIRECT_DESC);
        set(&a, 0, 4, 1);        /* the features' half */
        set(&a, 8, 4, 1);        /* of the driver's, too */
        set(&a, 16, 2, 1);       /* vector of the configuration */
        set(&a, 26, 2, 0);       /* of the queue */
        ask_for_bytes(&a, 0, 8); /* MSI-X is off: INTx, and the ISR */
        unit_move(&a, &b);
        for (unsigned at = 0; at < COMMON_SIZE; at += at < 16 || at >= 32 ? 4 : 2)
                if (at != 20)
                        assert_int_equal(get(&b, at, 2), get(&a, at, 2));
        assert_int_equal(get(&b, 20, 1), VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER |
                                                 VIRTIO_STATUS_FEATURES_OK |
                                                 VIRTIO_STATUS_DRIVER_OK);
        assert_int_equal(get(&b, 26, 2), 0);
        assert_int_equal(get(&b, 0x1000, 1), 1);
        assert_int_equal(get(&b, 0x1000, 1), 0); /* reading took it */
        unit_finish(&a);
        unit_finish(&b);
}

static void registers_are_as_they_were_on_mmio(void **state)
{
        (void)state;
        struct unit a, b;
        make(&a, true);
        make(&b, true);
        driver_begin(&a, 0);
        set(&a, 0x014, 4, 1);
        ask_for_bytes(&a, 0, 8);
        unit_move(&a, &b);
        for (unsigned at = 0; at < 0x100; at += 4)
                assert_int_equal(get(&b, at, 4), get(&a, at, 4));
        assert_int_equal(get(&b, 0x060, 4), 1);
        assert_int_equal(get(&b, 0x010, 4), b.device->features >> 32);
        unit_finish(&a);
        unit_finish(&b);
}

/* `bytes` in a new device. */
static int load_new(const void *bytes, size_t size, bool mmio, struct err *err)
{
        struct unit u;
        make(&u, mmio);
        int r = device_load(&u, bytes, size, err);
        assert_true(r < 0 || driver_used(&u, 0) == 0);
        unit_finish(&u);
        return r;
}

static void refused(const void *bytes, size_t size, bool mmio, const char *why)
{
        struct err err = { 0 };
        assert_true(load_new(bytes, size, mmio, &err) < 0);
        if (!strstr(err_text(&err), why))
                fail_msg("\"%s\" does not say \"%s\"", err_text(&err), why);
}

/* Offsets in the state: see virtio_save(). */
enum { AT_TRANSPORT = 1, AT_FEATURES = 2, AT_ACKED = 10, AT_STATUS = 18, AT_QUEUES = 23 };
enum { QUEUE_SIZE_AT = AT_QUEUES + 2, DESCRIPTORS_AT = AT_QUEUES + 4 };

static void what_no_guest_could_have_is_refused(void **state)
{
        (void)state;
        struct unit u;
        struct err err = { 0 };
        struct state_writer w;
        make(&u, false);
        driver_begin(&u, 0);
        assert_int_equal(device_save(&u, &w, &err), 0);
        unit_finish(&u);
        uint8_t s[256];
        const size_t size = w.buf.size;
        assert_in_range(size, DESCRIPTORS_AT, sizeof(s));
#define WITH(offset, value, why)                                                                   \
        do {                                                                                       \
                memcpy(s, w.buf.data, size);                                                       \
                s[offset] = (uint8_t)(value);                                                      \
                refused(s, size, false, why);                                                      \
        } while (0)
        WITH(0, 99, "of a virtio device 99");
        WITH(AT_FEATURES, 0xff, "same options");
        WITH(AT_ACKED, 0xff, "has a driver that took");
        WITH(AT_STATUS, VIRTIO_STATUS_DRIVER_OK, "agreed on nothing");
        WITH(AT_QUEUES, 2, "has 2 queues");
        WITH(QUEUE_SIZE_AT, 3, "queue 0 of 3 entries");
        WITH(DESCRIPTORS_AT + 7, 1, "outside of the memory");
        WITH(DESCRIPTORS_AT, 1, "queue 0");
#undef WITH
        refused(w.buf.data, size, true, "on PCI, where this machine has it on MMIO");
        for (size_t n = 0; n < size; n++)
                assert_true(load_new(w.buf.data, n, false, &err) < 0);
        assert_int_equal(load_new(w.buf.data, size, false, &err), 0);
        state_writer_finish(&w);
}

static void any_byte_may_be_any_other(void **state)
{
        (void)state;
        static const uint8_t values[] = { 0, 1, 2, 0x7f, 0x80, 0xff };
        struct unit u;
        struct err err = { 0 };
        struct state_writer w;
        make(&u, true);
        driver_begin(&u, 0);
        ask_for_bytes(&u, 0, 8);
        assert_int_equal(device_save(&u, &w, &err), 0);
        unit_finish(&u);
        for (size_t at = 0; at < w.buf.size; at++) {
                char was = w.buf.data[at];
                for (unsigned i = 0; i < ELEMENTS(values); i++) {
                        w.buf.data[at] = (char)values[i];
                        (void)load_new(w.buf.data, w.buf.size, true, &err);
                }
                w.buf.data[at] = was;
        }
        state_writer_finish(&w);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_ring_goes_on_in_another_machine),
                cmocka_unit_test(what_a_device_writes_is_noted),
                cmocka_unit_test(registers_are_as_they_were_on_pci),
                cmocka_unit_test(registers_are_as_they_were_on_mmio),
                cmocka_unit_test(what_no_guest_could_have_is_refused),
                cmocka_unit_test(any_byte_may_be_any_other),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
