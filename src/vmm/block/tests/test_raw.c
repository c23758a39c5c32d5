#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmm/block/disk.h"

#define SIZE (1u << 20)

static unsigned syncs;

/* In the place of libc's. */
int fdatasync(int fd)
{
        syncs++;
        return (int)syscall(SYS_fdatasync, fd);
}

static char path[] = "/tmp/isle-test-raw-XXXXXX";

static int setup(void **state)
{
        (void)state;
        strcpy(path + strlen(path) - 6, "XXXXXX");
        int fd = mkstemp(path);
        if (fd < 0 || ftruncate(fd, SIZE + 100) < 0)
                return -1;
        close(fd);
        return 0;
}

static int teardown(void **state)
{
        (void)state;
        return unlink(path);
}

static struct disk *opened(bool read_only)
{
        struct disk *disk;
        struct err err = { 0 };
        const struct disk_options o = { .path = path, .read_only = read_only };
        if (disk_open(&o, &disk, &err) < 0)
                fail_msg("%s", err_text(&err));
        return disk;
}

static void vectors_of_any_length_arrive_whole(void **state)
{
        (void)state;
        static uint8_t out[SIZE], back[SIZE];
        static struct iovec v[SIZE / 256];
        struct disk *disk = opened(false);
        assert_int_equal(disk_size(disk), SIZE);
        for (unsigned i = 0; i < SIZE; i++)
                out[i] = (uint8_t)(i * 7 + i / 251);
        /* More pieces than one system call takes, of different sizes. */
        unsigned n = 0;
        for (size_t at = 0; at < SIZE; n++) {
                size_t piece = n % 3 == 0 ? 100 : 412;
                piece = piece < SIZE - at ? piece : SIZE - at;
                v[n] = (struct iovec){ out + at, piece };
                at += piece;
        }
        assert_true(n > 1024);
        assert_int_equal(disk_write(disk, v, n, 0), 0);
        struct iovec whole = { back, SIZE };
        assert_int_equal(disk_read(disk, &whole, 1, 0), 0);
        assert_memory_equal(out, back, SIZE);
        unsigned before = syncs;
        assert_int_equal(disk_flush(disk), 0);
        assert_int_equal(syncs, before + 1);
        disk_close(disk);
}

static void discarded_and_zeroed_read_as_zeroes(void **state)
{
        (void)state;
        static uint8_t ones[SIZE], back[SIZE], zeroes[SIZE];
        struct disk *disk = opened(false);
        struct iovec v = { ones, SIZE };
        memset(ones, 1, SIZE);
        assert_int_equal(disk_write(disk, &v, 1, 0), 0);
        assert_int_equal(disk_discard(disk, 65536, 131072), 0);
        assert_int_equal(disk_write_zeroes(disk, 512, 1024, false), 0);
        assert_int_equal(disk_write_zeroes(disk, SIZE - 512, 512, true), 0);
        v.iov_base = back;
        assert_int_equal(disk_read(disk, &v, 1, 0), 0);
        memset(ones + 65536, 0, 131072);
        memset(ones + 512, 0, 1024);
        memset(ones + SIZE - 512, 0, 512);
        assert_memory_equal(ones, back, SIZE);
        assert_memory_not_equal(back, zeroes, SIZE);
        disk_close(disk);
}

static void one_writes_or_many_read(void **state)
{
        (void)state;
        struct err err = { 0 };
        struct disk *first = opened(false), *second;
        const struct disk_options writes = { .path = path };
        const struct disk_options reads = { .path = path, .read_only = true };
        assert_int_equal(disk_open(&writes, &second, &err), -EBUSY);
        assert_non_null(strstr(err_text(&err), path));
        assert_int_equal(disk_open(&reads, &second, &err), -EBUSY);
        disk_close(first);
        first = opened(true);
        second = opened(true);
        struct disk *third;
        assert_int_equal(disk_open(&writes, &third, &err), -EBUSY);
        assert_true(disk_read_only(first));
        assert_false(disk_can_discard(first));
        disk_close(first);
        disk_close(second);
}

static void shrunk_file_is_an_error(void **state)
{
        (void)state;
        uint8_t bytes[512];
        struct iovec v = { bytes, sizeof(bytes) };
        struct disk *disk = opened(false);
        assert_int_equal(truncate(path, 1024), 0);
        assert_int_equal(disk_read(disk, &v, 1, 0), 0);
        assert_int_equal(disk_read(disk, &v, 1, 4096), -EIO);
        disk_close(disk);
}

static void what_is_no_disk_is_refused(void **state)
{
        (void)state;
        struct err err = { 0 };
        struct disk *disk;
        assert_int_equal(disk_open(&(struct disk_options){ .path = "/dev/null" }, &disk, &err),
                         -EINVAL);
        assert_int_equal(
                disk_open(&(struct disk_options){ .path = "/tmp", .read_only = true }, &disk, &err),
                -EINVAL);
        int fd = open(path, O_WRONLY);
        assert_int_equal(write(fd, "QFI\xfb", 4), 4);
        close(fd);
        assert_int_equal(disk_open(&(struct disk_options){ .path = path }, &disk, &err),
                         -EOPNOTSUPP);
        assert_int_equal(
                disk_open(&(struct disk_options){ .path = path, .format = DISK_RAW }, &disk, &err),
                0);
        disk_close(disk);
}

static void does_not_come_to_look_like_another_format(void **state)
{
        (void)state;
        uint8_t bytes[1024] = "QFI\xfb";
        struct iovec v[2] = { { bytes, 2 }, { bytes + 2, sizeof(bytes) - 2 } };
        struct iovec back = { bytes, sizeof(bytes) };
        struct disk *disk = opened(false);
        assert_int_equal(disk_write(disk, v, 2, 0), -EPERM);
        assert_int_equal(disk_write(disk, v, 2, 512), 0);
        bytes[3] = 0;
        bytes[1023] = 7;
        assert_int_equal(disk_write(disk, v, 2, 0), 0);
        bytes[1023] = 0;
        assert_int_equal(disk_read(disk, &back, 1, 0), 0);
        assert_int_equal(bytes[1023], 7);
        disk_close(disk);
        struct err err = { 0 };
        const struct disk_options named = { .path = path, .format = DISK_RAW };
        assert_int_equal(disk_open(&named, &disk, &err), 0);
        memcpy(bytes, "QFI\xfb", 4);
        assert_int_equal(disk_write(disk, v, 2, 0), 0);
        disk_close(disk);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(vectors_of_any_length_arrive_whole),
                TEST(discarded_and_zeroed_read_as_zeroes),
                TEST(one_writes_or_many_read),
                TEST(shrunk_file_is_an_error),
                TEST(what_is_no_disk_is_refused),
                TEST(does_not_come_to_look_like_another_format),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
