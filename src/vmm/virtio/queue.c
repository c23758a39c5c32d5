#include "vmm/virtio/queue.h"

#include <errno.h>
#include <string.h>

#include "vmm/vectors.h"

#define DESCRIPTOR_NEXT     1
#define DESCRIPTOR_WRITE    2
#define DESCRIPTOR_INDIRECT 4
#define NO_INTERRUPT        1
#define NO_NOTIFY           1

struct descriptor {
        uint64_t address;
        uint32_t size;
        uint16_t flags, next;
};

struct used_element {
        uint32_t head, written;
};

/* Ring fields: flags, index, then the elements, then the event index. */
static volatile uint16_t *field16(uint8_t *ring, size_t offset)
{
        return (volatile uint16_t *)(void *)(ring + offset);
}

static uint16_t available_index(const struct virtq *q)
{
        uint16_t index = *field16(q->available_ring, 2);
        atomic_thread_fence(memory_order_acquire);
        return index;
}

int virtq_start(struct virtq *q)
{
        uint16_t n = q->size;
        if (!n || n > q->size_max || n & (n - 1))
                return -EINVAL;
        if (q->descriptors.value % 16 || q->available.value % 2 || q->used.value % 4)
                return -EINVAL;
        q->descriptor_table = memory_at(q->memory, q->descriptors, 16ull * n);
        q->available_ring = memory_at(q->memory, q->available, 6 + 2ull * n);
        q->used_ring = memory_at(q->memory, q->used, 6 + 8ull * n);
        if (!q->descriptor_table || !q->available_ring || !q->used_ring)
                return -EINVAL;
        q->ready = true;
        return 0;
}

void virtq_reset(struct virtq *q)
{
        *q = (struct virtq){ .memory = q->memory, .size_max = q->size_max, .size = q->size_max };
}

static int add_segment(struct virtq *q, struct virtq_chain *c, const struct descriptor *d)
{
        bool in = d->flags & DESCRIPTOR_WRITE;
        unsigned at = c->out_length + c->in_length;
        if (at == VIRTQ_SEGMENTS || (!in && c->in_length))
                return -EIO; /* too long, or readable after writable */
        if (!d->size)
                return 0;
        uint8_t *host = memory_at(q->memory, gpa(d->address), d->size);
        if (!host)
                return -EIO;
        c->segments[at] = (struct iovec){ host, d->size };
        c->addresses[at] = gpa(d->address);
        *(in ? &c->in_length : &c->out_length) += 1;
        *(in ? &c->in_bytes : &c->out_bytes) += d->size;
        return 0;
}

/* Follows a table of `length` descriptors from `index`. */
static int walk(struct virtq *q, struct virtq_chain *c, const uint8_t *table, unsigned length,
                unsigned index, bool indirect)
{
        for (unsigned steps = 0; steps < length; steps++) {
                struct descriptor d;
                if (index >= length)
                        return -EIO;
                memcpy(&d, table + 16 * index, sizeof(d));
                if (d.flags & DESCRIPTOR_INDIRECT) {
                        const uint8_t *inner = memory_at(q->memory, gpa(d.address), d.size);
                        unsigned entries = d.size / 16;
                        if (indirect || !inner || d.size % 16 || !entries ||
                            entries > VIRTQ_SEGMENTS || d.flags & DESCRIPTOR_NEXT)
                                return -EIO;
                        return walk(q, c, inner, entries, 0, true);
                }
                int r = add_segment(q, c, &d);
                if (r < 0 || !(d.flags & DESCRIPTOR_NEXT))
                        return r;
                index = d.next;
        }
        return -EIO; /* a loop */
}

int virtq_pop(struct virtq *q, struct virtq_chain *c)
{
        if (!q->ready)
                return 0;
        uint16_t waiting = (uint16_t)(available_index(q) - q->next_available);
        if (!waiting)
                return 0;
        if (waiting > q->size)
                return -EIO;
        c->head = *field16(q->available_ring, 4 + 2u * (q->next_available & (q->size - 1u)));
        c->out_length = c->in_length = 0;
        c->out_bytes = c->in_bytes = 0;
        if (c->head >= q->size)
                return -EIO;
        int r = walk(q, c, q->descriptor_table, q->size, c->head, false);
        if (r < 0)
                return r;
        q->next_available++;
        return 1;
}

void virtq_unpop(struct virtq *q)
{
        q->next_available--;
}

void virtq_back(struct virtq *q, struct virtq_mark mark)
{
        q->next_available = mark.available;
        q->next_used = mark.used;
}

void virtq_put(struct virtq *q, const struct virtq_chain *c, size_t written)
{
        size_t left = written;
        for (unsigned i = c->out_length; left && i < c->out_length + c->in_length; i++) {
                size_t n = c->segments[i].iov_len < left ? c->segments[i].iov_len : left;
                memory_touched(q->memory, c->addresses[i], n);
                left -= n;
        }
        const struct used_element e = { c->head, (uint32_t)(written - left) };
        memcpy(q->used_ring + 4 + 8u * (q->next_used & (q->size - 1u)), &e, sizeof(e));
        q->next_used++;
}

void virtq_publish(struct virtq *q)
{
        atomic_thread_fence(memory_order_release);
        *field16(q->used_ring, 2) = q->next_used;
}

void virtq_push(struct virtq *q, const struct virtq_chain *c, size_t written)
{
        virtq_put(q, c, written);
        virtq_publish(q);
}

bool virtq_should_signal(struct virtq *q)
{
        atomic_thread_fence(memory_order_seq_cst);
        uint16_t now = q->next_used, before = q->signalled;
        if (!q->event_index)
                return !(*field16(q->available_ring, 0) & NO_INTERRUPT);
        uint16_t event = *field16(q->available_ring, 4 + 2u * q->size);
        bool first = !q->signalled_valid;
        q->signalled = now;
        q->signalled_valid = true;
        return first || (uint16_t)(now - event - 1) < (uint16_t)(now - before);
}

bool virtq_want_notify(struct virtq *q, bool want)
{
        if (!q->ready)
                return false;
        if (!q->event_index)
                *field16(q->used_ring, 0) = want ? 0 : NO_NOTIFY;
        else if (want)
                *field16(q->used_ring, 4 + 8u * q->size) = q->next_available;
        if (!want)
                return false;
        atomic_thread_fence(memory_order_seq_cst);
        return available_index(q) != q->next_available;
}

size_t virtq_read(const struct virtq_chain *c, size_t offset, void *bytes, size_t size)
{
        return vectors_read(c->segments, c->out_length, offset, bytes, size);
}

size_t virtq_write(const struct virtq_chain *c, size_t offset, const void *bytes, size_t size)
{
        return vectors_write(c->segments + c->out_length, c->in_length, offset, bytes, size);
}
