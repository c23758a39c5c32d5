#include "vmm/virtio/net.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/str.h"
#include "base/table.h"
#include "vmm/snapshot/state.h"
#include "vmm/vectors.h"
#include "vmm/virtio/device.h"
#include "vmm/virtio/tap.h"
#include "vmm/virtio/throttle.h"
#include "vmm/virtio/worker.h"

#define HEADER     sizeof(struct virtio_net_hdr_v1)
#define FRAME_MAX  (65535 + 18) /* with a VLAN tag */
#define QUEUE_SIZE 256
#define BURST      64 /* packets one way before the other way has its turn */
#define BIT(f)     (1ull << (f))

struct net;

struct net_pair {
        struct net *net;
        unsigned index;
        int fd; /* of the tap */
        struct worker *worker;
        struct throttle sending, receiving;
        struct virtq_chain chain, more;
        struct iovec segments[VIRTQ_SEGMENTS];
        /* What did not fit the first chain; or, where `held`, a whole packet that waits
         * for chains. */
        uint8_t spill[HEADER + FRAME_MAX];
        size_t held;
};

struct net {
        struct virtio_device virtio;
        struct net_pair *pairs;
        unsigned pairs_length, attached;
        struct virtq_chain control;
        atomic_uint_fast64_t sent, received, dropped;
};

static struct virtq *receive_ring(struct net_pair *p)
{
        return &p->net->virtio.queues[2 * p->index];
}

static struct virtq *send_ring(struct net_pair *p)
{
        return &p->net->virtio.queues[2 * p->index + 1];
}

/* ---- from the guest ---- */

static void send_packet(struct net_pair *p)
{
        const struct virtq_chain *c = &p->chain;
        bool sane = c->out_bytes > HEADER && c->out_bytes <= HEADER + FRAME_MAX;
        if (sane && writev(p->fd, c->segments, (int)c->out_length) == (ssize_t)c->out_bytes)
                atomic_fetch_add_explicit(&p->net->sent, 1, memory_order_relaxed);
        else
                atomic_fetch_add_explicit(&p->net->dropped, 1, memory_order_relaxed);
}

/* Returns -EIO where the ring is not sane. *more: called again at once, please. */
static int send_some(struct net_pair *p, int64_t now_ns, bool *more, int64_t *due_ns)
{
        struct virtq *ring = send_ring(p);
        unsigned n = 0;
        int r = 0;
        int64_t until = 0;
        if (!ring->ready)
                return 0;
        virtq_want_notify(ring, false);
        for (; n < BURST; n++) {
                until = throttle_until(&p->sending, now_ns);
                if (until || (r = virtq_pop(ring, &p->chain)) <= 0)
                        break;
                throttle_take(&p->sending, now_ns, p->chain.out_bytes);
                send_packet(p);
                virtq_push(ring, &p->chain, 0);
        }
        if (n)
                virtio_signal(&p->net->virtio, 2 * p->index + 1);
        if (until && (*due_ns < 0 || until < *due_ns))
                *due_ns = until;
        else if (!until && (n == BURST || virtq_want_notify(ring, true)))
                *more = true;
        return r;
}

/* ---- to the guest ---- */

/* One packet off the tap, or the held one: its size, 0 for none. What the first chain
 * does not hold lies in `spill`, at the place that it has in the packet. */
static size_t read_packet(struct net_pair *p)
{
        struct virtq_chain *c = &p->chain;
        size_t room = c->in_bytes;
        if (p->held) {
                (void)virtq_write(c, 0, p->spill, p->held);
                return p->held;
        }
        memcpy(p->segments, virtq_in(c), c->in_length * sizeof(struct iovec));
        unsigned n = c->in_length;
        if (room < sizeof(p->spill))
                p->segments[n++] = (struct iovec){ p->spill + room, sizeof(p->spill) - room };
        ssize_t size = readv(p->fd, p->segments, (int)n);
        return size > 0 ? (size_t)size : 0;
}

/* Keeps the packet whose front lies in the first chain. */
static void hold(struct net_pair *p, size_t size)
{
        if (!p->held)
                (void)vectors_read(virtq_in(&p->chain), p->chain.in_length, 0, p->spill,
                                   size < p->chain.in_bytes ? size : p->chain.in_bytes);
        p->held = size;
}

enum placed { PLACED, TOO_FEW, TOO_LARGE, NOT_SANE };

/* Puts what did not fit the first chain into as many further ones as it takes. */
static enum placed spread(struct net_pair *p, struct virtq *ring, size_t size, uint16_t *chains)
{
        size_t done = size < p->chain.in_bytes ? size : p->chain.in_bytes;
        virtq_put(ring, &p->chain, done);
        for (*chains = 1; done < size; ++*chains) {
                if (!(p->net->virtio.acked & BIT(VIRTIO_NET_F_MRG_RXBUF)))
                        return TOO_LARGE;
                int r;
                do
                        r = virtq_pop(ring, &p->more);
                while (r == 0 && virtq_want_notify(ring, true));
                if (r <= 0)
                        return r < 0 ? NOT_SANE : TOO_FEW;
                size_t n = virtq_write(&p->more, 0, p->spill + done, size - done);
                if (!n)
                        return NOT_SANE;
                virtq_put(ring, &p->more, n);
                done += n;
        }
        return PLACED;
}

static enum placed place(struct net_pair *p, struct virtq *ring, struct virtq_mark mark,
                         size_t size)
{
        uint16_t chains;
        enum placed r = spread(p, ring, size, &chains);
        if (r == PLACED) {
                (void)virtq_write(&p->chain, offsetof(struct virtio_net_hdr_v1, num_buffers),
                                  &chains, sizeof(chains));
                virtq_publish(ring);
        } else {
                virtq_back(ring, mark);
        }
        if (r == TOO_FEW) {
                hold(p, size);
                return r;
        }
        p->held = 0;
        atomic_fetch_add_explicit(r == PLACED ? &p->net->received : &p->net->dropped, 1,
                                  memory_order_relaxed);
        return r;
}

static int receive_some(struct net_pair *p, int64_t now_ns, bool *more, int64_t *due_ns)
{
        struct virtq *ring = receive_ring(p);
        bool tap_empty = false, too_few = false;
        int64_t until = 0;
        unsigned n = 0;
        int r = 0;
        if (!ring->ready)
                return 0;
        virtq_want_notify(ring, false);
        while (n < BURST && !tap_empty && !too_few) {
                struct virtq_mark mark = virtq_mark(ring);
                until = throttle_until(&p->receiving, now_ns);
                if (until || (r = virtq_pop(ring, &p->chain)) <= 0)
                        break;
                if (p->chain.in_bytes < HEADER || p->chain.in_length >= VIRTQ_SEGMENTS)
                        return -EIO;
                size_t size = read_packet(p);
                if (!size) {
                        virtq_back(ring, mark);
                        tap_empty = true;
                        break;
                }
                enum placed placed = place(p, ring, mark, size);
                if (placed == NOT_SANE)
                        return -EIO;
                too_few = placed == TOO_FEW;
                if (!too_few) {
                        throttle_take(&p->receiving, now_ns, size);
                        n++;
                }
        }
        if (n)
                virtio_signal(&p->net->virtio, 2 * p->index);
        worker_watch(p->worker, tap_empty);
        if (until && (*due_ns < 0 || until < *due_ns))
                *due_ns = until;
        else if (!until && !tap_empty && !too_few && r == 0 &&
                 (n == BURST || virtq_want_notify(ring, true)))
                *more = true;
        return r < 0 ? r : 0;
}

static int64_t work(void *arg)
{
        struct net_pair *p = arg;
        struct virtio_device *d = &p->net->virtio;
        int64_t due_ns;
        bool more;
        do {
                int64_t now_ns = clock_monotonic_ns();
                due_ns = WORKER_IDLE;
                more = false;
                if (!virtio_live(d))
                        return WORKER_IDLE;
                int r = send_some(p, now_ns, &more, &due_ns);
                if (r == 0)
                        r = receive_some(p, now_ns, &more, &due_ns);
                if (r < 0) {
                        virtio_broken(d, "a ring or a buffer is not sane");
                        return WORKER_IDLE;
                }
        } while (more);
        return due_ns;
}

/* ---- control (VIRTIO 1.2, section 5.1.6.5) ---- */

static int set_pairs(struct net *n, unsigned pairs)
{
        if (pairs < 1 || pairs > n->pairs_length)
                return -EINVAL;
        for (; n->attached < pairs; n->attached++)
                if (tap_attach(n->pairs[n->attached].fd, true) < 0)
                        return -EIO;
        for (; n->attached > pairs; n->attached--)
                if (tap_attach(n->pairs[n->attached - 1].fd, false) < 0)
                        return -EIO;
        return 0;
}

static int command(struct net *n, const struct virtio_net_ctrl_hdr *header)
{
        struct virtio_device *d = &n->virtio;
        uint16_t pairs;
        switch (header->class) {
        case VIRTIO_NET_CTRL_RX: /* the tap shows everything already */
                return header->cmd <= VIRTIO_NET_CTRL_RX_NOBCAST ? 0 : -EINVAL;
        case VIRTIO_NET_CTRL_MAC:
                if (header->cmd == VIRTIO_NET_CTRL_MAC_TABLE_SET)
                        return 0;
                if (header->cmd != VIRTIO_NET_CTRL_MAC_ADDR_SET ||
                    virtq_read(&n->control, sizeof(*header), d->config, 6) < 6)
                        return -EINVAL;
                return 0;
        case VIRTIO_NET_CTRL_MQ:
                if (header->cmd != VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET ||
                    virtq_read(&n->control, sizeof(*header), &pairs, sizeof(pairs)) < sizeof(pairs))
                        return -EINVAL;
                return set_pairs(n, pairs);
        default:
                return -EINVAL;
        }
}

static void control(struct net *n, unsigned queue)
{
        struct virtio_device *d = &n->virtio;
        struct virtq *ring = &d->queues[queue];
        int r;
        while ((r = virtq_pop(ring, &n->control)) > 0) {
                struct virtio_net_ctrl_hdr header;
                bool whole = virtq_read(&n->control, 0, &header, sizeof(header)) == sizeof(header);
                uint8_t answer = whole && command(n, &header) == 0 ? VIRTIO_NET_OK : VIRTIO_NET_ERR;
                virtq_push(ring, &n->control, virtq_write(&n->control, 0, &answer, 1));
        }
        virtq_want_notify(ring, true);
        if (r < 0)
                virtio_broken(d, "the control ring is not sane");
        else
                virtio_signal(d, queue);
}

/* ---- life ---- */

static unsigned control_queue(const struct net *n)
{
        return n->virtio.acked & BIT(VIRTIO_NET_F_MQ) ? 2 * n->pairs_length : 2;
}

static void notify(struct virtio_device *d, unsigned queue)
{
        struct net *n = container_of(d, struct net, virtio);
        if (queue == control_queue(n))
                control(n, queue);
        else if (queue / 2 < n->pairs_length)
                worker_kick(n->pairs[queue / 2].worker);
}

/* Without multiqueue the ring behind the first pair is the control's. */
static unsigned working_pairs(const struct net *n)
{
        return n->virtio.acked & BIT(VIRTIO_NET_F_MQ) ? n->pairs_length : 1;
}

static void start(struct virtio_device *d)
{
        static const struct {
                unsigned feature, offload;
        } offloads[] = {
                { VIRTIO_NET_F_GUEST_CSUM, TUN_F_CSUM },
                { VIRTIO_NET_F_GUEST_TSO4, TUN_F_TSO4 },
                { VIRTIO_NET_F_GUEST_TSO6, TUN_F_TSO6 },
                { VIRTIO_NET_F_GUEST_ECN, TUN_F_TSO_ECN },
        };
        struct net *n = container_of(d, struct net, virtio);
        unsigned flags = 0;
        for (unsigned i = 0; i < ELEMENTS(offloads); i++)
                if (d->acked & BIT(offloads[i].feature))
                        flags |= offloads[i].offload;
        if (!(flags & TUN_F_CSUM))
                flags = 0; /* segments without checksums are no use */
        if (tap_set_offloads(n->pairs[0].fd, flags) < 0)
                virtio_broken(d, "the tap refuses the offloads");
        for (unsigned i = 0; i < working_pairs(n); i++)
                worker_start(n->pairs[i].worker);
}

static void stop(struct virtio_device *d)
{
        struct net *n = container_of(d, struct net, virtio);
        for (unsigned i = 0; i < n->pairs_length; i++) {
                worker_stop(n->pairs[i].worker);
                n->pairs[i].held = 0;
        }
        (void)set_pairs(n, 1);
}

/* The guest may have another address by now. */
static int config_loaded(struct virtio_device *d, uint8_t *config, struct state_section *s,
                         struct err *err)
{
        (void)s;
        (void)err;
        memcpy(d->config, config, sizeof(((struct virtio_net_config *)NULL)->mac));
        return 0;
}

static int save(struct virtio_device *d, struct state_writer *w, struct err *err)
{
        struct net *n = container_of(d, struct net, virtio);
        (void)err;
        state_put(w, (uint16_t)n->attached, 2);
        for (unsigned i = 0; i < n->pairs_length; i++) {
                state_put(w, (uint32_t)n->pairs[i].held, 4);
                state_put_bytes(w, n->pairs[i].spill, n->pairs[i].held);
        }
        return 0;
}

static int load(struct virtio_device *d, struct state_section *s, struct err *err)
{
        struct net *n = container_of(d, struct net, virtio);
        unsigned attached = state_get(s, 2);
        if (set_pairs(n, attached) < 0)
                return state_refuse(s, err, "uses %u of %u queue pairs", attached, n->pairs_length);
        for (unsigned i = 0; i < n->pairs_length; i++) {
                size_t held = state_get(s, 4);
                if (held > sizeof(n->pairs[i].spill))
                        return state_refuse(s, err, "holds a packet of %zu bytes", held);
                state_get_bytes(s, n->pairs[i].spill, held);
                n->pairs[i].held = held;
        }
        return 0;
}

static const struct virtio_ops ops = { .start = start,
                                       .stop = stop,
                                       .notify = notify,
                                       .save = save,
                                       .load = load,
                                       .config_loaded = config_loaded };

static void describe(struct net *n, const struct net_options *options)
{
        struct virtio_net_config c = {
                .status = VIRTIO_NET_S_LINK_UP,
                .max_virtqueue_pairs = (uint16_t)n->pairs_length,
                .mtu = (uint16_t)options->mtu,
        };
        memcpy(c.mac, options->mac, sizeof(c.mac));
        n->virtio.config_size = offsetof(struct virtio_net_config, mtu) + sizeof(c.mtu);
        memcpy(n->virtio.config, &c, n->virtio.config_size);
}

static void destroy(struct device *device)
{
        struct net *n = container_of(device, struct net, virtio.device);
        virtio_remove(&n->virtio);
        for (unsigned i = 0; i < n->pairs_length; i++)
                worker_destroy(n->pairs[i].worker);
        virtio_finish(&n->virtio);
        free(n->pairs);
        free(n);
}

static void counters(struct device *device, counter_fn *take, void *arg)
{
        struct net *n = container_of(device, struct net, virtio.device);
        take(arg, "sent_packets", atomic_load(&n->sent));
        take(arg, "received_packets", atomic_load(&n->received));
        take(arg, "dropped_packets", atomic_load(&n->dropped));
}

static int make_pairs(struct net *n, const struct net_options *options, struct err *err)
{
        int r = 0;
        n->pairs = xcalloc(options->pairs, sizeof(*n->pairs));
        n->pairs_length = options->pairs;
        n->attached = 1;
        for (unsigned i = 0; i < options->pairs; i++) {
                struct net_pair *p = &n->pairs[i];
                p->net = n;
                p->index = i;
                p->fd = options->fds[i];
                if (i > 0) /* a machine before us may have left it attached */
                        (void)tap_attach(p->fd, false);
                throttle_init(&p->sending, 0, options->bytes_per_s / options->pairs);
                throttle_init(&p->receiving, 0, options->bytes_per_s / options->pairs);
                virtio_queue(&n->virtio, QUEUE_SIZE);
                virtio_queue(&n->virtio, QUEUE_SIZE);
        }
        virtio_queue(&n->virtio, 64);
        for (unsigned i = 0; r == 0 && i < options->pairs; i++)
                r = worker_use(options->spares ? options->spares[i] : NULL, "virtio-net", JAIL_NET,
                               work, &n->pairs[i], options->fds[i], &n->pairs[i].worker, err);
        return r;
}

int virtio_net_create(struct machine *machine, const struct net_options *options, struct err *err)
{
        struct net *n = new0(struct net);
        uint64_t features = BIT(VIRTIO_NET_F_MAC) | BIT(VIRTIO_NET_F_STATUS) |
                            BIT(VIRTIO_NET_F_MRG_RXBUF) | BIT(VIRTIO_NET_F_CSUM) |
                            BIT(VIRTIO_NET_F_GUEST_CSUM) | BIT(VIRTIO_NET_F_HOST_TSO4) |
                            BIT(VIRTIO_NET_F_HOST_TSO6) | BIT(VIRTIO_NET_F_HOST_ECN) |
                            BIT(VIRTIO_NET_F_GUEST_TSO4) | BIT(VIRTIO_NET_F_GUEST_TSO6) |
                            BIT(VIRTIO_NET_F_GUEST_ECN) | BIT(VIRTIO_NET_F_CTRL_VQ) |
                            BIT(VIRTIO_NET_F_CTRL_RX) | BIT(VIRTIO_NET_F_CTRL_MAC_ADDR);
        if (options->pairs > 1)
                features |= BIT(VIRTIO_NET_F_MQ);
        if (options->mtu)
                features |= BIT(VIRTIO_NET_F_MTU);
        virtio_init(&n->virtio, machine, VIRTIO_NET, "virtio-net", &ops, features);
        machine_add_device(machine, &n->virtio.device, "virtio-net", destroy);
        n->virtio.device.counters = counters;
        int r = make_pairs(n, options, err);
        if (r < 0)
                return r;
        describe(n, options);
        return virtio_add(&n->virtio, options->slot, err);
}

/* ---- addresses ---- */

int net_parse_mac(const char *text, uint8_t ret[6])
{
        uint8_t mac[6], any = 0;
        for (unsigned i = 0; i < 6; i++, text += 3) {
                char digits[3] = { text[0], text[0] ? text[1] : 0 };
                char *end;
                if (!isxdigit((unsigned char)digits[0]) || !isxdigit((unsigned char)digits[1]) ||
                    text[2] != (i < 5 ? ':' : '\0'))
                        return -EINVAL;
                mac[i] = (uint8_t)strtoul(digits, &end, 16);
                any |= mac[i];
        }
        if (!any || mac[0] & 1)
                return -EINVAL;
        memcpy(ret, mac, sizeof(mac));
        return 0;
}

void net_mac_of_name(const char *name, uint8_t ret[6])
{
        auto_free char *host = NULL;
        size_t size = 0;
        struct err ignored = { 0 };
        if (file_read(AT_FDCWD, "/etc/machine-id", 4096, &host, &size, &ignored) < 0)
                size = 0;
        uint64_t hash = hash_bytes(name, strlen(name), hash_bytes(host, size, 0));
        memcpy(ret, &hash, 6);
        ret[0] = (uint8_t)((ret[0] & 0xfc) | 2); /* local, of one station */
}
