#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "vmm/virtio/worker.h"

struct probe {
        struct worker *worker;
        pthread_mutex_t lock;
        pthread_cond_t changed;
        unsigned calls;
        int64_t due_ns;
        bool watch;
        int fd;
        bool held; /* work() does not return while it is */
        bool quiet;
        unsigned quiet_calls; /* when it was quiet */
        char errand_thread[16];
};

static int64_t work(void *arg)
{
        struct probe *p = arg;
        char byte;
        pthread_mutex_lock(&p->lock);
        p->calls++;
        pthread_cond_broadcast(&p->changed);
        while (p->held)
                pthread_cond_wait(&p->changed, &p->lock);
        worker_watch(p->worker, p->watch);
        int64_t due = p->due_ns;
        p->due_ns = WORKER_IDLE;
        pthread_mutex_unlock(&p->lock);
        if (p->fd >= 0 && p->calls > 1)
                (void)!read(p->fd, &byte, 1);
        return due;
}

static void wait_calls(struct probe *p, unsigned calls)
{
        pthread_mutex_lock(&p->lock);
        while (p->calls < calls)
                pthread_cond_wait(&p->changed, &p->lock);
        pthread_mutex_unlock(&p->lock);
}

static void setup(struct probe *p, int fd)
{
        struct err err = { 0 };
        *p = (struct probe){ .due_ns = WORKER_IDLE, .fd = fd };
        pthread_mutex_init(&p->lock, NULL);
        pthread_cond_init(&p->changed, NULL);
        assert_int_equal(
                worker_create("a worker of a long name", JAIL_DISK, work, p, fd, &p->worker, &err),
                0);
}

static void kicks_count_between_start_and_stop(void **state)
{
        (void)state;
        struct probe p;
        setup(&p, -1);
        worker_kick(p.worker);
        worker_start(p.worker);
        wait_calls(&p, 1);
        unsigned before = p.calls;
        worker_kick(p.worker);
        wait_calls(&p, before + 1);
        worker_stop(p.worker);
        unsigned stopped = p.calls;
        worker_kick(p.worker);
        worker_start(p.worker);
        wait_calls(&p, stopped + 1);
        worker_destroy(p.worker);
}

static void comes_again_when_due_and_for_input(void **state)
{
        (void)state;
        struct probe p;
        int ends[2];
        assert_int_equal(pipe(ends), 0);
        setup(&p, ends[0]);
        p.due_ns = clock_monotonic_ns() + NS_PER_MS;
        p.watch = true;
        worker_start(p.worker);
        assert_int_equal(write(ends[1], "abc", 3), 3);
        wait_calls(&p, 4);
        worker_destroy(p.worker);
        close(ends[0]);
        close(ends[1]);
}

static void *stopper(void *arg)
{
        struct probe *p = arg;
        worker_stop(p->worker);
        pthread_mutex_lock(&p->lock);
        p->calls = 100;
        pthread_cond_broadcast(&p->changed);
        pthread_mutex_unlock(&p->lock);
        return NULL;
}

static void stop_waits_for_the_work(void **state)
{
        (void)state;
        struct probe p;
        pthread_t thread;
        setup(&p, -1);
        p.held = true;
        worker_start(p.worker);
        wait_calls(&p, 1);
        assert_int_equal(pthread_create(&thread, NULL, stopper, &p), 0);
        for (unsigned i = 0; i < 1000; i++) {
                pthread_mutex_lock(&p.lock);
                assert_int_not_equal(p.calls, 100);
                pthread_mutex_unlock(&p.lock);
        }
        pthread_mutex_lock(&p.lock);
        p.held = false;
        pthread_cond_broadcast(&p.changed);
        pthread_mutex_unlock(&p.lock);
        pthread_join(thread, NULL);
        assert_int_equal(p.calls, 100);
        worker_destroy(p.worker);
}

static void *quiescer(void *arg)
{
        struct probe *p = arg;
        workers_quiesce();
        pthread_mutex_lock(&p->lock);
        p->quiet_calls = p->calls;
        p->quiet = true;
        pthread_cond_broadcast(&p->changed);
        pthread_mutex_unlock(&p->lock);
        return NULL;
}

static void quiesced_workers_have_ended_their_work_and_begin_none(void **state)
{
        (void)state;
        struct probe p;
        pthread_t thread;
        setup(&p, -1);
        p.held = true;
        worker_start(p.worker);
        wait_calls(&p, 1);
        assert_false(workers_hold());
        assert_int_equal(pthread_create(&thread, NULL, quiescer, &p), 0);
        for (unsigned i = 0; i < 1000; i++) {
                pthread_mutex_lock(&p.lock);
                assert_false(p.quiet);
                pthread_mutex_unlock(&p.lock);
        }
        pthread_mutex_lock(&p.lock);
        p.held = false;
        pthread_cond_broadcast(&p.changed);
        pthread_mutex_unlock(&p.lock);
        pthread_join(thread, NULL);
        worker_kick(p.worker);
        assert_false(workers_hold());
        assert_int_equal(p.calls, p.quiet_calls);
        workers_release();
        wait_calls(&p, p.quiet_calls + 1);
        worker_destroy(p.worker);
}

static void held_workers_can_be_stopped_and_destroyed(void **state)
{
        (void)state;
        struct probe p;
        setup(&p, -1);
        for (unsigned i = 0; i < 100; i++) {
                workers_quiesce();
                worker_start(p.worker); /* it sleeps still, or waits for its turn */
                if (i % 2)
                        sched_yield();
                worker_stop(p.worker);
                workers_release();
        }
        assert_int_equal(p.calls, 0);
        workers_quiesce();
        worker_start(p.worker);
        worker_destroy(p.worker);
        workers_release();
        assert_int_equal(p.calls, 0);
}

static void errand(void *arg)
{
        struct probe *p = arg;
        pthread_getname_np(pthread_self(), p->errand_thread, sizeof(p->errand_thread));
}

static void errands_are_run_on_the_workers_thread_even_while_it_is_held(void **state)
{
        (void)state;
        struct probe p;
        setup(&p, -1);
        worker_call(p.worker, errand, &p); /* not started */
        assert_string_equal(p.errand_thread, "a worker of a l");
        workers_quiesce();
        worker_start(p.worker);
        for (unsigned i = 0; i < 100; i++) { /* it sleeps, or waits for its turn */
                p.errand_thread[0] = '\0';
                worker_call(p.worker, errand, &p);
                assert_string_equal(p.errand_thread, "a worker of a l");
        }
        assert_int_equal(p.calls, 0);
        workers_release();
        wait_calls(&p, 1);
        worker_destroy(p.worker);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(kicks_count_between_start_and_stop),
                cmocka_unit_test(comes_again_when_due_and_for_input),
                cmocka_unit_test(stop_waits_for_the_work),
                cmocka_unit_test(quiesced_workers_have_ended_their_work_and_begin_none),
                cmocka_unit_test(held_workers_can_be_stopped_and_destroyed),
                cmocka_unit_test(errands_are_run_on_the_workers_thread_even_while_it_is_held),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
