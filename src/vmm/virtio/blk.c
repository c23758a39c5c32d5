#include "vmm/virtio/blk.h"

#include <linux/virtio_blk.h>
#include <string.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/str.h"
#include "vmm/snapshot/state.h"
#include "vmm/vectors.h"
#include "vmm/virtio/device.h"
#include "vmm/virtio/throttle.h"
#include "vmm/virtio/worker.h"

#define SECTOR       512u
#define QUEUE_SIZE   256
#define SEGMENTS_MAX (VIRTQ_SEGMENTS - 2) /* beside header and status */
#define RANGES_MAX   16                   /* of one discard */
#define RANGE_MAX    (1u << 22)           /* sectors of one range */

struct blk;

struct blk_queue {
        struct blk *blk;
        unsigned index;
        struct worker *worker;
        struct virtq_chain chain;
        struct iovec data[VIRTQ_SEGMENTS]; /* the chain's, without header and status */
};

struct blk {
        struct virtio_device virtio;
        struct disk *disk;
        uint64_t sectors;
        char serial[BLK_SERIAL_MAX];
        struct blk_queue *queues;
        pthread_mutex_t throttle_lock;
        struct throttle throttle;
        atomic_uint_fast64_t requests, read_bytes, written_bytes, errors;
};

/* ---- requests ---- */

static uint8_t status_of(int r)
{
        if (r == -EOPNOTSUPP)
                return VIRTIO_BLK_S_UNSUPP;
        return r < 0 ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_OK;
}

static bool inside(const struct blk *b, uint64_t sector, uint64_t bytes)
{
        return bytes % SECTOR == 0 && sector <= b->sectors && bytes / SECTOR <= b->sectors - sector;
}

static int transfer(struct blk_queue *q, bool write, uint64_t sector)
{
        struct blk *b = q->blk;
        struct virtq_chain *c = &q->chain;
        size_t bytes = write ? c->out_bytes - sizeof(struct virtio_blk_outhdr) : c->in_bytes - 1;
        if (!inside(b, sector, bytes))
                return -EINVAL;
        if (write) {
                unsigned n = vectors_part(c->segments, c->out_length,
                                          sizeof(struct virtio_blk_outhdr), bytes, q->data,
                                          VIRTQ_SEGMENTS);
                return disk_write(b->disk, q->data, n, sector * SECTOR);
        }
        unsigned n = vectors_part(virtq_in(c), c->in_length, 0, bytes, q->data, VIRTQ_SEGMENTS);
        return disk_read(b->disk, q->data, n, sector * SECTOR);
}

static int change_ranges(struct blk_queue *q, bool zeroes)
{
        struct blk *b = q->blk;
        struct virtio_blk_discard_write_zeroes ranges[RANGES_MAX];
        size_t bytes = q->chain.out_bytes - sizeof(struct virtio_blk_outhdr);
        if (bytes % sizeof(ranges[0]) || bytes > sizeof(ranges))
                return -EINVAL;
        (void)virtq_read(&q->chain, sizeof(struct virtio_blk_outhdr), ranges, bytes);
        unsigned length = (unsigned)(bytes / sizeof(ranges[0]));
        for (unsigned i = 0; i < length; i++) {
                uint32_t allowed = zeroes ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0;
                if (ranges[i].flags & ~allowed)
                        return -EOPNOTSUPP;
                if (ranges[i].num_sectors > RANGE_MAX ||
                    !inside(b, ranges[i].sector, (uint64_t)ranges[i].num_sectors * SECTOR))
                        return -EINVAL;
        }
        int r = 0;
        for (unsigned i = 0; r == 0 && i < length; i++) {
                uint64_t at = ranges[i].sector * SECTOR;
                uint64_t size = (uint64_t)ranges[i].num_sectors * SECTOR;
                r = zeroes ? disk_write_zeroes(b->disk, at, size, ranges[i].flags)
                           : disk_discard(b->disk, at, size);
        }
        return r;
}

static int identify(struct blk_queue *q)
{
        return virtq_write(&q->chain, 0, q->blk->serial, BLK_SERIAL_MAX) < BLK_SERIAL_MAX ? -EINVAL
                                                                                          : 0;
}

static int execute(struct blk_queue *q, const struct virtio_blk_outhdr *h)
{
        struct blk *b = q->blk;
        bool read_only = disk_read_only(b->disk);
        switch (h->type) {
        case VIRTIO_BLK_T_IN:
                return transfer(q, false, h->sector);
        case VIRTIO_BLK_T_OUT:
                return read_only ? -EROFS : transfer(q, true, h->sector);
        case VIRTIO_BLK_T_FLUSH:
                return read_only ? 0 : disk_flush(b->disk);
        case VIRTIO_BLK_T_GET_ID:
                return identify(q);
        case VIRTIO_BLK_T_DISCARD:
                return read_only                   ? -EROFS
                       : disk_can_discard(b->disk) ? change_ranges(q, false)
                                                   : -EOPNOTSUPP;
        case VIRTIO_BLK_T_WRITE_ZEROES:
                return read_only ? -EROFS : change_ranges(q, true);
        default:
                return -EOPNOTSUPP;
        }
}

/* Puts the status into the last byte that the driver left for it. */
static void answer(struct blk_queue *q, uint8_t status)
{
        struct virtq_chain *c = &q->chain;
        (void)virtq_write(c, c->in_bytes - 1, &status, 1);
        virtq_push(&q->blk->virtio.queues[q->index], c, c->in_bytes);
}

/* ---- the thread of a queue ---- */

static int64_t may_start(struct blk *b)
{
        pthread_mutex_lock(&b->throttle_lock);
        int64_t until = throttle_until(&b->throttle, clock_monotonic_ns());
        pthread_mutex_unlock(&b->throttle_lock);
        return until;
}

static void account(struct blk *b, uint64_t bytes)
{
        pthread_mutex_lock(&b->throttle_lock);
        throttle_take(&b->throttle, clock_monotonic_ns(), bytes);
        pthread_mutex_unlock(&b->throttle_lock);
}

static void add(atomic_uint_fast64_t *counter, uint64_t value)
{
        atomic_fetch_add_explicit(counter, value, memory_order_relaxed);
}

static void count(struct blk *b, const struct virtio_blk_outhdr *h, const struct virtq_chain *c,
                  uint8_t status)
{
        add(&b->requests, 1);
        if (status != VIRTIO_BLK_S_OK)
                add(&b->errors, 1);
        else if (h->type == VIRTIO_BLK_T_IN)
                add(&b->read_bytes, c->in_bytes - 1);
        else if (h->type == VIRTIO_BLK_T_OUT)
                add(&b->written_bytes, c->out_bytes - sizeof(*h));
}

static void counters(struct device *device, counter_fn *take, void *arg)
{
        struct blk *b = container_of(device, struct blk, virtio.device);
        take(arg, "requests", atomic_load(&b->requests));
        take(arg, "read_bytes", atomic_load(&b->read_bytes));
        take(arg, "written_bytes", atomic_load(&b->written_bytes));
        take(arg, "errors", atomic_load(&b->errors));
}

/* One request: 1; none: 0; one that is no request: -EIO; not yet: *ret_due_ns. */
static int serve(struct blk_queue *q, int64_t *ret_due_ns)
{
        struct blk *b = q->blk;
        struct virtq *ring = &b->virtio.queues[q->index];
        struct virtio_blk_outhdr header;
        int r = virtq_pop(ring, &q->chain);
        if (r <= 0)
                return r;
        int64_t until = may_start(b);
        if (until) {
                virtq_unpop(ring);
                *ret_due_ns = until;
                return 0;
        }
        if (virtq_read(&q->chain, 0, &header, sizeof(header)) < sizeof(header) ||
            q->chain.in_bytes < 1)
                return -EIO; /* nothing to put a status into, or nothing that says what */
        account(b, q->chain.out_bytes + q->chain.in_bytes);
        uint8_t status = status_of(execute(q, &header));
        count(b, &header, &q->chain, status);
        answer(q, status);
        return 1;
}

static int64_t work(void *arg)
{
        struct blk_queue *q = arg;
        struct virtio_device *d = &q->blk->virtio;
        struct virtq *ring = &d->queues[q->index];
        int64_t due_ns = WORKER_IDLE;
        if (!virtio_live(d))
                return WORKER_IDLE;
        int r;
        do {
                virtq_want_notify(ring, false);
                while ((r = serve(q, &due_ns)) > 0)
                        virtio_signal(d, q->index);
        } while (r == 0 && due_ns == WORKER_IDLE && virtq_want_notify(ring, true));
        if (r < 0)
                virtio_broken(d, "a request has no header or no status, or the ring is not sane");
        return due_ns;
}

static void notify(struct virtio_device *d, unsigned queue)
{
        struct blk *b = container_of(d, struct blk, virtio);
        worker_kick(b->queues[queue].worker);
}

static void start(struct virtio_device *d)
{
        struct blk *b = container_of(d, struct blk, virtio);
        for (unsigned i = 0; i < d->queues_length; i++)
                worker_start(b->queues[i].worker);
}

static void stop(struct virtio_device *d)
{
        struct blk *b = container_of(d, struct blk, virtio);
        for (unsigned i = 0; i < d->queues_length; i++)
                worker_stop(b->queues[i].worker);
}

static int config_loaded(struct virtio_device *d, uint8_t *config, struct state_section *s,
                         struct err *err)
{
        struct blk *b = container_of(d, struct blk, virtio);
        uint64_t sectors;
        memcpy(&sectors, config + offsetof(struct virtio_blk_config, capacity), sizeof(sectors));
        if (sectors == b->sectors)
                return 0;
        return state_refuse(s, err, "has a disk of %llu sectors, this machine's has %llu",
                            (unsigned long long)sectors, (unsigned long long)b->sectors);
}

static const struct virtio_ops ops = {
        .start = start, .stop = stop, .notify = notify, .config_loaded = config_loaded
};

/* ---- building ---- */

static void describe(struct blk *b)
{
        struct virtio_device *d = &b->virtio;
        struct virtio_blk_config c = {
                .capacity = b->sectors,
                .seg_max = QUEUE_SIZE - 2,
                .blk_size = SECTOR,
                .physical_block_exp = 3,
                .num_queues = (uint16_t)d->queues_length,
                .max_discard_sectors = RANGE_MAX,
                .max_discard_seg = RANGES_MAX,
                .discard_sector_alignment = 8,
                .max_write_zeroes_sectors = RANGE_MAX,
                .max_write_zeroes_seg = RANGES_MAX,
                .write_zeroes_may_unmap = 1,
        };
        d->config_size = offsetof(struct virtio_blk_config, write_zeroes_may_unmap) + 4;
        memcpy(d->config, &c, d->config_size);
}

static uint64_t features_of(const struct disk *disk, unsigned queues)
{
        uint64_t f = 1ull << VIRTIO_BLK_F_SEG_MAX | 1ull << VIRTIO_BLK_F_BLK_SIZE |
                     1ull << VIRTIO_BLK_F_TOPOLOGY | 1ull << VIRTIO_BLK_F_FLUSH;
        if (queues > 1)
                f |= 1ull << VIRTIO_BLK_F_MQ;
        if (disk_read_only(disk))
                return f | 1ull << VIRTIO_BLK_F_RO;
        if (disk_can_discard(disk))
                f |= 1ull << VIRTIO_BLK_F_DISCARD;
        return f | 1ull << VIRTIO_BLK_F_WRITE_ZEROES;
}

static void destroy(struct device *device)
{
        struct blk *b = container_of(device, struct blk, virtio.device);
        virtio_remove(&b->virtio);
        for (unsigned i = 0; i < b->virtio.queues_length; i++)
                worker_destroy(b->queues[i].worker);
        disk_close(b->disk);
        virtio_finish(&b->virtio);
        pthread_mutex_destroy(&b->throttle_lock);
        free(b->queues);
        free(b);
}

int virtio_blk_create(struct machine *machine, struct disk *disk, const struct blk_options *options,
                      struct err *err)
{
        struct blk *b = new0(struct blk);
        unsigned queues = machine->vcpus_length < BLK_QUEUES ? machine->vcpus_length : BLK_QUEUES;
        if (options->spare)
                queues = 1;
        b->disk = disk;
        b->sectors = disk_size(disk) / SECTOR;
        b->queues = xcalloc(queues, sizeof(*b->queues));
        pthread_mutex_init(&b->throttle_lock, NULL);
        throttle_init(&b->throttle, options->operations_per_s, options->bytes_per_s);
        if (options->serial)
                memcpy(b->serial, options->serial, strnlen(options->serial, BLK_SERIAL_MAX));
        virtio_init(&b->virtio, machine, VIRTIO_BLK, "virtio-blk", &ops, features_of(disk, queues));
        machine_add_device(machine, &b->virtio.device, "virtio-blk", destroy);
        b->virtio.device.counters = counters;
        int r = 0;
        for (unsigned i = 0; r == 0 && i < queues; i++) {
                b->queues[i].blk = b;
                b->queues[i].index = i;
                virtio_queue(&b->virtio, QUEUE_SIZE);
                r = worker_use(options->spare, "virtio-blk", JAIL_DISK, work, &b->queues[i], -1,
                               &b->queues[i].worker, err);
        }
        describe(b);
        return r < 0 ? r : virtio_add(&b->virtio, options->slot, err);
}
