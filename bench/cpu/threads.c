/* Two threads, for a guest with two processors. */
#include "measure.h"

#include <pthread.h>
#include <stdatomic.h>

struct job {
        void (*part)(uint64_t ops);
        uint64_t ops;
};

static void *run_job(void *arg)
{
        const struct job *job = arg;
        job->part(job->ops);
        return NULL;
}

static void in_two(void (*part)(uint64_t), uint64_t ops)
{
        pthread_t threads[2];
        struct job job = { part, ops / 2 };
        for (unsigned i = 0; i < 2; i++)
                pthread_create(&threads[i], NULL, run_job, &job);
        for (unsigned i = 0; i < 2; i++)
                pthread_join(threads[i], NULL);
}

static void compute_part(uint64_t ops)
{
        uint64_t seed = 77, sum = 0;
        while (ops--)
                sum += next_random(&seed) * 3;
        sink = sum;
}

static _Atomic uint64_t counter;

static void atomic_part(uint64_t ops)
{
        while (ops--)
                atomic_fetch_add(&counter, 1);
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static volatile uint64_t guarded;

static void mutex_part(uint64_t ops)
{
        while (ops--) {
                pthread_mutex_lock(&lock);
                guarded++;
                pthread_mutex_unlock(&lock);
        }
}

static void compute_one(uint64_t ops)
{
        compute_part(ops);
}

static void compute_two(uint64_t ops)
{
        in_two(compute_part, ops);
}

static void atomics(uint64_t ops)
{
        in_two(atomic_part, ops);
}

static void mutex(uint64_t ops)
{
        in_two(mutex_part, ops);
}

static const struct work works[] = {
        { "threads", "compute-one", 8000000, compute_one },
        { "threads", "compute-two", 8000000, compute_two },
        { "threads", "atomics", 1000000, atomics },
        { "threads", "mutex", 300000, mutex },
};

int main(int argc, char **argv)
{
        return MEASURE(works, argc, argv);
}
