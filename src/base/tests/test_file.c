#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/str.h"
#include "base/tests/test.h"

/* A fresh directory as *state: its descriptor. */
static int enter_directory(void **state)
{
        char path[] = "/tmp/isle-test-file-XXXXXX";
        if (!mkdtemp(path))
                return -1;
        int *fd = xmalloc(sizeof(*fd));
        *fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        *state = fd;
        return *fd < 0 ? -1 : 0;
}

static int leave_directory(void **state)
{
        int *fd = *state;
        char link[64], path[256];
        snprintf(link, sizeof(link), "/proc/self/fd/%d", *fd);
        ssize_t length = readlink(link, path, sizeof(path) - 1);
        path[length > 0 ? length : 0] = '\0';
        close(*fd);
        free(fd);
        return file_remove_tree(AT_FDCWD, path, NULL);
}

static void replacing_is_all_or_nothing(void **state)
{
        int dir = *(int *)*state;
        struct err err = { 0 };
        assert_int_equal(file_replace(dir, "f", "one", 3, 0640, true, &err), 0);
        assert_int_equal(file_replace(dir, "f", "second", 6, 0640, false, &err), 0);
        auto_free char *data = NULL;
        size_t size = 0;
        assert_int_equal(file_read(dir, "f", 100, &data, &size, &err), 0);
        assert_int_equal(size, 6);
        assert_string_equal(data, "second");
        struct stat st;
        assert_int_equal(fstatat(dir, "f", &st, 0), 0);
        assert_int_equal(st.st_mode & 07777, 0640);

        /* A failed one leaves the old content and no temporary file. */
        assert_int_equal(mkdirat(dir, "d", 0755), 0);
        assert_int_equal(file_replace(dir, "d", "x", 1, 0600, false, &err), -EISDIR);
        assert_non_null(strstr(err_text(&err), "write 'd'"));
        auto_dir listing = fdopendir(fcntl(dir, F_DUPFD_CLOEXEC, 3));
        int entries = 0;
        while (readdir(listing))
                entries++;
        assert_int_equal(entries, 4); /* . .. f d */
}

static void reading_is_bounded(void **state)
{
        int dir = *(int *)*state;
        struct err err = { 0 };
        auto_free char *data = NULL;
        assert_int_equal(file_replace(dir, "f", "12345", 5, 0600, false, &err), 0);
        assert_int_equal(file_read(dir, "f", 4, &data, NULL, &err), -EFBIG);
        assert_null(data);
        assert_int_equal(file_read(dir, "f", 5, &data, NULL, &err), 0);
        assert_int_equal(file_read(dir, "none", 5, &data, NULL, &err), -ENOENT);
        assert_non_null(strstr(err_text(&err), "'none'"));
}

static void trees_are_made_and_removed(void **state)
{
        int dir = *(int *)*state;
        struct err err = { 0 };
        assert_int_equal(file_make_dirs(dir, "a/b/c", 0755, &err), 0);
        assert_int_equal(file_make_dirs(dir, "a/b/c", 0755, &err), 0);
        assert_int_equal(file_replace(dir, "a/b/f", "", 0, 0600, false, &err), 0);
        assert_int_equal(file_make_dirs(dir, "a/b/f/g", 0755, &err), -ENOTDIR);

        /* A link is removed, what it points to stays. */
        assert_int_equal(mkdirat(dir, "kept", 0755), 0);
        assert_int_equal(symlinkat("../kept", dir, "a/link"), 0);
        assert_int_equal(file_remove_tree(dir, "a", &err), 0);
        assert_int_equal(faccessat(dir, "a", F_OK, 0), -1);
        assert_int_equal(faccessat(dir, "kept", F_OK, 0), 0);
        assert_int_equal(file_remove_tree(dir, "a", &err), 0);
}

static void deep_trees_are_removed(void **state)
{
        int dir = *(int *)*state;
        struct err err = { 0 };
        struct rlimit before, few = { 200, 200 };
        assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
        few.rlim_max = before.rlim_max;
        assert_int_equal(mkdirat(dir, "deep", 0755), 0);
        auto_fd at = openat(dir, "deep", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        for (int i = 0; i < 3000; i++) {
                assert_int_equal(mkdirat(at, "down", 0755), 0);
                close(openat(at, "file", O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
                int next = openat(at, "down", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
                close(at);
                at = next;
        }
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
        int r = file_remove_tree(dir, "deep", &err);
        setrlimit(RLIMIT_NOFILE, &before);
        if (r < 0)
                fail_msg("%s", err_text(&err));
        assert_int_equal(faccessat(dir, "deep", F_OK, 0), -1);
}

static void whole_transfers_cross_a_pipe(void **state)
{
        (void)state;
        int ends[2];
        assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
        auto_fd reader = ends[0];
        auto_fd writer = ends[1];
        assert_int_equal(io_write_full(writer, "abc", 3), 0);
        assert_int_equal(io_write_full(writer, "def", 3), 0);
        close_fd(&writer);
        char bytes[16] = "";
        assert_int_equal(io_read_full(reader, bytes, sizeof(bytes)), 6);
        assert_memory_equal(bytes, "abcdef", 6);
        assert_int_equal(io_read_full(-1, bytes, 1), -EBADF);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(replacing_is_all_or_nothing, enter_directory,
                                                leave_directory),
                cmocka_unit_test_setup_teardown(reading_is_bounded, enter_directory,
                                                leave_directory),
                cmocka_unit_test_setup_teardown(trees_are_made_and_removed, enter_directory,
                                                leave_directory),
                cmocka_unit_test_setup_teardown(deep_trees_are_removed, enter_directory,
                                                leave_directory),
                cmocka_unit_test(whole_transfers_cross_a_pipe),
        };
        return cmocka_run_group_tests_name("base-file", tests, NULL, NULL);
}
