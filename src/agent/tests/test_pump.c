#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/pump.h"

#define PIPE_BYTES 65536

static void make_pipe(int fds[2])
{
        assert_int_equal(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
}

/* As the loops do; false when nothing can be done now. */
static bool turn(struct pump *pump)
{
        struct pollfd entries[PUMP_ENTRIES];
        pump_watch(pump, entries);
        if (poll(entries, PUMP_ENTRIES, 0) <= 0)
                return false;
        pump_work(pump, entries);
        return true;
}

static void bytes_and_the_end_pass(void **state)
{
        (void)state;
        int in[2], out[2];
        char bytes[16];
        make_pipe(in);
        make_pipe(out);
        struct pump pump = { .from = in[0], .to = out[1] };
        assert_int_equal(write(in[1], "hello", 5), 5);
        while (turn(&pump))
                ;
        assert_int_equal(read(out[0], bytes, sizeof(bytes)), 5);
        assert_false(pump_done(&pump));
        close(in[1]);
        while (!pump_done(&pump))
                assert_true(turn(&pump));
        assert_int_equal(read(out[0], bytes, sizeof(bytes)), 0);
        close(out[0]);
}

/* What the reader does not take is held, and the writer waits; nothing is lost. */
static void a_slow_reader_loses_nothing(void **state)
{
        (void)state;
        int in[2], out[2];
        make_pipe(in);
        make_pipe(out);
        struct pump pump = { .from = in[0], .to = out[1] };
        size_t written = 0, read_back = 0;
        unsigned char bytes[4096];
        for (bool stuck = false; !stuck;) {
                for (size_t i = 0; i < sizeof(bytes); i++)
                        bytes[i] = (unsigned char)((written + i) % 251);
                ssize_t n = write(in[1], bytes, sizeof(bytes));
                written += n > 0 ? (size_t)n : 0;
                stuck = n < 0 && !turn(&pump);
                (void)turn(&pump);
        }
        assert_true(written >= 2 * PIPE_BYTES);
        close(in[1]);
        while (!pump_done(&pump) || read_back < written) {
                (void)turn(&pump);
                ssize_t n = read(out[0], bytes, sizeof(bytes));
                for (ssize_t i = 0; i < n; i++)
                        assert_int_equal(bytes[i], (read_back + (size_t)i) % 251);
                read_back += n > 0 ? (size_t)n : 0;
        }
        assert_int_equal(read_back, written);
        close(out[0]);
}

static void a_reader_that_goes_ends_it(void **state)
{
        (void)state;
        int in[2], out[2];
        make_pipe(in);
        make_pipe(out);
        struct pump pump = { .from = in[0], .to = out[1] };
        close(out[0]);
        while (!pump_done(&pump))
                assert_true(turn(&pump));
        assert_int_equal(write(in[1], "x", 1), -1);
        assert_int_equal(errno, EPIPE);
        close(in[1]);
}

/* A socket used both ways: one end of it closes, the other direction goes on. */
static void half_of_a_socket_closes(void **state)
{
        (void)state;
        int in[2], pair[2];
        char bytes[8];
        make_pipe(in);
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        struct pump pump = { .from = in[0], .to = pair[0], .keeps_to = true };
        close(in[1]);
        while (!pump_done(&pump))
                assert_true(turn(&pump));
        assert_int_equal(read(pair[1], bytes, sizeof(bytes)), 0);
        assert_int_equal(write(pair[1], "back", 4), 4);
        assert_int_equal(read(pair[0], bytes, sizeof(bytes)), 4);
        close(pair[0]);
        close(pair[1]);
}

/* The other direction: what comes from a socket that its other user closes. */
static void a_socket_is_left_to_its_other_user(void **state)
{
        (void)state;
        int pair[2], out[2];
        char bytes[8];
        make_pipe(out);
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        struct pump pump = { .from = pair[0], .to = out[1], .keeps_from = true };
        assert_int_equal(write(pair[1], "hello", 5), 5);
        while (turn(&pump))
                ;
        assert_int_equal(read(out[0], bytes, sizeof(bytes)), 5);
        assert_int_equal(shutdown(pair[1], SHUT_WR), 0);
        while (!pump_done(&pump))
                assert_true(turn(&pump));
        assert_int_equal(read(out[0], bytes, sizeof(bytes)), 0);
        assert_int_equal(write(pair[0], "back", 4), 4);
        assert_int_equal(read(pair[1], bytes, sizeof(bytes)), 4);
        close(pair[0]);
        close(pair[1]);
        close(out[0]);
}

/* A pipe that blocks and is others', too: no write waits for its reader, none is in vain, and it
 * stays open and as it was. */
static void a_careful_one_does_not_wait(void **state)
{
        (void)state;
        int in[2], out[2];
        char bytes[4096] = { 0 };
        size_t written = 0, read_back = 0;
        make_pipe(in);
        assert_int_equal(pipe2(out, O_CLOEXEC), 0);
        struct pump pump = { .from = in[0], .to = out[1], .keeps_to = true, .careful = true };
        for (bool stuck = false; !stuck;) {
                ssize_t n = write(in[1], bytes, sizeof(bytes));
                written += n > 0 ? (size_t)n : 0;
                stuck = n < 0 && !turn(&pump);
                (void)turn(&pump);
        }
        assert_true(written >= 2 * PIPE_BYTES);
        close(in[1]);
        assert_int_equal(fcntl(out[0], F_SETFL, O_NONBLOCK), 0);
        while (!pump_done(&pump) || read_back < written) {
                (void)turn(&pump);
                ssize_t n = read(out[0], bytes, sizeof(bytes));
                read_back += n > 0 ? (size_t)n : 0;
        }
        assert_int_equal(read_back, written);
        assert_false(fcntl(out[1], F_GETFL) & O_NONBLOCK);
        assert_int_equal(write(out[1], "x", 1), 1);
        close(out[0]);
        close(out[1]);
}

/* Somebody else still holds the writing end: what is there is taken, and no more waited for. */
static void draining_does_not_wait(void **state)
{
        (void)state;
        int in[2], out[2];
        char bytes[16];
        make_pipe(in);
        make_pipe(out);
        struct pump pump = { .from = in[0], .to = out[1] };
        assert_int_equal(write(in[1], "last", 4), 4);
        pump_drain(&pump);
        while (!pump_done(&pump))
                assert_true(turn(&pump));
        assert_int_equal(read(out[0], bytes, sizeof(bytes)), 4);
        assert_int_equal(read(out[0], bytes, sizeof(bytes)), 0);
        close(in[1]);
        close(out[0]);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(bytes_and_the_end_pass),
                cmocka_unit_test(a_slow_reader_loses_nothing),
                cmocka_unit_test(a_reader_that_goes_ends_it),
                cmocka_unit_test(half_of_a_socket_closes),
                cmocka_unit_test(a_socket_is_left_to_its_other_user),
                cmocka_unit_test(a_careful_one_does_not_wait),
                cmocka_unit_test(draining_does_not_wait),
        };
        (void)signal(SIGPIPE, SIG_IGN);
        return cmocka_run_group_tests_name("agent-pump", tests, NULL, NULL);
}
