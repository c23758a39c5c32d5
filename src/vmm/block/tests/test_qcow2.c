/* qcow2 without QEMU's tools; with them: tests/vm/test_disk_images.py. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/str.h"
#include "vmm/block/disk.h"
#include "vmm/block/qcow2/bytes.h"
#include "vmm/block/qcow2/header.h"

#define SIZE (8u << 20)

static unsigned syncs;
static bool sync_fails;

/* In the place of libc's. */
int fdatasync(int fd)
{
        syncs++;
        if (sync_fails) {
                errno = EIO;
                return -1;
        }
        return (int)syscall(SYS_fdatasync, fd);
}

static char top[] = "/tmp/isle-test-qcow2-XXXXXX";
static char image[64], base[64];
static uint8_t bytes[SIZE], expected[SIZE];

static int setup(void **state)
{
        (void)state;
        strcpy(top + strlen(top) - 6, "XXXXXX");
        if (!mkdtemp(top))
                return -1;
        snprintf(image, sizeof(image), "%s/image", top);
        snprintf(base, sizeof(base), "%s/base", top);
        memset(expected, 0, SIZE);
        return 0;
}

static int teardown(void **state)
{
        (void)state;
        return file_remove_tree(AT_FDCWD, top, NULL);
}

static void create(const char *path, uint64_t size, const char *backing, int format)
{
        struct err err = { 0 };
        const struct disk_create_options o = { path, size, backing, format };
        if (disk_create(&o, &err) < 0)
                fail_msg("%s", err_text(&err));
}

static struct disk *opened(const char *path)
{
        struct disk *disk;
        struct err err = { 0 };
        if (disk_open(&(struct disk_options){ .path = path }, &disk, &err) < 0)
                fail_msg("%s", err_text(&err));
        return disk;
}

static int put(struct disk *disk, uint8_t value, uint64_t offset, size_t size)
{
        struct iovec v = { bytes, size };
        memset(bytes, value, size);
        int r = disk_write(disk, &v, 1, offset);
        if (r == 0)
                memset(expected + offset, value, size);
        return r;
}

static void assert_content(struct disk *disk)
{
        struct iovec v = { bytes, SIZE };
        memset(bytes, 0xa5, SIZE);
        assert_int_equal(disk_read(disk, &v, 1, 0), 0);
        assert_memory_equal(bytes, expected, SIZE);
}

static void what_was_written_is_there_when_opened_again(void **state)
{
        (void)state;
        struct stat st;
        create(image, SIZE, NULL, DISK_AUTO);
        assert_int_equal(stat(image, &st), 0);
        assert_int_equal(st.st_mode & 07777, 0600);
        struct disk *disk = opened(image);
        assert_int_equal(disk_size(disk), SIZE);
        assert_content(disk);
        assert_int_equal(put(disk, 1, 512, 512), 0);
        assert_int_equal(put(disk, 2, 100 * 512, 1 << 20), 0);
        assert_int_equal(put(disk, 3, SIZE - 512, 512), 0);
        assert_int_equal(put(disk, 4, 70 * 512, 4096), 0);
        assert_content(disk);
        disk_close(disk);
        disk = opened(image);
        assert_content(disk);
        disk_close(disk);
}

static void zeroes_hide_the_backing_file(void **state)
{
        (void)state;
        create(base, SIZE / 2, NULL, DISK_AUTO);
        struct disk *disk = opened(base);
        assert_int_equal(put(disk, 9, 0, SIZE / 2), 0);
        disk_close(disk);
        create(image, SIZE, "base", DISK_QCOW2);
        disk = opened(image);
        assert_content(disk);
        assert_int_equal(put(disk, 1, 65536, 512), 0);
        assert_int_equal(disk_discard(disk, 65536, 2 << 20), 0);
        memset(expected + 65536, 0, 2 << 20);
        assert_int_equal(disk_write_zeroes(disk, 3 << 20, 512, false), 0);
        memset(expected + (3 << 20), 0, 512);
        assert_int_equal(disk_write_zeroes(disk, (3 << 20) + 65536, SIZE / 2, true), 0);
        memset(expected + (3 << 20) + 65536, 0, SIZE / 2);
        assert_content(disk);
        disk_close(disk);
        disk = opened(image);
        assert_content(disk);
        disk_close(disk);
        memset(expected, 9, SIZE / 2);
        disk = opened(base);
        struct iovec v = { bytes, SIZE / 2 };
        assert_int_equal(disk_read(disk, &v, 1, 0), 0);
        assert_memory_equal(bytes, expected, SIZE / 2);
        disk_close(disk);
}

static void an_image_is_as_large_as_its_backing_file(void **state)
{
        (void)state;
        struct err err = { 0 };
        int fd = open(base, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        assert_int_equal(ftruncate(fd, 1000), 0);
        close(fd);
        create(image, 0, base, DISK_RAW);
        struct disk *disk = opened(image);
        assert_int_equal(disk_size(disk), 1024);
        disk_close(disk);
        const struct disk_create_options again = { image, SIZE, NULL, DISK_AUTO };
        assert_int_equal(disk_create(&again, &err), -EEXIST);
        assert_int_equal(unlink(image), 0);
        const struct disk_create_options nowhere = { image, SIZE, "nowhere", DISK_RAW };
        assert_int_equal(disk_create(&nowhere, &err), -ENOENT);
        assert_non_null(strstr(err_text(&err), "/nowhere"));
        const struct disk_create_options odd = { image, 1000, NULL, DISK_AUTO };
        assert_int_equal(disk_create(&odd, &err), -EINVAL);
        assert_int_equal(access(image, F_OK), -1);
}

static void a_flush_syncs_once_where_no_table_has_changed(void **state)
{
        (void)state;
        create(image, SIZE, NULL, DISK_AUTO);
        struct disk *disk = opened(image);
        assert_int_equal(put(disk, 1, 0, 4096), 0);
        unsigned before = syncs;
        assert_int_equal(disk_flush(disk), 0);
        assert_int_equal(syncs - before, 2); /* data and refcounts, then who refers to them */
        assert_int_equal(put(disk, 2, 0, 4096), 0);
        before = syncs;
        assert_int_equal(disk_flush(disk), 0);
        assert_int_equal(syncs - before, 1);
        disk_close(disk);
}

/* Then nobody knows what the disk has, and what is not known to be there is not referred to. */
static void a_sync_that_fails_once_has_failed_for_good(void **state)
{
        (void)state;
        create(image, SIZE, NULL, DISK_AUTO);
        struct disk *disk = opened(image);
        assert_int_equal(put(disk, 1, 0, 4096), 0);
        assert_int_equal(disk_flush(disk), 0);
        assert_int_equal(put(disk, 2, 1 << 20, 4096), 0);
        sync_fails = true;
        assert_int_equal(disk_flush(disk), -EIO);
        sync_fails = false;
        assert_int_equal(disk_flush(disk), -EIO);
        assert_content(disk);
        disk_close(disk);
        memset(expected + (1 << 20), 0, 4096);
        disk = opened(image);
        assert_content(disk);
        disk_close(disk);
}

static void a_full_file_system_is_an_error_and_no_more(void **state)
{
        (void)state;
        struct rlimit was, limit;
        create(image, SIZE, NULL, DISK_AUTO);
        struct disk *disk = opened(image);
        assert_int_equal(put(disk, 1, 0, 1 << 20), 0);
        assert_int_equal(disk_flush(disk), 0);
        signal(SIGXFSZ, SIG_IGN);
        assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
        limit = (struct rlimit){ 2 << 20, was.rlim_max };
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
        int r = 0;
        uint64_t at = 1 << 20;
        for (; r == 0 && at < SIZE; at += 65536)
                r = put(disk, 2, at, 65536);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
        assert_int_equal(r, -EFBIG);
        assert_true(at < 3 << 20);
        assert_content(disk);
        assert_int_equal(put(disk, 3, at, 1 << 20), 0);
        assert_int_equal(disk_flush(disk), 0);
        disk_close(disk);
        disk = opened(image);
        assert_content(disk);
        disk_close(disk);
}

/* ---- the header ---- */

static void sane(uint8_t *h)
{
        memset(h, 0, 4096);
        memcpy(h, "QFI\xfb", 4);
        qcow2_put32(h + 4, 3);
        qcow2_put32(h + 20, 12);
        qcow2_put64(h + 24, SIZE);
        qcow2_put32(h + 36, 4);
        qcow2_put64(h + 40, 3 << 12);
        qcow2_put64(h + QCOW2_AT_REFTABLE, 1 << 12);
        qcow2_put32(h + QCOW2_AT_REFTABLE + 8, 1);
        qcow2_put32(h + 96, 4);
        qcow2_put32(h + 100, 104);
}

static void headers_that_make_no_sense_are_refused(void **state)
{
        (void)state;
        static const struct {
                unsigned at, size;
                uint64_t value;
                int result;
                const char *told;
        } changes[] = {
                { 4, 4, 1, -EOPNOTSUPP, "qcow version 1" },
                { 20, 4, 8, -EINVAL, "bits of a cluster's size" },
                { 20, 4, 22, -EINVAL, "bits of a cluster's size" },
                { 24, 8, 1ull << 62, -EINVAL, "entries of the L1 table" },
                { 32, 4, 1, -EOPNOTSUPP, "encrypted" },
                { 36, 4, 3, -EINVAL, "entries of the L1 table are 3" },
                { 36, 4, 0xffffffff, -EINVAL, "entries of the L1 table" },
                { 40, 8, 0, -EINVAL, "the L1 table is at 0" },
                { 40, 8, 512, -EINVAL, "the L1 table is at 512" },
                { 40, 8, 1ull << 56, -EINVAL, "the L1 table is at" },
                { 48, 8, 4097, -EINVAL, "the refcount table is at 4097" },
                { 56, 4, 0, -EINVAL, "clusters of the refcount table are 0" },
                { 56, 4, 2049, -EINVAL, "clusters of the refcount table are 2049" },
                { 60, 4, 65537, -EINVAL, "snapshots are 65537" },
                { 72, 8, 4, -EOPNOTSUPP, "external data file" },
                { 72, 8, 16, -EOPNOTSUPP, "extended L2 entries" },
                { 72, 8, 1ull << 63, -EOPNOTSUPP, "feature number 63" },
                { 72, 8, 8, -EINVAL, "compression type is 0" },
                { 96, 4, 7, -EINVAL, "order of refcounts" },
                { 100, 4, 96, -EINVAL, "bytes of the header are 96" },
                { 100, 4, 108, -EINVAL, "bytes of the header are 108" },
                { 100, 4, 8192, -EINVAL, "bytes of the header are 8192" },
                { 108, 4, 4096, -EINVAL, "bytes of a header extension are 4096" },
                { 8, 8, 5000, -EINVAL, "backing file's name" },
        };
        static uint8_t h[4096];
        struct qcow2_header header;
        sane(h);
        assert_int_equal(qcow2_header_parse(h, sizeof(h), "x", &header, NULL), 0);
        assert_int_equal(header.l1_length, 4);
        assert_string_equal(header.backing, "");
        for (unsigned i = 0; i < ELEMENTS(changes); i++) {
                struct err err = { 0 };
                sane(h);
                qcow2_put32(h + 104, 0x12345678); /* an extension that is to be skipped */
                if (changes[i].size == 4)
                        qcow2_put32(h + changes[i].at, (uint32_t)changes[i].value);
                else
                        qcow2_put64(h + changes[i].at, changes[i].value);
                assert_int_equal(qcow2_header_parse(h, sizeof(h), "x", &header, &err),
                                 changes[i].result);
                if (!strstr(err_text(&err), changes[i].told))
                        fail_msg("\"%s\" is not in \"%s\"", changes[i].told, err_text(&err));
        }
}

static void unknown_features_are_called_what_the_image_calls_them(void **state)
{
        (void)state;
        static uint8_t h[4096];
        struct qcow2_header header;
        struct err err = { 0 };
        sane(h);
        qcow2_put64(h + 72, 1ull << 40);
        qcow2_put32(h + 104, QCOW2_EXT_FEATURE_NAMES);
        qcow2_put32(h + 108, 96);
        h[112] = 1; /* compatible, so not this one */
        h[113] = 40;
        strcpy((char *)h + 114, "other");
        h[160] = 0;
        h[161] = 40;
        memset(h + 162, 'n', 46);
        assert_int_equal(qcow2_header_parse(h, sizeof(h), "x", &header, &err), -EOPNOTSUPP);
        assert_non_null(
                strstr(err_text(&err), "\"nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn\""));
        h[162] = '\n'; /* a terminal must not be told this */
        assert_int_equal(qcow2_header_parse(h, sizeof(h), "x", &header, &err), -EOPNOTSUPP);
        assert_non_null(strstr(err_text(&err), "feature number 40"));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(what_was_written_is_there_when_opened_again),
                TEST(zeroes_hide_the_backing_file),
                TEST(an_image_is_as_large_as_its_backing_file),
                TEST(a_flush_syncs_once_where_no_table_has_changed),
                TEST(a_sync_that_fails_once_has_failed_for_good),
                TEST(a_full_file_system_is_an_error_and_no_more),
                TEST(headers_that_make_no_sense_are_refused),
                TEST(unknown_features_are_called_what_the_image_calls_them),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
