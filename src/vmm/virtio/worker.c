#include "vmm/virtio/worker.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/str.h"

struct worker {
        worker_fn *work;
        void *arg;
        int kick_fd, fd;
        char name[16];
        enum jail_thread kind;
        pthread_t thread;
        bool exists;
        bool spare;                /* made ahead; without work where `work` is NULL */
        bool watch;                /* the thread's */
        void (*errand)(void *arg); /* the turns' lock */
        void *errand_arg;

        pthread_mutex_t lock; /* of what follows */
        pthread_cond_t idle;
        bool busy;
        atomic_bool started, ending; /* also looked at by who waits for its turn */
};

/* Who works, and whether anybody may begin to. Innermost. */
static struct {
        pthread_mutex_t lock;
        pthread_cond_t changed; /* also: an errand came, or is done; a worker is stopped */
        unsigned working;
        bool held;
} turns = { .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };

bool workers_hold(void)
{
        pthread_mutex_lock(&turns.lock);
        bool free_now = !turns.held && !turns.working;
        if (free_now)
                turns.held = true;
        pthread_mutex_unlock(&turns.lock);
        return free_now;
}

void workers_quiesce(void)
{
        pthread_mutex_lock(&turns.lock);
        while (turns.held)
                pthread_cond_wait(&turns.changed, &turns.lock);
        turns.held = true;
        while (turns.working)
                pthread_cond_wait(&turns.changed, &turns.lock);
        pthread_mutex_unlock(&turns.lock);
}

void workers_release(void)
{
        pthread_mutex_lock(&turns.lock);
        turns.held = false;
        pthread_cond_broadcast(&turns.changed);
        pthread_mutex_unlock(&turns.lock);
}

/* The turns' lock is held. */
static void run_errand(struct worker *w)
{
        if (!w->errand)
                return;
        pthread_mutex_unlock(&turns.lock);
        w->errand(w->errand_arg);
        pthread_mutex_lock(&turns.lock);
        w->errand = NULL;
        pthread_cond_broadcast(&turns.changed);
}

static void look_for_errand(struct worker *w)
{
        pthread_mutex_lock(&turns.lock);
        run_errand(w);
        pthread_mutex_unlock(&turns.lock);
}

static bool wanted(struct worker *w)
{
        return atomic_load(&w->started) && !atomic_load(&w->ending);
}

/* It need not wait any more. */
static void wake_waiting(void)
{
        pthread_mutex_lock(&turns.lock);
        pthread_cond_broadcast(&turns.changed);
        pthread_mutex_unlock(&turns.lock);
}

static int64_t take_turn(struct worker *w)
{
        pthread_mutex_lock(&turns.lock);
        while (turns.held && wanted(w)) {
                if (w->errand)
                        run_errand(w);
                else
                        pthread_cond_wait(&turns.changed, &turns.lock);
        }
        bool works = wanted(w);
        turns.working += works;
        pthread_mutex_unlock(&turns.lock);
        if (!works)
                return WORKER_IDLE;
        int64_t due_ns = w->work(w->arg);
        pthread_mutex_lock(&turns.lock);
        if (--turns.working == 0 && turns.held)
                pthread_cond_broadcast(&turns.changed);
        pthread_mutex_unlock(&turns.lock);
        return due_ns;
}

static void sleep_until(struct worker *w, int64_t due_ns, bool watch)
{
        struct pollfd fds[2] = { { w->kick_fd, POLLIN, 0 }, { watch ? w->fd : -1, POLLIN, 0 } };
        struct timespec left = { 0 };
        if (due_ns >= 0) {
                int64_t ns = due_ns - clock_monotonic_ns();
                if (ns > 0)
                        left = (struct timespec){ ns / NS_PER_S, ns % NS_PER_S };
        }
        /* EINTR cannot be: every signal is blocked here. */
        if (ppoll(fds, 2, due_ns < 0 ? NULL : &left, NULL) > 0 && fds[0].revents) {
                uint64_t kicks;
                (void)!read(w->kick_fd, &kicks, sizeof(kicks));
        }
}

static void *worker_thread(void *arg)
{
        struct worker *w = arg;
        int64_t due_ns = WORKER_IDLE;
        bool started = false;
        (void)pthread_setname_np(pthread_self(), w->name);
        jail_thread(w->kind);
        for (;;) {
                sleep_until(w, started ? due_ns : WORKER_IDLE, started && w->watch);
                look_for_errand(w);
                pthread_mutex_lock(&w->lock);
                bool ending = atomic_load(&w->ending);
                started = w->busy = wanted(w);
                pthread_mutex_unlock(&w->lock);
                if (ending)
                        return NULL;
                due_ns = started ? take_turn(w) : WORKER_IDLE;
                pthread_mutex_lock(&w->lock);
                w->busy = false;
                started = atomic_load(&w->started);
                pthread_cond_broadcast(&w->idle);
                pthread_mutex_unlock(&w->lock);
        }
}

int worker_create(const char *name, enum jail_thread kind, worker_fn *work, void *arg, int fd,
                  struct worker **ret, struct err *err)
{
        struct worker *w = new0(struct worker);
        w->kind = kind;
        w->work = work;
        w->arg = arg;
        w->fd = fd;
        memcpy(w->name, name, strnlen(name, sizeof(w->name) - 1));
        pthread_mutex_init(&w->lock, NULL);
        pthread_cond_init(&w->idle, NULL);
        w->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        int e = w->kick_fd < 0 ? errno : 0;
        if (!e) {
                sigset_t all, old;
                sigfillset(&all);
                pthread_sigmask(SIG_BLOCK, &all, &old);
                e = pthread_create(&w->thread, NULL, worker_thread, w);
                pthread_sigmask(SIG_SETMASK, &old, NULL);
        }
        if (e) {
                worker_destroy(w);
                return err_set(err, e, "thread '%s'", name);
        }
        w->exists = true;
        *ret = w;
        return 0;
}

int worker_create_spare(const char *name, enum jail_thread kind, struct worker **ret,
                        struct err *err)
{
        int r = worker_create(name, kind, NULL, NULL, -1, ret, err);
        if (r == 0)
                (*ret)->spare = true;
        return r;
}

int worker_use(struct worker *spare, const char *name, enum jail_thread kind, worker_fn *work,
               void *arg, int fd, struct worker **ret, struct err *err)
{
        if (!spare)
                return worker_create(name, kind, work, arg, fd, ret, err);
        pthread_mutex_lock(&spare->lock); /* it sleeps, and reads them when it is started */
        spare->work = work;
        spare->arg = arg;
        spare->fd = fd;
        pthread_mutex_unlock(&spare->lock);
        *ret = spare;
        return 0;
}

/* It sleeps again, and does not hold the descriptor. */
static void give_back(struct worker *w)
{
        worker_stop(w);
        pthread_mutex_lock(&w->lock);
        w->work = NULL;
        w->watch = false;
        w->fd = -1;
        pthread_mutex_unlock(&w->lock);
        worker_kick(w);
}

void worker_destroy(struct worker *w)
{
        if (!w)
                return;
        if (w->spare && w->work) {
                give_back(w);
                return;
        }
        if (w->exists) {
                atomic_store(&w->ending, true);
                wake_waiting();
                worker_kick(w);
                pthread_join(w->thread, NULL);
        }
        close_fd(&w->kick_fd);
        pthread_cond_destroy(&w->idle);
        pthread_mutex_destroy(&w->lock);
        free(w);
}

void worker_start(struct worker *w)
{
        atomic_store(&w->started, true);
        worker_kick(w);
}

void worker_stop(struct worker *w)
{
        atomic_store(&w->started, false);
        wake_waiting();
        pthread_mutex_lock(&w->lock);
        while (w->busy)
                pthread_cond_wait(&w->idle, &w->lock);
        pthread_mutex_unlock(&w->lock);
}

void worker_kick(struct worker *w)
{
        const uint64_t one = 1;
        (void)!write(w->kick_fd, &one, sizeof(one));
}

void worker_call(struct worker *w, void (*errand)(void *arg), void *arg)
{
        pthread_mutex_lock(&turns.lock);
        w->errand_arg = arg;
        w->errand = errand;
        pthread_cond_broadcast(&turns.changed);
        pthread_mutex_unlock(&turns.lock);
        worker_kick(w);
        pthread_mutex_lock(&turns.lock);
        while (w->errand)
                pthread_cond_wait(&turns.changed, &turns.lock);
        pthread_mutex_unlock(&turns.lock);
}

void worker_watch(struct worker *w, bool watch)
{
        w->watch = watch;
}
