/* A split virtqueue, seen from the device.
 *
 * The rings lie in memory that the guest may change at any time, and the guest
 * may lie. Every index is read once and checked; descriptors are copied before
 * they are looked at; a chain is bounded by VIRTQ_SEGMENTS and by the ring's own
 * size; every buffer lies in guest memory as a whole. Anything else is -EIO, and
 * the caller ends in device-needs-reset (virtio_broken()).
 *
 * Behind an IOMMU the rings are looked up at every access, which a driver may forbid at any
 * time: then the queue is lost, and the next virtq_pop() says -EIO. Buffers are translated when
 * their chain is popped.
 *
 * A queue belongs to one thread at a time: the device says which.
 *
 * Source: Virtual I/O Device (VIRTIO) 1.2, sections 2.7 and 2.8 (VIRTIO_F_EVENT_IDX,
 * VIRTIO_F_INDIRECT_DESC).
 */
#pragma once

#include <stdatomic.h>
#include <sys/uio.h>

#include "vmm/dma.h"

#define VIRTQ_SIZE_MAX 1024
#define VIRTQ_SEGMENTS 1024

struct virtq {
        const struct dma *dma;
        uint16_t size_max; /* what the device offers */
        uint16_t size;     /* what the driver chose */
        bool ready;
        bool event_index;
        bool lost; /* a ring was not to be had */
        struct gpa descriptors, available, used;
        /* Host addresses of the above; set by virtq_start(), NULL behind an IOMMU. */
        uint8_t *descriptor_table, *available_ring, *used_ring;
        uint16_t next_available, next_used;
        uint16_t signalled; /* next_used when the driver was last told */
        bool signalled_valid;
};

/* One request: what the driver wrote first (out), then what the device fills (in). */
struct virtq_chain {
        uint16_t head;
        unsigned out_length, in_length;
        size_t out_bytes, in_bytes;
        struct iovec segments[VIRTQ_SEGMENTS]; /* out first */
        struct gpa addresses[VIRTQ_SEGMENTS];
};

/* Checks size and places. -EINVAL where they are not possible. */
int virtq_start(struct virtq *queue);
void virtq_reset(struct virtq *queue);

/* The next chain: 1; 0 where there is none; -EIO where the ring is not sane. */
int virtq_pop(struct virtq *queue, struct virtq_chain *chain);
/* Puts back what was popped last, unused. */
void virtq_unpop(struct virtq *queue);
/* Gives it back with `written` bytes at the front of its `in` part. */
void virtq_push(struct virtq *queue, const struct virtq_chain *chain, size_t written);
/* As push, but the driver does not see it before virtq_publish(): for what takes
 * several chains. */
void virtq_put(struct virtq *queue, const struct virtq_chain *chain, size_t written);
void virtq_publish(struct virtq *queue);
/* A place in the ring to go back to, over what was popped and put (not published). */
struct virtq_mark {
        uint16_t available, used;
};
static inline struct virtq_mark virtq_mark(const struct virtq *queue)
{
        return (struct virtq_mark){ queue->next_available, queue->next_used };
}
void virtq_back(struct virtq *queue, struct virtq_mark mark);
/* Whether the driver wants to be told of what was pushed since it last was. */
bool virtq_should_signal(struct virtq *queue);
/* Asks the driver (not) to notify. After virtq_want_notify(true) the ring must be
 * looked at once more: returns whether something is there. */
bool virtq_want_notify(struct virtq *queue, bool want);

static inline struct iovec *virtq_in(struct virtq_chain *chain)
{
        return chain->segments + chain->out_length;
}

/* Copies from the front of the out part at `offset`, or into the in part; returns
 * the bytes copied. */
size_t virtq_read(const struct virtq_chain *chain, size_t offset, void *bytes, size_t size);
size_t virtq_write(const struct virtq_chain *chain, size_t offset, const void *bytes, size_t size);
