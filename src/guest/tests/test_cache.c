#include "guest/cache.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"
#include "base/tests/test.h"

#define DAY_S (24 * 3600)

static char top[64];
static int top_fd;

static int setup(void **state)
{
        (void)state;
        strcpy(top, "/tmp/isle-cache-XXXXXX");
        assert_non_null(mkdtemp(top));
        top_fd = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        return top_fd < 0 ? -1 : 0;
}

static int teardown(void **state)
{
        (void)state;
        close(top_fd);
        return file_remove_tree(AT_FDCWD, top, NULL);
}

static void put_used(const char *name, int days_ago)
{
        const struct timespec times[2] = { { .tv_sec = time(NULL) - days_ago * DAY_S },
                                           { .tv_nsec = UTIME_OMIT } };
        assert_int_equal(file_replace(top_fd, name, "x", 1, 0444, false, NULL), 0);
        assert_int_equal(utimensat(top_fd, name, times, 0), 0);
}

static bool is_there(const char *name)
{
        return faccessat(top_fd, name, F_OK, 0) == 0;
}

static void what_nobody_used_for_a_week_goes(void **state)
{
        (void)state;
        put_used("old.image", 8);
        put_used("old.other", 8);
        put_used("new.image", 6);
        put_used("used.image", 8);
        auto_fd used = cache_use(top_fd, "used.image");
        assert_true(used >= 0);
        cache_remove_unused(top, ".image");
        assert_false(is_there("old.image"));
        assert_true(is_there("old.other") && is_there("new.image") && is_there("used.image"));
        assert_int_equal(cache_use(top_fd, "old.image"), -1);
}

static void what_somebody_is_about_to_use_stays(void **state)
{
        (void)state;
        put_used("old.image", 8);
        auto_fd fd = openat(top_fd, "old.image", O_RDONLY | O_CLOEXEC);
        assert_int_equal(flock(fd, LOCK_SH), 0);
        cache_remove_unused(top, ".image");
        assert_true(is_there("old.image"));
        assert_int_equal(flock(fd, LOCK_UN), 0);
        cache_remove_unused(top, ".image");
        assert_false(is_there("old.image"));
}

static void links_are_not_followed(void **state)
{
        (void)state;
        put_used("old.other", 8);
        assert_int_equal(symlinkat("old.other", top_fd, "link.image"), 0);
        assert_int_equal(cache_use(top_fd, "link.image"), -1);
        cache_remove_unused(top, ".image");
        assert_true(is_there("old.other"));
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        const struct CMUnitTest tests[] = {
                T(what_nobody_used_for_a_week_goes),
                T(what_somebody_is_about_to_use_stays),
                T(links_are_not_followed),
        };
        return cmocka_run_group_tests_name("guest-cache", tests, NULL, NULL);
}
