#include "vmm/virtio/rng.h"

#include <sys/random.h>

#include "base/auto.h"
#include "base/str.h"
#include "vmm/virtio/device.h"

/* A request larger than this is answered in part, which the spec allows. */
#define REQUEST_MAX 65536

struct rng {
        struct virtio_device virtio;
        struct virtq_chain chain;
};

static size_t fill(struct virtq_chain *c)
{
        size_t done = 0;
        for (unsigned i = 0; i < c->in_length && done < REQUEST_MAX; i++) {
                struct iovec *v = &virtq_in(c)[i];
                size_t want = v->iov_len < REQUEST_MAX - done ? v->iov_len : REQUEST_MAX - done;
                ssize_t n = getrandom(v->iov_base, want, 0);
                if (n < 0)
                        break;
                done += (size_t)n;
                if ((size_t)n < v->iov_len)
                        break;
        }
        return done;
}

static void notify(struct virtio_device *d, unsigned queue)
{
        struct rng *rng = container_of(d, struct rng, virtio);
        struct virtq *q = &d->queues[queue];
        int r;
        while ((r = virtq_pop(q, &rng->chain)) > 0)
                virtq_push(q, &rng->chain, fill(&rng->chain));
        virtq_want_notify(q, true);
        if (r < 0)
                virtio_broken(d, "the request ring is not sane");
        else
                virtio_signal(d, queue);
}

static const struct virtio_ops ops = { .notify = notify };

static void destroy(struct device *device)
{
        struct rng *rng = container_of(device, struct rng, virtio.device);
        virtio_remove(&rng->virtio);
        virtio_finish(&rng->virtio);
        free(rng);
}

int virtio_rng_create(struct machine *machine, struct err *err)
{
        struct rng *rng = new0(struct rng);
        virtio_init(&rng->virtio, machine, VIRTIO_RNG, "virtio-rng", &ops, 0);
        virtio_queue(&rng->virtio, 64);
        machine_add_device(machine, &rng->virtio.device, "virtio-rng", destroy);
        return virtio_add(&rng->virtio, 0, err);
}
