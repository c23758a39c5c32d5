/* What has the two clocks compared. Nobody sets the host's clock here: the kernel says what it was
 * asked for, and an eventfd is readable as a timer is. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/auto.h"
#include "base/file.h"
#include "guest/clock.h"

static char directory[] = "/tmp/isle-test-clock-XXXXXX";

static int open_watch(struct clock_watch *watch)
{
        struct err err = { 0 };
        int fd = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
        assert_int_equal(clock_watch_open(watch, fd, &err), 0);
        return fd;
}

static bool is_due(struct clock_watch *watch)
{
        struct pollfd entries[CLOCK_ENTRIES];
        clock_watch_poll(watch, entries);
        return poll(entries, CLOCK_ENTRIES, 0) > 0 && clock_watch_due(watch, entries);
}

/* proc(5), fdinfo of a timerfd: the real time, absolute (1), cancelled when it is set (2). */
static void the_timer_is_cancelled_when_the_clock_is_set(void **state)
{
        (void)state;
        char path[64];
        auto_free char *text = NULL;
        struct clock_watch watch;
        auto_fd fd = open_watch(&watch);
        assert_true(fd >= 0);
        snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", watch.timer_fd);
        assert_int_equal(file_read(AT_FDCWD, path, 4096, &text, NULL, NULL), 0);
        assert_non_null(strstr(text, "clockid: 0\n"));
        assert_non_null(strstr(text, "settime flags: 03\n"));
        assert_false(is_due(&watch));
        clock_watch_close(&watch);
        assert_int_equal(watch.timer_fd, -1);
}

static void an_expiry_is_seen_once(void **state)
{
        (void)state;
        struct clock_watch watch;
        auto_fd fd = open_watch(&watch);
        assert_true(fd >= 0);
        close(watch.timer_fd);
        watch.timer_fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
        assert_true(is_due(&watch));
        assert_false(is_due(&watch));
        clock_watch_close(&watch);
}

static void only_the_verb_is_a_resumption(void **state)
{
        (void)state;
        struct clock_watch watch;
        auto_fd fd = open_watch(&watch);
        assert_int_equal(file_replace(fd, "other", "", 0, 0600, false, NULL), 0);
        assert_false(is_due(&watch));
        assert_int_equal(file_replace(fd, CLOCK_RESUMED, "", 0, 0600, false, NULL), 0);
        assert_true(is_due(&watch));
        assert_false(is_due(&watch));
        clock_watch_close(&watch);
}

static int make_directory(void **state)
{
        (void)state;
        return mkdtemp(directory) ? 0 : -1;
}

static int remove_directory(void **state)
{
        (void)state;
        return file_remove_tree(AT_FDCWD, directory, NULL);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(the_timer_is_cancelled_when_the_clock_is_set),
                cmocka_unit_test(an_expiry_is_seen_once),
                cmocka_unit_test(only_the_verb_is_a_resumption),
        };
        return cmocka_run_group_tests_name("guest-clock", tests, make_directory, remove_directory);
}
