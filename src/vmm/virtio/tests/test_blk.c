/* What requests of the guest become at the disk, which is a fake. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "vmm/virtio/blk.c"

#include "vmm/virtio/tests/fuzz_device.h"

#define SECTORS 64
#define HEADER  0x4000
#define DATA    0x5000
#define STATUS  0x7000
#define BYTES   1024

struct disk {
        bool read_only;
        int fails; /* -errno of every request */
        unsigned reads, writes, flushes, discards, zeroes;
        uint64_t offset, size;
        bool unmap;
};

static struct disk fake;

static int took(unsigned *counter, uint64_t offset, uint64_t size)
{
        ++*counter;
        fake.offset = offset;
        fake.size = size;
        return fake.fails;
}

static uint64_t bytes_of(const struct iovec *v, unsigned length)
{
        uint64_t bytes = 0;
        for (unsigned i = 0; i < length; i++)
                bytes += v[i].iov_len;
        return bytes;
}

int disk_read(struct disk *d, const struct iovec *iov, unsigned length, uint64_t offset)
{
        memset(iov[0].iov_base, 0x5a, iov[0].iov_len);
        return took(&d->reads, offset, bytes_of(iov, length));
}

int disk_write(struct disk *d, const struct iovec *iov, unsigned length, uint64_t offset)
{
        return took(&d->writes, offset, bytes_of(iov, length));
}

int disk_flush(struct disk *d)
{
        return took(&d->flushes, 0, 0);
}

int disk_discard(struct disk *d, uint64_t offset, uint64_t size)
{
        return took(&d->discards, offset, size);
}

int disk_write_zeroes(struct disk *d, uint64_t offset, uint64_t size, bool unmap)
{
        d->unmap = unmap;
        return took(&d->zeroes, offset, size);
}

uint64_t disk_size(const struct disk *d)
{
        (void)d;
        return SECTORS * SECTOR;
}

bool disk_read_only(const struct disk *d)
{
        return d->read_only;
}

bool disk_can_discard(const struct disk *d)
{
        return !d->read_only;
}

void disk_close(struct disk *d)
{
        (void)d;
}

static void put(uint8_t *ram, unsigned n, uint64_t at, uint32_t size, unsigned flags)
{
        uint16_t tail[2] = { (uint16_t)flags, (uint16_t)(n + 1) };
        memcpy(ram + 16 * n, &at, 8);
        memcpy(ram + 16 * n + 8, &size, 4);
        memcpy(ram + 16 * n + 12, tail, 4);
}

/* One request: header and what is written with it, `in` bytes for the answer before
 * the status, which is returned. */
static uint8_t ask(uint32_t type, uint64_t sector, const void *data, uint32_t out, uint32_t in)
{
        static struct blk blk = { .disk = &fake, .sectors = SECTORS, .serial = "a serial" };
        static struct blk_queue queue = { .blk = &blk };
        static uint8_t ram[FUZZ_BYTES];
        const struct virtio_blk_outhdr header = { .type = type, .sector = sector };
        const uint16_t available[3] = { 0, 1, 0 };
        unsigned n = 0;
        if (!blk.virtio.queues_length) {
                virtio_init(&blk.virtio, fuzz_machine_get(), VIRTIO_BLK, "virtio-blk", &ops, 0);
                virtio_queue(&blk.virtio, QUEUE_SIZE);
                pthread_mutex_init(&blk.throttle_lock, NULL);
        }
        memset(ram, 0, sizeof(ram));
        memcpy(ram + HEADER, &header, sizeof(header));
        if (data)
                memcpy(ram + DATA, data, out);
        put(ram, n++, HEADER, sizeof(header), 1);
        if (out)
                put(ram, n++, DATA, out, 1);
        if (in)
                put(ram, n++, DATA, in, 1 | 2);
        put(ram, n, STATUS, 1, 2);
        ram[STATUS] = 0xee;
        memcpy(ram + 0x100, available, sizeof(available));
        fuzz_device_begin(&blk.virtio, ram, sizeof(ram));
        work(&queue);
        assert_true(virtio_live(&blk.virtio));
        return *memory_at(&fuzz_machine.memory, gpa(STATUS), 1);
}

static int fresh(void **state)
{
        (void)state;
        fake = (struct disk){ 0 };
        return 0;
}

static void flush_is_the_disks_flush_and_its_failure_is_told(void **state)
{
        (void)state;
        assert_int_equal(ask(VIRTIO_BLK_T_FLUSH, 0, NULL, 0, 0), VIRTIO_BLK_S_OK);
        assert_int_equal(fake.flushes, 1);
        fake.fails = -EIO;
        assert_int_equal(ask(VIRTIO_BLK_T_FLUSH, 0, NULL, 0, 0), VIRTIO_BLK_S_IOERR);
        assert_int_equal(fake.flushes, 2);
}

static void transfers_go_where_they_say(void **state)
{
        (void)state;
        assert_int_equal(ask(VIRTIO_BLK_T_IN, 3, NULL, 0, BYTES), VIRTIO_BLK_S_OK);
        assert_int_equal(fake.offset, 3 * SECTOR);
        assert_int_equal(fake.size, BYTES);
        assert_int_equal(*memory_at(&fuzz_machine.memory, gpa(DATA + BYTES - 1), 1), 0x5a);
        assert_int_equal(ask(VIRTIO_BLK_T_OUT, SECTORS - 2, NULL, BYTES, 0), VIRTIO_BLK_S_OK);
        assert_int_equal(fake.offset, (SECTORS - 2) * SECTOR);
        fake.fails = -ENOSPC;
        assert_int_equal(ask(VIRTIO_BLK_T_OUT, 0, NULL, BYTES, 0), VIRTIO_BLK_S_IOERR);
        assert_int_equal(fake.writes, 2);
}

static void nothing_beyond_the_end_reaches_the_disk(void **state)
{
        (void)state;
        assert_int_equal(ask(VIRTIO_BLK_T_IN, SECTORS - 1, NULL, 0, BYTES), VIRTIO_BLK_S_IOERR);
        assert_int_equal(ask(VIRTIO_BLK_T_OUT, UINT64_MAX, NULL, BYTES, 0), VIRTIO_BLK_S_IOERR);
        assert_int_equal(ask(VIRTIO_BLK_T_IN, 0, NULL, 0, 513), VIRTIO_BLK_S_IOERR);
        assert_int_equal(fake.reads + fake.writes, 0);
}

static void ranges_are_checked_before_any_is_done(void **state)
{
        (void)state;
        struct virtio_blk_discard_write_zeroes r[2] = { { 8, 8, 0 }, { 0, SECTORS + 1, 0 } };
        assert_int_equal(ask(VIRTIO_BLK_T_DISCARD, 0, r, sizeof(r), 0), VIRTIO_BLK_S_IOERR);
        assert_int_equal(fake.discards, 0);
        assert_int_equal(ask(VIRTIO_BLK_T_DISCARD, 0, r, sizeof(r[0]), 0), VIRTIO_BLK_S_OK);
        assert_int_equal(fake.offset, 8 * SECTOR);
        assert_int_equal(fake.size, 8 * SECTOR);
        r[0].flags = VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
        assert_int_equal(ask(VIRTIO_BLK_T_DISCARD, 0, r, sizeof(r[0]), 0), VIRTIO_BLK_S_UNSUPP);
        assert_int_equal(ask(VIRTIO_BLK_T_WRITE_ZEROES, 0, r, sizeof(r[0]), 0), VIRTIO_BLK_S_OK);
        assert_true(fake.unmap);
        assert_int_equal(ask(VIRTIO_BLK_T_WRITE_ZEROES, 0, r, 7, 0), VIRTIO_BLK_S_IOERR);
}

static void read_only_disk_is_not_changed(void **state)
{
        (void)state;
        const struct virtio_blk_discard_write_zeroes range = { 0, 8, 0 };
        fake.read_only = true;
        assert_int_equal(ask(VIRTIO_BLK_T_OUT, 0, NULL, BYTES, 0), VIRTIO_BLK_S_IOERR);
        assert_int_equal(ask(VIRTIO_BLK_T_DISCARD, 0, &range, sizeof(range), 0),
                         VIRTIO_BLK_S_IOERR);
        assert_int_equal(ask(VIRTIO_BLK_T_WRITE_ZEROES, 0, &range, sizeof(range), 0),
                         VIRTIO_BLK_S_IOERR);
        assert_int_equal(fake.writes + fake.discards + fake.zeroes, 0);
        assert_int_equal(ask(VIRTIO_BLK_T_IN, 0, NULL, 0, BYTES), VIRTIO_BLK_S_OK);
}

static void identity_and_the_unknown(void **state)
{
        (void)state;
        assert_int_equal(ask(VIRTIO_BLK_T_GET_ID, 0, NULL, 0, BLK_SERIAL_MAX), VIRTIO_BLK_S_OK);
        assert_memory_equal(memory_at(&fuzz_machine.memory, gpa(DATA), 9), "a serial", 9);
        assert_int_equal(ask(VIRTIO_BLK_T_GET_ID, 0, NULL, 0, 4), VIRTIO_BLK_S_IOERR);
        assert_int_equal(ask(0x1234, 0, NULL, 0, 0), VIRTIO_BLK_S_UNSUPP);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup(flush_is_the_disks_flush_and_its_failure_is_told, fresh),
                cmocka_unit_test_setup(transfers_go_where_they_say, fresh),
                cmocka_unit_test_setup(nothing_beyond_the_end_reaches_the_disk, fresh),
                cmocka_unit_test_setup(ranges_are_checked_before_any_is_done, fresh),
                cmocka_unit_test_setup(read_only_disk_is_not_changed, fresh),
                cmocka_unit_test_setup(identity_and_the_unknown, fresh),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
