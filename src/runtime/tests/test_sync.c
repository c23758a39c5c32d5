#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "runtime/sync.h"

/* A pair whose far end has sent an error and is gone; with unread, it left a message
 * of ours unread, which the kernel tells by ECONNRESET instead of EPIPE. */
static int end_of_the_dead(bool unread)
{
        struct err err = { 0 };
        int fds[2];
        assert_int_equal(sync_pair(fds, &err), 0);
        if (unread)
                assert_int_equal(sync_send(fds[0], SYNC_CGROUP, &err), 0);
        struct err words = { 0 };
        (void)err_plain(&words, ENOENT, "rootfs nowhere: not there");
        assert_int_equal(sync_send_error(fds[1], &words), 0);
        close(fds[1]);
        return fds[0];
}

static void last_words_are_heard(void **state)
{
        (void)state;
        for (int unread = 0; unread < 2; unread++) {
                struct err err = { 0 };
                int fd = end_of_the_dead(unread);
                int r = sync_send(fd, SYNC_GO, &err);
                assert_int_equal(r, -EPIPE);
                assert_int_equal(sync_last_words(fd, r, &err), -ENOENT);
                assert_string_equal(err_text(&err), "rootfs nowhere: not there");
                close(fd);

                fd = end_of_the_dead(unread);
                assert_int_equal(sync_receive(fd, &err), -ENOENT);
                assert_int_equal(sync_receive(fd, &err), SYNC_END);
                close(fd);
        }
}

static void own_error_stays_without_better(void **state)
{
        (void)state;
        int fds[2];
        struct err err = { 0 };
        assert_int_equal(sync_pair(fds, &err), 0);
        close(fds[1]);
        int r = sync_send(fds[0], SYNC_GO, &err);
        assert_int_equal(sync_last_words(fds[0], r, &err), -EPIPE);
        assert_non_null(strstr(err_text(&err), "tell the container's process"));
        /* Other errors do not make it wait for words that may never come. */
        assert_int_equal(sync_last_words(fds[0], -EIO, &err), -EIO);
        close(fds[0]);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(last_words_are_heard),
                cmocka_unit_test(own_error_stays_without_better),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
