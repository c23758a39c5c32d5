#include <dirent.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/str.h"
#include "loop/workers.h"

#define DEADLINE_NS (20 * NS_PER_S)

static pthread_t loop_thread;

struct job_case {
        atomic_int *ran;
        int *done;
        char *scratch;
};

static void job_run(void *arg)
{
        struct job_case *c = arg;
        assert_false(pthread_equal(pthread_self(), loop_thread));
        sigset_t blocked;
        pthread_sigmask(SIG_BLOCK, NULL, &blocked);
        if (sigismember(&blocked, SIGTERM) != 1)
                abort();
        /* Written here, read in job_done without a lock: the hand-over orders it. */
        c->scratch = xasprintf("%d", atomic_fetch_add(c->ran, 1));
}

static void job_done(void *arg)
{
        struct job_case *c = arg;
        assert_true(pthread_equal(pthread_self(), loop_thread));
        assert_non_null(c->scratch);
        free(take_ptr(c->scratch));
        ++*c->done;
}

static void step_until(struct loop *loop, const int *counter, int wanted)
{
        int64_t deadline_ns = clock_monotonic_ns() + DEADLINE_NS;
        while (*counter < wanted && clock_monotonic_ns() < deadline_ns)
                loop_step(loop, 100 * NS_PER_MS);
        assert_int_equal(*counter, wanted);
}

static int thread_count(void)
{
        auto_dir dir = opendir("/proc/self/task");
        int count = 0;
        for (struct dirent *entry; (entry = readdir(dir));)
                count += entry->d_name[0] != '.';
        return count;
}

static int setup(void **state)
{
        loop_thread = pthread_self();
        return loop_create((struct loop **)state, NULL);
}

static int teardown(void **state)
{
        loop_destroy(*state);
        return 0;
}

#define JOBS 2000

static void every_job_runs_on_a_worker_and_is_done_on_the_loop(void **state)
{
        struct workers *workers;
        atomic_int ran = 0;
        int done = 0;
        assert_int_equal(workers_create(*state, 4, &workers, NULL), 0);
        struct job_case *cases = xcalloc(JOBS, sizeof(*cases));
        for (int i = 0; i < JOBS; i++) {
                cases[i] = (struct job_case){ .ran = &ran, .done = &done };
                workers_submit(workers, job_run, job_done, &cases[i]);
        }
        assert_true(thread_count() <= 1 + 4 + 1 /* a sanitizer's */);
        step_until(*state, &done, JOBS);
        assert_int_equal(atomic_load(&ran), JOBS);
        assert_int_equal(workers_pending(workers), 0);
        workers_destroy(workers);
        free(cases);
}

struct gate {
        pthread_mutex_t lock;
        pthread_cond_t changed;
        int waiting;
        bool open;
};

static void gate_pass(void *arg)
{
        struct gate *gate = arg;
        pthread_mutex_lock(&gate->lock);
        gate->waiting++;
        pthread_cond_broadcast(&gate->changed);
        while (!gate->open)
                pthread_cond_wait(&gate->changed, &gate->lock);
        pthread_mutex_unlock(&gate->lock);
}

/* Three jobs that each wait for the others can only end where they run together. */
static void jobs_submitted_in_a_burst_run_in_parallel(void **state)
{
        struct workers *workers;
        struct gate gate = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, false };
        assert_int_equal(workers_create(*state, 3, &workers, NULL), 0);
        for (int round = 0; round < 2; round++) { /* the second finds idle threads */
                gate.waiting = 0;
                gate.open = false;
                for (int i = 0; i < 3; i++)
                        workers_submit(workers, gate_pass, NULL, &gate);
                pthread_mutex_lock(&gate.lock);
                while (gate.waiting < 3)
                        pthread_cond_wait(&gate.changed, &gate.lock);
                gate.open = true;
                pthread_cond_broadcast(&gate.changed);
                pthread_mutex_unlock(&gate.lock);
                int64_t deadline_ns = clock_monotonic_ns() + DEADLINE_NS;
                while (workers_pending(workers) && clock_monotonic_ns() < deadline_ns)
                        loop_step(*state, 100 * NS_PER_MS);
                assert_int_equal(workers_pending(workers), 0);
        }
        workers_destroy(workers);
}

static void destruction_waits_and_calls_what_is_owed(void **state)
{
        struct workers *workers;
        atomic_int ran = 0;
        int done = 0;
        assert_int_equal(workers_create(*state, 2, &workers, NULL), 0);
        struct job_case cases[50];
        for (size_t i = 0; i < ELEMENTS(cases); i++) {
                cases[i] = (struct job_case){ .ran = &ran, .done = &done };
                workers_submit(workers, job_run, job_done, &cases[i]);
        }
        workers_destroy(workers);
        assert_int_equal(done, ELEMENTS(cases));
}

/* The number of threads when it has come down to `wanted`, or at the deadline. */
static int threads_settle(struct loop *loop, int wanted)
{
        int64_t deadline_ns = clock_monotonic_ns() + DEADLINE_NS;
        while (thread_count() > wanted && clock_monotonic_ns() < deadline_ns)
                loop_step(loop, 10 * NS_PER_MS);
        return thread_count();
}

static void idle_threads_end(void **state)
{
        struct workers *workers;
        atomic_int ran = 0;
        int done = 0;
        assert_int_equal(threads_settle(*state, 1), 1); /* joined ones may still be listed */
        assert_int_equal(workers_create(*state, 4, &workers, NULL), 0);
        assert_int_equal(thread_count(), 1);
        struct job_case c = { .ran = &ran, .done = &done };
        workers_submit(workers, job_run, job_done, &c);
        step_until(*state, &done, 1);
        assert_int_equal(threads_settle(*state, 1), 1);
        /* And come back when needed. */
        workers_submit(workers, job_run, job_done, &c);
        step_until(*state, &done, 2);
        workers_destroy(workers);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(every_job_runs_on_a_worker_and_is_done_on_the_loop),
                TEST(jobs_submitted_in_a_burst_run_in_parallel),
                TEST(destruction_waits_and_calls_what_is_owed),
                TEST(idle_threads_end),
        };
        return cmocka_run_group_tests_name("workers", tests, NULL, NULL);
}
