#include "vmm/fs/device.h"

#include <assert.h>
#include <endian.h>
#include <string.h>

#include "base/auto.h"
#include "base/str.h"
#include "vmm/snapshot/state.h"
#include "vmm/virtio/device.h"
#include "vmm/virtio/worker.h"

enum { PRIORITY, REQUESTS, QUEUES };

#define QUEUE_SIZE 1024 /* a request of FS_WRITE_MAX is 260 descriptors */

struct fs_queue {
        struct fs_device *fs;
        unsigned index;
        struct worker *worker;
        struct virtq_chain chain;
};

struct fs_device {
        struct virtio_device virtio;
        struct fs_server *server;
        struct fs_queue queues[QUEUES];
        _Atomic uint64_t requests;
};

/* struct virtio_fs_config */
struct config {
        char tag[FS_TAG_MAX]; /* not terminated */
        uint32_t num_request_queues;
};
static_assert(sizeof(struct config) == 40, "as the guest reads it");

static int64_t work(void *arg)
{
        struct fs_queue *q = arg;
        struct virtio_device *d = &q->fs->virtio;
        struct virtq *ring = &d->queues[q->index];
        struct virtq_chain *c = &q->chain;
        int r;
        if (!virtio_live(d) || !ring->ready)
                return WORKER_IDLE;
        do {
                virtq_want_notify(ring, false);
                while ((r = virtq_pop(ring, c)) > 0) {
                        atomic_fetch_add(&q->fs->requests, 1);
                        virtq_push(ring, c,
                                   fs_server_handle(q->fs->server, c->segments, c->out_length,
                                                    virtq_in(c), c->in_length));
                        virtio_signal(d, q->index);
                }
        } while (r == 0 && virtq_want_notify(ring, true));
        if (r < 0)
                virtio_broken(d, "a ring is not sane");
        return WORKER_IDLE;
}

static void notify(struct virtio_device *d, unsigned queue)
{
        struct fs_device *fs = container_of(d, struct fs_device, virtio);
        worker_kick(fs->queues[queue].worker);
}

static void start(struct virtio_device *d)
{
        struct fs_device *fs = container_of(d, struct fs_device, virtio);
        for (unsigned i = 0; i < QUEUES; i++)
                worker_start(fs->queues[i].worker);
}

static void stop(struct virtio_device *d)
{
        struct fs_device *fs = container_of(d, struct fs_device, virtio);
        for (unsigned i = 0; i < QUEUES; i++)
                worker_stop(fs->queues[i].worker);
        fs_server_reset(fs->server);
}

/* ---- snapshots: paths are a matter for the threads that may open files ---- */

struct errand {
        struct fs_server *server;
        struct state_writer *writer; /* NULL: loads */
        struct state_section *section;
        struct err *err;
        int result;
};

static void run_errand(void *arg)
{
        struct errand *e = arg;
        e->result = e->writer ? fs_server_save(e->server, e->writer, e->err)
                              : fs_server_load(e->server, e->section, e->err);
}

static int save(struct virtio_device *d, struct state_writer *w, struct err *err)
{
        struct fs_device *fs = container_of(d, struct fs_device, virtio);
        struct errand e = { .server = fs->server, .writer = w, .err = err };
        worker_call(fs->queues[PRIORITY].worker, run_errand, &e);
        return e.result < 0 ? err_wrap(err, "shared directory '%.*s'", FS_TAG_MAX,
                                       (const char *)d->config)
                            : 0;
}

static int load(struct virtio_device *d, struct state_section *s, struct err *err)
{
        struct fs_device *fs = container_of(d, struct fs_device, virtio);
        struct errand e = { .server = fs->server, .section = s, .err = err };
        worker_call(fs->queues[PRIORITY].worker, run_errand, &e);
        return e.result < 0 ? err_wrap(err, "shared directory '%.*s'", FS_TAG_MAX,
                                       (const char *)d->config)
                            : 0;
}

static int config_loaded(struct virtio_device *d, uint8_t *config, struct state_section *s,
                         struct err *err)
{
        if (memcmp(d->config, config, FS_TAG_MAX) == 0)
                return 0;
        return state_refuse(s, err, "has a shared directory '%.*s', this machine's is '%.*s'",
                            FS_TAG_MAX, (const char *)config, FS_TAG_MAX, (const char *)d->config);
}

static const struct virtio_ops ops = { .start = start,
                                       .stop = stop,
                                       .notify = notify,
                                       .save = save,
                                       .load = load,
                                       .config_loaded = config_loaded };

static void counters(struct device *device, counter_fn *take, void *arg)
{
        struct fs_device *fs = container_of(device, struct fs_device, virtio.device);
        take(arg, "requests", atomic_load(&fs->requests));
}

static void destroy(struct device *device)
{
        struct fs_device *fs = container_of(device, struct fs_device, virtio.device);
        virtio_remove(&fs->virtio);
        for (unsigned i = 0; i < QUEUES; i++)
                worker_destroy(fs->queues[i].worker);
        fs_server_destroy(fs->server);
        virtio_finish(&fs->virtio);
        free(fs);
}

int virtio_fs_create(struct machine *machine, const char *tag, struct fs_server *server,
                     struct err *err)
{
        struct fs_device *fs = new0(struct fs_device);
        struct config config = { .num_request_queues = htole32(1) };
        int r = 0;
        fs->server = server;
        virtio_init(&fs->virtio, machine, VIRTIO_FS, "virtio-fs", &ops, 0);
        memcpy(config.tag, tag, strnlen(tag, FS_TAG_MAX));
        memcpy(fs->virtio.config, &config, sizeof(config));
        fs->virtio.config_size = sizeof(config);
        machine_add_device(machine, &fs->virtio.device, "virtio-fs", destroy);
        fs->virtio.device.counters = counters;
        for (unsigned i = 0; r == 0 && i < QUEUES; i++) {
                fs->queues[i].fs = fs;
                fs->queues[i].index = i;
                virtio_queue(&fs->virtio, QUEUE_SIZE);
                r = worker_create("virtio-fs", JAIL_FILES, work, &fs->queues[i], -1,
                                  &fs->queues[i].worker, err);
        }
        return r < 0 ? r : virtio_add(&fs->virtio, 0, err);
}
