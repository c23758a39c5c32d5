/* The ramdisk of kernels whose modules are made up here. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"
#include "guest/guest.h"

#define MODULES "lib/modules/6.1-test/kernel/drivers"

static char *directory;

static char *below(const char *name)
{
        return xasprintf("%s/%s", directory, name);
}

static void put(const char *name, const char *data, size_t size)
{
        auto_free char *path = below(name);
        auto_free char *parent = xstrndup(path, (size_t)(strrchr(path, '/') - path));
        assert_int_equal(file_make_dirs(AT_FDCWD, parent, 0755, NULL), 0);
        assert_int_equal(file_replace(AT_FDCWD, path, data, size, 0644, false, NULL), 0);
}

/* As in a module's .modinfo. */
static void put_module(const char *file, const char *needs)
{
        auto_free char *name = xasprintf(MODULES "/%s", file);
        auto_buf data = { 0 };
        buf_append(&data, "license=GPL\0depends=", 20);
        buf_append(&data, needs, strlen(needs) + 1);
        put(name, data.data, data.size);
}

static int build(struct buf *archive, struct err *err)
{
        auto_free char *kernel = below("boot/vmlinuz-6.1-test");
        auto_free char *agent = below("agent");
        auto_free char *runtime = below("runtime");
        return initramfs_build(kernel, agent, runtime, archive, err);
}

/* Where a file of the archive is, by the turn that its name tells; -1 where it is not. */
static int turn_of(const struct buf *archive, const char *module)
{
        auto_free char *end = xasprintf("-%s.ko", module);
        const char *found = memmem(archive->data, archive->size, end, strlen(end) + 1);
        return found ? atoi(found - 2) : -1;
}

static void what_is_needed_comes_before(void **state)
{
        (void)state;
        auto_buf archive = { 0 };
        struct err err = { 0 };
        put_module("virtio-pci.ko", "virtio-ring,legacy");
        put_module("virtio_ring.ko", "virtio");
        put_module("deep/deeper/virtio.ko", "");
        put_module("legacy.ko", "virtio,not_a_module");
        put_module("virtiofs.ko", "virtio_ring");
        put_module("unwanted.ko", "");
        assert_int_equal(build(&archive, &err), 0);
        assert_int_equal(turn_of(&archive, "virtio"), 0);
        assert_int_equal(turn_of(&archive, "virtio_ring"), 1);
        assert_int_equal(turn_of(&archive, "legacy"), 2);
        assert_int_equal(turn_of(&archive, "virtio_pci"), 3);
        assert_int_equal(turn_of(&archive, "virtiofs"), 4);
        assert_int_equal(turn_of(&archive, "unwanted"), -1);
        assert_non_null(memmem(archive.data, archive.size, "the agent", 9));
        assert_non_null(memmem(archive.data, archive.size, "TRAILER!!!", 10));
        assert_int_equal(archive.size % 4, 0);
}

static void modules_are_found_at_any_depth(void **state)
{
        (void)state;
        auto_buf archive = { 0 }, path = { 0 };
        struct err err = { 0 };
        for (int i = 0; i < 40; i++)
                buf_puts(&path, "deep/");
        buf_puts(&path, "virtio_rng.ko");
        put_module(buf_text(&path), "");
        assert_int_equal(build(&archive, &err), 0);
        assert_int_equal(turn_of(&archive, "virtio_rng"), 0);
}

static void a_kernel_without_modules_needs_none(void **state)
{
        (void)state;
        auto_buf archive = { 0 };
        assert_int_equal(build(&archive, NULL), 0);
        assert_null(memmem(archive.data, archive.size, ".ko", 3));
}

static void modules_in_a_circle_are_refused(void **state)
{
        (void)state;
        auto_buf archive = { 0 };
        struct err err = { 0 };
        put_module("virtio_pci.ko", "one");
        put_module("one.ko", "two");
        put_module("two.ko", "one");
        assert_int_equal(build(&archive, &err), -ELOOP);
        assert_non_null(strstr(err_text(&err), "needs itself"));
}

static void a_long_row_is_refused(void **state)
{
        (void)state;
        static const struct {
                int length, wanted;
        } cases[] = { { 12, 0 }, { 13, -ELOOP } };
        for (size_t c = 0; c < ELEMENTS(cases); c++) {
                auto_buf archive = { 0 };
                struct err err = { 0 };
                put_module("virtio_pci.ko", "m1");
                for (int i = 1; i <= cases[c].length; i++) {
                        auto_free char *name = xasprintf("m%d.ko", i);
                        auto_free char *next = xasprintf("m%d", i + 1);
                        put_module(name, i == cases[c].length ? "" : next);
                }
                assert_int_equal(build(&archive, &err), cases[c].wanted);
                assert_true(cases[c].wanted == 0 || strstr(err_text(&err), "m13.ko"));
        }
}

static void compressed_modules_are_refused(void **state)
{
        (void)state;
        auto_buf archive = { 0 };
        struct err err = { 0 };
        put_module("virtio_pci.ko.xz", "");
        assert_int_equal(build(&archive, &err), -EOPNOTSUPP);
        assert_non_null(strstr(err_text(&err), "virtio_pci.ko.xz is compressed"));
}

static int make_directory(void **state)
{
        (void)state;
        directory = xstrdup("/tmp/isle-test-initramfs-XXXXXX");
        if (!mkdtemp(directory))
                return -1;
        put("agent", "the agent", 9);
        put("runtime", "the runtime", 11);
        return 0;
}

static int remove_directory(void **state)
{
        (void)state;
        int r = file_remove_tree(AT_FDCWD, directory, NULL);
        free(directory);
        return r;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_directory, remove_directory)

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(what_is_needed_comes_before),     TEST(a_kernel_without_modules_needs_none),
                TEST(modules_in_a_circle_are_refused), TEST(a_long_row_is_refused),
                TEST(compressed_modules_are_refused),  TEST(modules_are_found_at_any_depth),
        };
        return cmocka_run_group_tests_name("guest-initramfs", tests, NULL, NULL);
}
