#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/str.h"
#include "loop/loop.h"

#define DEADLINE_NS (10 * NS_PER_S)

static int setup(void **state)
{
        struct err err = { 0 };
        struct loop *loop = NULL;
        if (loop_create(&loop, &err) < 0)
                return -1;
        *state = loop;
        return 0;
}

static int teardown(void **state)
{
        loop_destroy(*state);
        return 0;
}

/* Steps until *condition or the deadline. */
static void run_until(struct loop *loop, const int *counter, int wanted)
{
        int64_t deadline_ns = clock_monotonic_ns() + DEADLINE_NS;
        while (*counter < wanted && clock_monotonic_ns() < deadline_ns)
                loop_step(loop, 100 * NS_PER_MS);
        assert_int_equal(*counter, wanted);
}

static void count(void *arg)
{
        ++*(int *)arg;
}

struct pipe_case {
        int fds[2];
        int reads;
        struct loop_source *source;
        bool destroy_inside;
};

static void pipe_ready(void *arg, uint32_t events)
{
        struct pipe_case *c = arg;
        char byte;
        if (events & EPOLLIN)
                assert_int_equal(read(c->fds[0], &byte, 1), 1);
        c->reads++;
        if (c->destroy_inside)
                loop_source_destroy(take_ptr(c->source));
}

static void pipe_open(struct pipe_case *c, struct loop *loop, uint32_t events)
{
        struct err err = { 0 };
        assert_int_equal(pipe2(c->fds, O_CLOEXEC), 0);
        assert_int_equal(loop_io(loop, c->fds[0], events, pipe_ready, c, &c->source, &err), 0);
}

static void pipe_close(struct pipe_case *c)
{
        loop_source_destroy(c->source);
        close(c->fds[0]);
        close_fd(&c->fds[1]);
}

static void io_is_level_triggered_and_can_be_silenced(void **state)
{
        struct pipe_case c = { 0 };
        pipe_open(&c, *state, EPOLLIN);
        assert_int_equal(write(c.fds[1], "abc", 3), 3);
        run_until(*state, &c.reads, 2);

        loop_io_set(c.source, 0);
        while (loop_step(*state, 20 * NS_PER_MS))
                ;
        assert_int_equal(c.reads, 2);

        loop_io_set(c.source, EPOLLIN);
        run_until(*state, &c.reads, 3);
        pipe_close(&c);
}

static void source_may_be_destroyed_in_its_own_callback(void **state)
{
        struct pipe_case c = { .destroy_inside = true };
        pipe_open(&c, *state, EPOLLIN);
        assert_int_equal(write(c.fds[1], "abc", 3), 3);
        run_until(*state, &c.reads, 1);
        while (loop_step(*state, 20 * NS_PER_MS))
                ;
        assert_int_equal(c.reads, 1);
        pipe_close(&c);
}

static void hang_up_is_reported(void **state)
{
        struct pipe_case c = { .destroy_inside = true };
        pipe_open(&c, *state, EPOLLRDHUP);
        close_fd(&c.fds[1]);
        run_until(*state, &c.reads, 1);
        pipe_close(&c);
}

static void watching_a_closed_descriptor_is_an_error(void **state)
{
        struct err err = { 0 };
        struct loop_source *source = NULL;
        assert_int_equal(loop_io(*state, 987, EPOLLIN, pipe_ready, NULL, &source, &err), -EBADF);
        assert_null(source);
        assert_non_null(strstr(err_text(&err), "event loop"));
}

static void timer_fires_once_per_arming_and_not_early(void **state)
{
        struct err err = { 0 };
        struct loop_source *timer;
        int fired = 0;
        assert_int_equal(loop_timer(*state, count, &fired, &timer, &err), 0);
        assert_false(loop_step(*state, 5 * NS_PER_MS));

        int64_t start_ns = clock_monotonic_ns();
        loop_timer_arm(timer, 20 * NS_PER_MS);
        run_until(*state, &fired, 1);
        assert_true(clock_monotonic_ns() - start_ns >= 20 * NS_PER_MS);
        while (loop_step(*state, 30 * NS_PER_MS))
                ;
        assert_int_equal(fired, 1);

        loop_timer_arm(timer, 0);
        run_until(*state, &fired, 2);

        loop_timer_arm(timer, NS_PER_MS);
        loop_timer_disarm(timer);
        while (loop_step(*state, 20 * NS_PER_MS))
                ;
        assert_int_equal(fired, 2);
        loop_source_destroy(timer);
}

static void signal_arrived(void *arg, int signo)
{
        assert_int_equal(signo, SIGUSR1);
        count(arg);
}

static void signal_is_taken_by_the_loop(void **state)
{
        struct err err = { 0 };
        struct loop_source *source;
        int seen = 0;
        assert_int_equal(loop_signal(*state, SIGUSR1, signal_arrived, &seen, &source, &err), 0);
        kill(getpid(), SIGUSR1);
        run_until(*state, &seen, 1);
        loop_source_destroy(source);
}

static void pidfd_reports_the_end_of_a_process_once(void **state)
{
        struct err err = { 0 };
        struct loop_source *source;
        int exited = 0;
        pid_t pid = fork();
        if (pid == 0)
                _exit(7);
        auto_fd pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
        assert_true(pidfd >= 0);
        assert_int_equal(loop_pidfd(*state, pidfd, count, &exited, &source, &err), 0);
        run_until(*state, &exited, 1);
        while (loop_step(*state, 20 * NS_PER_MS))
                ;
        assert_int_equal(exited, 1);
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(WEXITSTATUS(status), 7);
        loop_source_destroy(source);
}

struct chain {
        struct loop *loop;
        char order[8];
        int length;
};

static void chain_b(void *arg)
{
        struct chain *chain = arg;
        chain->order[chain->length++] = 'b';
}

static void chain_a(void *arg)
{
        struct chain *chain = arg;
        chain->order[chain->length++] = 'a';
        loop_defer(chain->loop, chain_b, chain);
}

static void deferred_functions_run_later_in_order(void **state)
{
        struct chain chain = { .loop = *state };
        loop_defer(*state, chain_a, &chain);
        loop_defer(*state, chain_a, &chain);
        assert_int_equal(chain.length, 0);
        run_until(*state, &chain.length, 4);
        assert_string_equal(chain.order, "aabb");
}

#define POSTERS          4
#define POSTS_PER_POSTER 5000

struct poster {
        struct loop *loop;
        int *received;
};

static void *poster_main(void *arg)
{
        struct poster *poster = arg;
        for (int i = 0; i < POSTS_PER_POSTER; i++)
                loop_post(poster->loop, count, poster->received);
        return NULL;
}

static void posts_of_many_threads_all_arrive(void **state)
{
        int received = 0;
        struct poster poster = { *state, &received };
        pthread_t threads[POSTERS];
        for (int i = 0; i < POSTERS; i++)
                assert_int_equal(pthread_create(&threads[i], NULL, poster_main, &poster), 0);
        run_until(*state, &received, POSTERS * POSTS_PER_POSTER);
        for (int i = 0; i < POSTERS; i++)
                pthread_join(threads[i], NULL);
}

static void exit_now(void *arg)
{
        loop_exit(arg, 42);
}

static void run_returns_the_exit_code(void **state)
{
        loop_defer(*state, exit_now, *state);
        assert_int_equal(loop_run(*state), 42);
        loop_exit(*state, 3);
        assert_int_equal(loop_run(*state), 3);
}

static void functions_left_in_the_queue_are_dropped(void **state)
{
        int never = 0;
        struct loop *loop = *state;
        loop_post(loop, count, &never);
        loop_destroy(loop);
        *state = NULL;
        assert_int_equal(never, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(io_is_level_triggered_and_can_be_silenced),
                TEST(source_may_be_destroyed_in_its_own_callback),
                TEST(hang_up_is_reported),
                TEST(watching_a_closed_descriptor_is_an_error),
                TEST(timer_fires_once_per_arming_and_not_early),
                TEST(signal_is_taken_by_the_loop),
                TEST(pidfd_reports_the_end_of_a_process_once),
                TEST(deferred_functions_run_later_in_order),
                TEST(posts_of_many_threads_all_arrive),
                TEST(run_returns_the_exit_code),
                TEST(functions_left_in_the_queue_are_dropped),
        };
        return cmocka_run_group_tests_name("loop", tests, NULL, NULL);
}
