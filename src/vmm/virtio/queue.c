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

/* A field of a ring: flags, index, then the elements, then the event index. NULL: lost. */
static volatile uint16_t *field16(struct virtq *q, uint8_t *ring, struct gpa base, size_t offset,
                                  bool write)
{
        struct dma_part part = { ring ? ring + offset : NULL, gpa_add(base, offset), 2 };
        if (ring || dma_at(q->dma, base.value + offset, 2, write, &part)) {
                if (write)
                        memory_dirtied(q->dma->memory, part.at, 2);
                return (volatile uint16_t *)(void *)part.host;
        }
        q->lost = true;
        return NULL;
}

static uint16_t available_field(struct virtq *q, size_t offset)
{
        const volatile uint16_t *at = field16(q, q->available_ring, q->available, offset, false);
        return at ? *at : 0;
}

static void set_used_field(struct virtq *q, size_t offset, uint16_t value)
{
        volatile uint16_t *at = field16(q, q->used_ring, q->used, offset, true);
        if (at)
                *at = value;
}

static uint16_t available_index(struct virtq *q)
{
        uint16_t index = available_field(q, 2);
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
        q->ready = true;
        if (q->dma->iommu)
                return 0;
        q->descriptor_table = memory_at(q->dma->memory, q->descriptors, 16ull * n);
        q->available_ring = memory_at(q->dma->memory, q->available, 6 + 2ull * n);
        q->used_ring = memory_at(q->dma->memory, q->used, 6 + 8ull * n);
        q->ready = q->descriptor_table && q->available_ring && q->used_ring;
        return q->ready ? 0 : -EINVAL;
}

void virtq_reset(struct virtq *q)
{
        *q = (struct virtq){ .dma = q->dma, .size_max = q->size_max, .size = q->size_max };
}

/* A descriptor's buffer, in as many segments as it has parts. */
static int add_segments(struct virtq *q, struct virtq_chain *c, const struct descriptor *d)
{
        bool in = d->flags & DESCRIPTOR_WRITE;
        struct dma_part part;
        if (!in && c->in_length)
                return -EIO; /* readable after writable */
        for (uint64_t done = 0; done < d->size; done += part.size_bytes) {
                unsigned at = c->out_length + c->in_length;
                if (at == VIRTQ_SEGMENTS ||
                    !dma_at(q->dma, d->address + done, d->size - done, in, &part))
                        return -EIO;
                c->segments[at] = (struct iovec){ part.host, part.size_bytes };
                c->addresses[at] = part.at;
                *(in ? &c->in_length : &c->out_length) += 1;
                *(in ? &c->in_bytes : &c->out_bytes) += part.size_bytes;
        }
        return 0;
}

/* Descriptors in a row. */
struct table {
        const uint8_t *host; /* NULL: behind an IOMMU */
        uint64_t address;
        unsigned length;
};

static int descriptor_at(struct virtq *q, const struct table *t, unsigned index,
                         struct descriptor *ret)
{
        if (index >= t->length)
                return -EIO;
        if (t->host)
                memcpy(ret, t->host + 16ull * index, sizeof(*ret));
        else if (dma_read(q->dma, t->address + 16ull * index, ret, sizeof(*ret)) < 0)
                return -EIO;
        return 0;
}

static int inner_table(struct virtq *q, const struct descriptor *d, struct table *ret)
{
        *ret = (struct table){ .address = d->address, .length = d->size / 16 };
        if (d->size % 16 || !ret->length || ret->length > VIRTQ_SEGMENTS ||
            d->flags & DESCRIPTOR_NEXT)
                return -EIO;
        if (!q->dma->iommu)
                ret->host = memory_at(q->dma->memory, gpa(d->address), d->size);
        return ret->host || q->dma->iommu ? 0 : -EIO;
}

/* Follows a table of descriptors from `index`. */
static int walk(struct virtq *q, struct virtq_chain *c, const struct table *table, unsigned index,
                bool indirect)
{
        for (unsigned steps = 0; steps < table->length; steps++) {
                struct descriptor d;
                if (descriptor_at(q, table, index, &d) < 0)
                        return -EIO;
                if (d.flags & DESCRIPTOR_INDIRECT) {
                        struct table inner;
                        if (indirect || inner_table(q, &d, &inner) < 0)
                                return -EIO;
                        return walk(q, c, &inner, 0, true);
                }
                int r = add_segments(q, c, &d);
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
        if (waiting > q->size || q->lost)
                return -EIO;
        if (!waiting)
                return 0;
        c->head = available_field(q, 4 + 2u * (q->next_available & (q->size - 1u)));
        c->out_length = c->in_length = 0;
        c->out_bytes = c->in_bytes = 0;
        if (c->head >= q->size || q->lost)
                return -EIO;
        const struct table table = { q->descriptor_table, q->descriptors.value, q->size };
        int r = walk(q, c, &table, c->head, false);
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
                memory_touched(q->dma->memory, c->addresses[i], n);
                left -= n;
        }
        const struct used_element e = { c->head, (uint32_t)(written - left) };
        size_t offset = 4 + 8u * (q->next_used & (q->size - 1u));
        if (q->used_ring) {
                memcpy(q->used_ring + offset, &e, sizeof(e));
                memory_dirtied(q->dma->memory, gpa_add(q->used, offset), sizeof(e));
        } else if (dma_write(q->dma, q->used.value + offset, &e, sizeof(e)) < 0) {
                q->lost = true;
        }
        q->next_used++;
}

void virtq_publish(struct virtq *q)
{
        atomic_thread_fence(memory_order_release);
        set_used_field(q, 2, q->next_used);
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
                return !(available_field(q, 0) & NO_INTERRUPT);
        uint16_t event = available_field(q, 4 + 2u * q->size);
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
                set_used_field(q, 0, want ? 0 : NO_NOTIFY);
        else if (want)
                set_used_field(q, 4 + 8u * q->size, q->next_available);
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
