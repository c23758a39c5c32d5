#include "vmm/virtio/console.h"

#include "base/auto.h"
#include "base/str.h"
#include "vmm/device/stream.h"
#include "vmm/snapshot/state.h"
#include "vmm/virtio/device.h"

enum { RECEIVE, TRANSMIT };

struct console {
        struct virtio_device virtio;
        struct stream *stream;
        struct virtq_chain chain;
        size_t sent; /* bytes of the chain in front that the stream already took */
};

/* Lock held in all of these. */
static void transmit(struct console *c)
{
        struct virtq *q = &c->virtio.queues[TRANSMIT];
        int r;
        bool pushed = false;
        while ((r = virtq_pop(q, &c->chain)) > 0) {
                uint8_t bytes[1024];
                size_t n, taken;
                while ((n = virtq_read(&c->chain, c->sent, bytes, sizeof(bytes)))) {
                        taken = stream_put(c->stream, bytes, n);
                        c->sent += taken;
                        if (taken < n)
                                break;
                }
                if (n) { /* full: on with this one when it has drained */
                        virtq_unpop(q);
                        break;
                }
                c->sent = 0;
                virtq_push(q, &c->chain, 0);
                pushed = true;
        }
        virtq_want_notify(q, true);
        if (r < 0)
                virtio_broken(&c->virtio, "the transmit ring is not sane");
        else if (pushed)
                virtio_signal(&c->virtio, TRANSMIT);
}

/* How much the next buffer of the driver takes: what we read from the host. */
static void want_input(struct console *c)
{
        struct virtq *q = &c->virtio.queues[RECEIVE];
        int r = virtq_pop(q, &c->chain);
        if (r > 0)
                virtq_unpop(q);
        if (r < 0)
                virtio_broken(&c->virtio, "the receive ring is not sane");
        stream_want(c->stream, r > 0 ? c->chain.in_bytes : 0);
}

static void notify(struct virtio_device *d, unsigned queue)
{
        struct console *c = container_of(d, struct console, virtio);
        if (queue == TRANSMIT)
                transmit(c);
        else if (queue == RECEIVE)
                want_input(c);
}

static void stop(struct virtio_device *d)
{
        struct console *c = container_of(d, struct console, virtio);
        stream_want(c->stream, 0);
        c->sent = 0;
}

static void arrived(void *arg, const uint8_t *bytes, size_t size)
{
        struct console *c = arg;
        pthread_mutex_lock(&c->virtio.lock);
        struct virtq *q = &c->virtio.queues[RECEIVE];
        size_t done = 0;
        while (done < size && virtio_live(&c->virtio) && virtq_pop(q, &c->chain) > 0) {
                size_t n = virtq_write(&c->chain, 0, bytes + done, size - done);
                virtq_push(q, &c->chain, n);
                done += n;
                if (!n)
                        break;
        }
        if (virtio_live(&c->virtio)) {
                virtio_signal(&c->virtio, RECEIVE);
                want_input(c);
        }
        pthread_mutex_unlock(&c->virtio.lock);
}

static void drained(void *arg)
{
        struct console *c = arg;
        pthread_mutex_lock(&c->virtio.lock);
        if (virtio_live(&c->virtio)) {
                transmit(c);
                want_input(c);
        }
        pthread_mutex_unlock(&c->virtio.lock);
}

static int save(struct virtio_device *d, struct state_writer *w, struct err *err)
{
        struct console *c = container_of(d, struct console, virtio);
        uint8_t bytes[STREAM_BUFFER_SIZE];
        size_t n = stream_waiting(c->stream, bytes);
        (void)err;
        state_put(w, c->sent, 8);
        state_put(w, (uint32_t)n, 4);
        state_put_bytes(w, bytes, n);
        return 0;
}

/* The rings are looked at when the loop runs, by drained(). */
static int load(struct virtio_device *d, struct state_section *s, struct err *err)
{
        struct console *c = container_of(d, struct console, virtio);
        uint8_t bytes[STREAM_BUFFER_SIZE];
        c->sent = state_get(s, 8);
        size_t n = state_get(s, 4);
        if (n > sizeof(bytes))
                return state_refuse(s, err, "has %zu bytes to write, of at most %d", n,
                                    STREAM_BUFFER_SIZE);
        state_get_bytes(s, bytes, n);
        stream_restore(c->stream, bytes, n);
        return 0;
}

static const struct virtio_ops ops = { .notify = notify, .stop = stop, .save = save, .load = load };
static const struct stream_ops stream_ops = { arrived, drained };

static void destroy(struct device *device)
{
        struct console *c = container_of(device, struct console, virtio.device);
        virtio_remove(&c->virtio);
        stream_destroy(c->stream);
        virtio_finish(&c->virtio);
        free(c);
}

int virtio_console_create(struct machine *machine, int in_fd, int out_fd, struct err *err)
{
        struct console *c = new0(struct console);
        virtio_init(&c->virtio, machine, VIRTIO_CONSOLE, "virtio-console", &ops, 0);
        virtio_queue(&c->virtio, 64);
        virtio_queue(&c->virtio, 64);
        c->virtio.config_size = 12;
        machine_add_device(machine, &c->virtio.device, "virtio-console", destroy);
        int r = stream_create(machine->loop, in_fd, out_fd, &stream_ops, c, &c->stream, err);
        return r < 0 ? r : virtio_add(&c->virtio, 0, err);
}
