#include "loop/workers.h"

#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <time.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/str.h"

#define IDLE_EXIT_NS     (5 * NS_PER_S)
#define STACK_SIZE_BYTES (1u << 20)

/* Theory of operation. Jobs wait in `queue`; a submit starts a thread where no
 * thread is idle and the limit allows. A thread that waited IDLE_EXIT_NS in vain
 * takes itself off the count and ends; threads are detached, and destruction
 * waits for the count to reach zero. Finished jobs go to `finished` and ring an
 * eventfd in the loop, whose callback calls their `done`. */

struct job {
        struct job *next;
        void (*run)(void *arg);
        void (*done)(void *arg);
        void *arg;
};

struct job_queue {
        struct job *first, *last;
        unsigned length;
};

struct workers {
        unsigned limit;
        int finished_fd; /* eventfd */
        struct loop_source *finished_source;

        pthread_mutex_t lock; /* guards all below */
        pthread_cond_t work;  /* a job was queued, or `stopping` */
        pthread_cond_t gone;  /* a thread ended */
        struct job_queue queue, finished;
        unsigned threads, idle, pending;
        bool stopping;
};

static void queue_push(struct job_queue *queue, struct job *job)
{
        job->next = NULL;
        if (queue->last)
                queue->last->next = job;
        else
                queue->first = job;
        queue->last = job;
        queue->length++;
}

static struct job *queue_pop(struct job_queue *queue)
{
        struct job *job = queue->first;
        if (job) {
                queue->first = job->next;
                queue->length--;
                if (!queue->first)
                        queue->last = NULL;
        }
        return job;
}

static void job_run(struct workers *workers, struct job *job)
{
        job->run(job->arg);
        pthread_mutex_lock(&workers->lock);
        queue_push(&workers->finished, job);
        uint64_t one = 1;
        while (write(workers->finished_fd, &one, sizeof(one)) < 0 && errno == EINTR)
                ;
}

/* Waits for a job with the lock held. NULL: end the thread. */
static struct job *worker_wait(struct workers *workers)
{
        int64_t deadline_ns = clock_monotonic_ns() + IDLE_EXIT_NS;
        struct timespec deadline = { .tv_sec = deadline_ns / NS_PER_S,
                                     .tv_nsec = deadline_ns % NS_PER_S };
        for (;;) {
                struct job *job = queue_pop(&workers->queue);
                if (job || workers->stopping)
                        return job;
                workers->idle++;
                int r = pthread_cond_timedwait(&workers->work, &workers->lock, &deadline);
                workers->idle--;
                if (r == ETIMEDOUT)
                        return queue_pop(&workers->queue);
        }
}

static void *worker_main(void *arg)
{
        struct workers *workers = arg;
        struct job *job;

        pthread_mutex_lock(&workers->lock);
        while ((job = worker_wait(workers))) {
                pthread_mutex_unlock(&workers->lock);
                job_run(workers, job); /* returns with the lock held */
        }
        bool last = workers->threads == 1 && !workers->stopping;
        if (last) {
                /* Megabytes of freed buffers would stay resident otherwise. */
                pthread_mutex_unlock(&workers->lock);
                malloc_trim(0);
                pthread_mutex_lock(&workers->lock);
        }
        /* A job may have come during the trim, and counted on this thread. */
        while ((job = queue_pop(&workers->queue))) {
                pthread_mutex_unlock(&workers->lock);
                job_run(workers, job);
        }
        workers->threads--;
        pthread_cond_signal(&workers->gone);
        pthread_mutex_unlock(&workers->lock);
        return NULL;
}

/* Called with the lock held. */
static int worker_start(struct workers *workers)
{
        pthread_attr_t attr;
        pthread_attr_init(&attr);
        pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
        pthread_attr_setstacksize(&attr, STACK_SIZE_BYTES);
        sigset_t all;
        sigfillset(&all);
        pthread_attr_setsigmask_np(&attr, &all);
        pthread_t thread;
        int r = pthread_create(&thread, &attr, worker_main, workers);
        pthread_attr_destroy(&attr);
        if (r == 0)
                workers->threads++;
        return -r;
}

static void workers_deliver(void *arg, uint32_t events __attribute__((unused)))
{
        struct workers *workers = arg;
        uint64_t count;
        if (read(workers->finished_fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
                return;
        pthread_mutex_lock(&workers->lock);
        struct job_queue finished = workers->finished;
        workers->finished = (struct job_queue){ 0 };
        pthread_mutex_unlock(&workers->lock);

        struct job *job;
        while ((job = queue_pop(&finished))) {
                pthread_mutex_lock(&workers->lock);
                workers->pending--;
                pthread_mutex_unlock(&workers->lock);
                void (*done)(void *arg) = job->done;
                void *done_arg = job->arg;
                free(job);
                if (done)
                        done(done_arg);
        }
}

int workers_create(struct loop *loop, unsigned threads, struct workers **ret, struct err *err)
{
        auto_fd fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (fd < 0)
                return err_set(err, errno, "create the workers' wake-up descriptor");
        struct workers *workers = new0(struct workers);
        workers->limit = threads > 0 ? threads : 1;
        int r = loop_io(loop, fd, EPOLLIN, workers_deliver, workers, &workers->finished_source,
                        err);
        if (r < 0) {
                free(workers);
                return r;
        }
        workers->finished_fd = take_fd(fd);
        pthread_mutex_init(&workers->lock, NULL);
        pthread_condattr_t attr;
        pthread_condattr_init(&attr);
        pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
        pthread_cond_init(&workers->work, &attr);
        pthread_cond_init(&workers->gone, &attr);
        pthread_condattr_destroy(&attr);
        *ret = workers;
        return 0;
}

void workers_destroy(struct workers *workers)
{
        if (!workers)
                return;
        pthread_mutex_lock(&workers->lock);
        workers->stopping = true;
        pthread_cond_broadcast(&workers->work);
        while (workers->threads > 0)
                pthread_cond_wait(&workers->gone, &workers->lock);
        pthread_mutex_unlock(&workers->lock);

        workers_deliver(workers, 0);
        loop_source_destroy(workers->finished_source);
        close_fd(&workers->finished_fd);
        pthread_cond_destroy(&workers->work);
        pthread_cond_destroy(&workers->gone);
        pthread_mutex_destroy(&workers->lock);
        free(workers);
}

void workers_submit(struct workers *workers, void (*run)(void *arg), void (*done)(void *arg),
                    void *arg)
{
        struct job *job = new0(struct job);
        job->run = run;
        job->done = done;
        job->arg = arg;

        pthread_mutex_lock(&workers->lock);
        workers->pending++;
        queue_push(&workers->queue, job);
        bool starved = false;
        /* A signalled thread counts as idle until it runs, hence the comparison. */
        if (workers->idle >= workers->queue.length)
                pthread_cond_signal(&workers->work);
        else if (workers->threads < workers->limit)
                starved = worker_start(workers) < 0 && workers->threads == 0;
        struct job *here = starved ? queue_pop(&workers->queue) : NULL;
        pthread_mutex_unlock(&workers->lock);

        /* No thread to be had at all: late is better than never. */
        if (here) {
                job_run(workers, here);
                pthread_mutex_unlock(&workers->lock);
        }
}

unsigned workers_pending(struct workers *workers)
{
        pthread_mutex_lock(&workers->lock);
        unsigned pending = workers->pending;
        pthread_mutex_unlock(&workers->lock);
        return pending;
}
