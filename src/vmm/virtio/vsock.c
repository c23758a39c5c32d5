#include "vmm/virtio/vsock.h"

#include <string.h>

#include "base/auto.h"
#include "base/str.h"
#include "vmm/snapshot/state.h"
#include "vmm/vectors.h"
#include "vmm/virtio/device.h"
#include "vmm/virtio/vsock_peers.h"
#include "vmm/virtio/worker.h"

#define QUEUE_SIZE 256
#define BURST      64
#define HEADER     sizeof(struct virtio_vsock_hdr)

enum { RECEIVE, TRANSMIT, EVENT, QUEUES };

struct vsock {
        struct virtio_device virtio;
        struct vsock_peers *peers;
        struct worker *worker;
        struct virtq_chain chain;
        struct iovec data[VIRTQ_SEGMENTS];
        atomic_bool moved; /* and the guest was not told yet */
};

/* Up to BURST packets of the guest; -EIO where one is none, or the ring is not sane. */
static int take_some(struct vsock *v, bool *more)
{
        struct virtq *ring = &v->virtio.queues[TRANSMIT];
        struct virtq_chain *c = &v->chain;
        unsigned n = 0;
        int r = 0;
        virtq_want_notify(ring, false);
        for (; n < BURST && (r = virtq_pop(ring, c)) > 0; n++) {
                struct virtio_vsock_hdr h;
                if (virtq_read(c, 0, &h, HEADER) < HEADER || h.len > c->out_bytes - HEADER)
                        return -EIO;
                unsigned length = vectors_part(c->segments, c->out_length, HEADER, h.len, v->data,
                                               VIRTQ_SEGMENTS);
                vsock_peers_take(v->peers, &h, v->data, length);
                virtq_push(ring, c, 0);
        }
        if (n)
                virtio_signal(&v->virtio, TRANSMIT);
        *more |= n == BURST || virtq_want_notify(ring, true);
        return r;
}

static int give_some(struct vsock *v, bool *more)
{
        struct virtq *ring = &v->virtio.queues[RECEIVE];
        struct virtq_chain *c = &v->chain;
        unsigned n = 0;
        int r = 0;
        bool nothing = false;
        virtq_want_notify(ring, false);
        for (; n < BURST && (r = virtq_pop(ring, c)) > 0; n++) {
                struct virtio_vsock_hdr h;
                if (c->in_bytes <= HEADER)
                        return -EIO;
                size_t room = c->in_bytes - HEADER;
                unsigned length = vectors_part(virtq_in(c), c->in_length, HEADER, room, v->data,
                                               VIRTQ_SEGMENTS);
                nothing = !vsock_peers_give(v->peers, v->data, length, room, &h);
                if (nothing) {
                        virtq_unpop(ring);
                        break;
                }
                (void)virtq_write(c, 0, &h, HEADER);
                virtq_push(ring, c, HEADER + h.len);
        }
        if (n)
                virtio_signal(&v->virtio, RECEIVE);
        *more |= n == BURST || (!nothing && r == 0 && virtq_want_notify(ring, true));
        return r < 0 ? r : 0;
}

/* Connections do not outlive the machine that had them: the guest ends its own and looks at its
 * CID anew (VIRTIO 1.2, section 5.10.6.7). Waits for a buffer. */
static int tell_moved(struct vsock *v)
{
        static const struct virtio_vsock_event event = { VIRTIO_VSOCK_EVENT_TRANSPORT_RESET };
        struct virtq *ring = &v->virtio.queues[EVENT];
        int r;
        do
                r = virtq_pop(ring, &v->chain);
        while (r == 0 && virtq_want_notify(ring, true));
        if (r <= 0)
                return r;
        virtq_push(ring, &v->chain, virtq_write(&v->chain, 0, &event, sizeof(event)));
        atomic_store(&v->moved, false);
        virtio_signal(&v->virtio, EVENT);
        return 0;
}

static int64_t work(void *arg)
{
        struct vsock *v = arg;
        bool more;
        worker_watch(v->worker, true);
        do {
                more = false;
                if (!virtio_live(&v->virtio))
                        return WORKER_IDLE;
                vsock_peers_poll(v->peers);
                if ((atomic_load(&v->moved) && tell_moved(v) < 0) || take_some(v, &more) < 0 ||
                    give_some(v, &more) < 0) {
                        virtio_broken(&v->virtio, "a packet or a ring is not sane");
                        worker_watch(v->worker, false);
                        return WORKER_IDLE;
                }
        } while (more);
        return WORKER_IDLE;
}

static void notify(struct virtio_device *d, unsigned queue)
{
        struct vsock *v = container_of(d, struct vsock, virtio);
        if (queue != EVENT || atomic_load(&v->moved))
                worker_kick(v->worker);
}

static void start(struct virtio_device *d)
{
        worker_start(container_of(d, struct vsock, virtio)->worker);
}

static void stop(struct virtio_device *d)
{
        struct vsock *v = container_of(d, struct vsock, virtio);
        worker_stop(v->worker);
        vsock_peers_reset(v->peers);
        atomic_store(&v->moved, false);
}

/* The CID is this machine's. */
static int config_loaded(struct virtio_device *d, uint8_t *config, struct state_section *s,
                         struct err *err)
{
        (void)s;
        (void)err;
        memcpy(config, d->config, d->config_size);
        return 0;
}

/* Nothing is saved: connections stay with whom they were made. */
static int load(struct virtio_device *d, struct state_section *s, struct err *err)
{
        (void)s;
        (void)err;
        atomic_store(&container_of(d, struct vsock, virtio)->moved,
                     atomic_load(&d->status) & VIRTIO_STATUS_DRIVER_OK);
        return 0;
}

static const struct virtio_ops ops = {
        .start = start, .stop = stop, .notify = notify, .load = load, .config_loaded = config_loaded
};

static void destroy(struct device *device)
{
        struct vsock *v = container_of(device, struct vsock, virtio.device);
        virtio_remove(&v->virtio);
        worker_destroy(v->worker);
        vsock_peers_destroy(v->peers);
        virtio_finish(&v->virtio);
        free(v);
}

int virtio_vsock_create(struct machine *machine, const struct vsock_options *options,
                        struct err *err)
{
        struct vsock *v = new0(struct vsock);
        const uint64_t guest_cid = options->cid;
        virtio_init(&v->virtio, machine, VIRTIO_VSOCK, "virtio-vsock", &ops, 0);
        for (unsigned i = 0; i < QUEUES; i++)
                virtio_queue(&v->virtio, QUEUE_SIZE);
        memcpy(v->virtio.config, &guest_cid, sizeof(guest_cid));
        v->virtio.config_size = sizeof(guest_cid);
        machine_add_device(machine, &v->virtio.device, "virtio-vsock", destroy);
        int r = vsock_peers_create(options->listen_fd, options->path, options->cid, &v->peers, err);
        if (r == 0)
                r = worker_create("virtio-vsock", JAIL_VSOCK_PEERS, work, v,
                                  vsock_peers_fd(v->peers), &v->worker, err);
        return r < 0 ? r : virtio_add(&v->virtio, 0, err);
}
