#include "vmm/virtio/balloon.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_balloon.h>
#include <string.h>

#include "base/auto.h"
#include "base/str.h"
#include "vmm/snapshot/state.h"
#include "vmm/virtio/device.h"
#include "vmm/virtio/worker.h"

#define QUEUE_SIZE 128
#define PAGE       (1ull << VIRTIO_BALLOON_PFN_SHIFT)
#define PFNS       256 /* looked at at a time */
#define BIT(f)     (1ull << (f))

enum { INFLATE, DEFLATE, FURTHER, QUEUES = 4 };

struct balloon {
        struct virtio_device virtio;
        struct worker *worker;
        struct virtq_chain chain;
        atomic_uint_fast64_t reported_bytes;
        atomic_bool stats_wanted;

        pthread_mutex_t lock; /* of what follows */
        uint64_t stats[BALLOON_STATS];
        bool has_stats;

        /* The worker's: the buffer that the guest wants back filled with the next wish. */
        struct virtq_chain stats_chain;
        bool has_stats_chain;
};

/* Queues behind the first two are numbered in this order, without what is not
 * negotiated. -1: there is none. */
static int stats_queue(const struct balloon *b)
{
        return b->virtio.acked & BIT(VIRTIO_BALLOON_F_STATS_VQ) ? FURTHER : -1;
}

static int reporting_queue(const struct balloon *b)
{
        if (!(b->virtio.acked & BIT(VIRTIO_BALLOON_F_REPORTING)))
                return -1;
        return stats_queue(b) < 0 ? FURTHER : FURTHER + 1;
}

/* ---- giving back ---- */

/* Whole pages inside [base, base + size): the host forgets them. False where that is no
 * memory. */
static bool forget(struct balloon *b, uint64_t base, uint64_t size)
{
        const struct memory *memory = &b->virtio.machine->memory;
        uint8_t *host = memory_at(memory, gpa(base), size);
        if (!host)
                return false;
        uint64_t offset = (uint64_t)(host - memory->map);
        uint64_t first = (offset + PAGE - 1) / PAGE * PAGE, end = (offset + size) / PAGE * PAGE;
        if (first >= end)
                return true;
        memory_forget(memory, first, end - first);
        memory_touched(memory, gpa(base + (first - offset)), end - first);
        return true;
}

/* The pages that a chain names, neighbours together. */
static bool inflate(struct balloon *b)
{
        const struct virtq_chain *c = &b->chain;
        uint32_t pfns[PFNS];
        uint64_t base = 0, size = 0;
        for (size_t at = 0, n; (n = virtq_read(c, at, pfns, sizeof(pfns)) / 4); at += 4 * n) {
                for (size_t i = 0; i < n; i++) {
                        uint64_t page = pfns[i] * PAGE;
                        if (size && page == base + size) {
                                size += PAGE;
                        } else if (size && page + PAGE == base) {
                                base = page;
                                size += PAGE;
                        } else {
                                if (size && !forget(b, base, size))
                                        return false;
                                base = page;
                                size = PAGE;
                        }
                }
        }
        return !size || forget(b, base, size);
}

static bool report(struct balloon *b)
{
        const struct virtq_chain *c = &b->chain;
        for (unsigned i = c->out_length; i < c->out_length + c->in_length; i++) {
                if (!forget(b, c->addresses[i].value, c->segments[i].iov_len))
                        return false;
                atomic_fetch_add(&b->reported_bytes, c->segments[i].iov_len);
        }
        return true;
}

static int serve(struct balloon *b, unsigned queue, bool (*take)(struct balloon *b))
{
        struct virtq *ring = &b->virtio.queues[queue];
        int r;
        bool served = false;
        do {
                while ((r = virtq_pop(ring, &b->chain)) > 0) {
                        if (take && !take(b))
                                return -EIO;
                        virtq_push(ring, &b->chain, 0);
                        served = true;
                }
        } while (r == 0 && virtq_want_notify(ring, true));
        if (served)
                virtio_signal(&b->virtio, queue);
        return r;
}

/* ---- statistics ---- */

static void take_stats(struct balloon *b)
{
        struct virtio_balloon_stat stats[BALLOON_STATS + 2];
        size_t n = virtq_read(&b->stats_chain, 0, stats, sizeof(stats)) / sizeof(stats[0]);
        pthread_mutex_lock(&b->lock);
        for (size_t i = 0; i < n; i++)
                if (stats[i].tag < BALLOON_STATS)
                        b->stats[stats[i].tag] = stats[i].val;
        b->has_stats = n > 0;
        pthread_mutex_unlock(&b->lock);
}

/* The guest fills a buffer and hands it over; given back, it fills it again. */
static int serve_stats(struct balloon *b, unsigned queue)
{
        struct virtq *ring = &b->virtio.queues[queue];
        if (atomic_exchange(&b->stats_wanted, false) && b->has_stats_chain) {
                virtq_push(ring, &b->stats_chain, 0);
                b->has_stats_chain = false;
                virtio_signal(&b->virtio, queue);
        }
        int r = b->has_stats_chain ? 0 : virtq_pop(ring, &b->stats_chain);
        if (r > 0) {
                b->has_stats_chain = true;
                take_stats(b);
        }
        virtq_want_notify(ring, true);
        return r < 0 ? r : 0;
}

/* ---- life ---- */

static int64_t work(void *arg)
{
        struct balloon *b = arg;
        if (!virtio_live(&b->virtio))
                return WORKER_IDLE;
        int r = serve(b, INFLATE, inflate);
        if (r == 0)
                r = serve(b, DEFLATE, NULL); /* a page comes back by being touched */
        if (r == 0 && stats_queue(b) >= 0)
                r = serve_stats(b, (unsigned)stats_queue(b));
        if (r == 0 && reporting_queue(b) >= 0)
                r = serve(b, (unsigned)reporting_queue(b), report);
        if (r < 0)
                virtio_broken(&b->virtio, "a page is no memory, or a ring is not sane");
        return WORKER_IDLE;
}

static void notify(struct virtio_device *d, unsigned queue)
{
        (void)queue;
        worker_kick(container_of(d, struct balloon, virtio)->worker);
}

static void start(struct virtio_device *d)
{
        worker_start(container_of(d, struct balloon, virtio)->worker);
}

static void stop(struct virtio_device *d)
{
        struct balloon *b = container_of(d, struct balloon, virtio);
        worker_stop(b->worker);
        b->has_stats_chain = false;
        memset(d->config + offsetof(struct virtio_balloon_config, actual), 0, sizeof(uint32_t));
}

/* The driver writes `actual`; nobody else cares at that moment. */
static void config_written(struct virtio_device *d, unsigned offset, unsigned size)
{
        (void)d;
        (void)offset;
        (void)size;
}

/* Both sizes are the snapshot's: what the guest gave back stays away. */
static int config_loaded(struct virtio_device *d, uint8_t *config, struct state_section *s,
                         struct err *err)
{
        uint32_t wanted;
        memcpy(&wanted, config, sizeof(wanted));
        if (wanted * PAGE > d->machine->memory.size_bytes)
                return state_refuse(s, err, "wants a balloon of %llu MiB in a memory of %llu",
                                    (unsigned long long)(wanted * PAGE >> 20),
                                    (unsigned long long)(d->machine->memory.size_bytes >> 20));
        memcpy(d->config, config, d->config_size);
        return 0;
}

static int save(struct virtio_device *d, struct state_writer *w, struct err *err)
{
        (void)err;
        state_put(w, container_of(d, struct balloon, virtio)->has_stats_chain, 1);
        return 0;
}

/* The buffer for statistics is taken out of its ring again. */
static int load(struct virtio_device *d, struct state_section *s, struct err *err)
{
        struct balloon *b = container_of(d, struct balloon, virtio);
        (void)err;
        if (state_get(s, 1) && stats_queue(b) >= 0)
                virtq_unpop(&d->queues[stats_queue(b)]);
        return 0;
}

static const struct virtio_ops ops = { .start = start,
                                       .stop = stop,
                                       .notify = notify,
                                       .config_written = config_written,
                                       .save = save,
                                       .load = load,
                                       .config_loaded = config_loaded };

static void destroy(struct device *device)
{
        struct balloon *b = container_of(device, struct balloon, virtio.device);
        virtio_remove(&b->virtio);
        worker_destroy(b->worker);
        virtio_finish(&b->virtio);
        pthread_mutex_destroy(&b->lock);
        free(b);
}

static void counters(struct device *device, counter_fn *take, void *arg)
{
        struct balloon *b = container_of(device, struct balloon, virtio.device);
        take(arg, "reported_bytes", atomic_load(&b->reported_bytes));
}

int virtio_balloon_create(struct machine *machine, struct balloon **ret, struct err *err)
{
        struct balloon *b = new0(struct balloon);
        pthread_mutex_init(&b->lock, NULL);
        virtio_init(&b->virtio, machine, VIRTIO_BALLOON, "virtio-balloon", &ops,
                    BIT(VIRTIO_BALLOON_F_STATS_VQ) | BIT(VIRTIO_BALLOON_F_DEFLATE_ON_OOM) |
                            BIT(VIRTIO_BALLOON_F_REPORTING));
        for (unsigned i = 0; i < QUEUES; i++)
                virtio_queue(&b->virtio, QUEUE_SIZE);
        b->virtio.config_size = 2 * sizeof(uint32_t);
        machine_add_device(machine, &b->virtio.device, "virtio-balloon", destroy);
        b->virtio.device.counters = counters;
        int r = worker_create("virtio-balloon", JAIL_BALLOON, work, b, -1, &b->worker, err);
        if (r == 0)
                r = virtio_add(&b->virtio, 0, err);
        if (r == 0)
                *ret = b;
        return r;
}

int balloon_set_target(struct balloon *b, uint64_t bytes)
{
        if (bytes > b->virtio.machine->memory.size_bytes)
                return -EINVAL;
        uint32_t pages = (uint32_t)(bytes / PAGE);
        pthread_mutex_lock(&b->virtio.lock);
        memcpy(b->virtio.config + offsetof(struct virtio_balloon_config, num_pages), &pages,
               sizeof(pages));
        virtio_config_changed(&b->virtio);
        pthread_mutex_unlock(&b->virtio.lock);
        return 0;
}

void balloon_view(struct balloon *b, struct balloon_view *ret)
{
        uint32_t pages[2]; /* wanted, actual */
        pthread_mutex_lock(&b->virtio.lock);
        memcpy(pages, b->virtio.config, sizeof(pages));
        pthread_mutex_unlock(&b->virtio.lock);
        *ret = (struct balloon_view){ .target_bytes = pages[0] * PAGE,
                                      .actual_bytes = pages[1] * PAGE,
                                      .reported_bytes = atomic_load(&b->reported_bytes) };
        pthread_mutex_lock(&b->lock);
        memcpy(ret->stats, b->stats, sizeof(ret->stats));
        ret->has_stats = b->has_stats;
        pthread_mutex_unlock(&b->lock);
        atomic_store(&b->stats_wanted, true);
        worker_kick(b->worker);
}
