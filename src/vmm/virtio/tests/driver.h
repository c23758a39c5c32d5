/* A machine of memory, buses and one virtio device, a driver for it, and how the device is moved to
 * another such machine. Included by a test's only file, behind cmocka.h. */
#pragma once

#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/buf.h"
#include "base/str.h"
#include "vmm/pci/pci.h"
#include "vmm/snapshot/state.h"
#include "vmm/virtio/device.h"
#include "vmm/virtio/worker.h"

#define UNIT_MEMORY (1u << 20)
#define RING_SIZE   16
#define RING_STEP   0x1000 /* descriptors, available at 0x100, used at 0x800 */
#define RING_WRITE  2

struct unit {
        struct machine machine;
        struct virtio_device *device;
        pthread_mutex_t lock;
        pthread_cond_t changed;
        unsigned interrupts; /* that its device sent */
        uint16_t offered[VIRTIO_QUEUES];
};

static inline void unit_init(struct unit *u, bool mmio)
{
        struct err err = { 0 };
        *u = (struct unit){ 0 };
        pthread_mutex_init(&u->lock, NULL);
        pthread_cond_init(&u->changed, NULL);
        struct machine *m = &u->machine;
        m->vcpus_length = 1;
        list_init(&m->devices);
        bus_init(&m->mmio, "MMIO");
        bus_init(&m->pio, "PIO");
        assert_int_equal(memory_init(&m->memory, UNIT_MEMORY, NULL, &err), 0);
        assert_int_equal(pci_create(m, &err), 0);
        if (mmio)
                assert_int_equal(virtio_mmio_create(m, &err), 0);
}

static inline void unit_finish(struct unit *u)
{
        for (struct device *d; (d = machine_last_device(&u->machine));)
                machine_remove_device(&u->machine, d);
        memory_finish(&u->machine.memory);
        bus_finish(&u->machine.pio);
        bus_finish(&u->machine.mmio);
        pthread_cond_destroy(&u->changed);
        pthread_mutex_destroy(&u->lock);
}

static inline void unit_interrupt(void *arg, int queue)
{
        struct unit *u = arg;
        (void)queue;
        pthread_mutex_lock(&u->lock);
        u->interrupts++;
        pthread_cond_broadcast(&u->changed);
        pthread_mutex_unlock(&u->lock);
}

/* The device that was made last, whose interrupts come here. */
static inline void unit_take_device(struct unit *u)
{
        u->device = container_of(machine_last_device(&u->machine), struct virtio_device, device);
        u->device->transport = (struct virtio_transport){ unit_interrupt, u };
}

static inline uint8_t *unit_at(const struct unit *u, uint64_t at)
{
        return memory_at(&u->machine.memory, gpa(at), 1);
}

static inline void driver_set_queue(struct virtio_device *d, unsigned i)
{
        struct virtq *q = &d->queues[i];
        q->size = RING_SIZE;
        q->descriptors = gpa(i * RING_STEP);
        q->available = gpa(i * RING_STEP + 0x100);
        q->used = gpa(i * RING_STEP + 0x800);
        virtio_set_ready(d, i, true);
}

/* As a driver that takes all features but `without`. */
static inline void driver_begin(struct unit *u, uint64_t without)
{
        struct virtio_device *d = u->device;
        uint64_t features = d->features & ~(without | VIRTIO_RING_F_EVENT_IDX);
        pthread_mutex_lock(&d->lock);
        virtio_set_status(d, VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER);
        virtio_ack_half(d, 0, (uint32_t)features);
        virtio_ack_half(d, 1, (uint32_t)(features >> 32));
        virtio_set_status(d, VIRTIO_STATUS_FEATURES_OK);
        for (unsigned i = 0; i < d->queues_length; i++)
                driver_set_queue(d, i);
        virtio_set_status(d, VIRTIO_STATUS_DRIVER_OK);
        pthread_mutex_unlock(&d->lock);
        assert_true(virtio_live(d));
}

/* The parts' addresses, sizes and flags, in descriptors from `first` on. */
struct part {
        uint64_t at;
        uint32_t size;
        uint16_t flags;
};

static inline void driver_offer(struct unit *u, unsigned queue, unsigned first,
                                const struct part *parts, unsigned length)
{
        uint8_t *ring = unit_at(u, queue * RING_STEP);
        uint16_t head = (uint16_t)first, index = u->offered[queue]++;
        for (unsigned i = 0; i < length; i++) {
                uint16_t tail[2] = { (uint16_t)(parts[i].flags | (i + 1 < length)),
                                     (uint16_t)(first + i + 1) };
                memcpy(ring + 16 * (first + i), &parts[i].at, 8);
                memcpy(ring + 16 * (first + i) + 8, &parts[i].size, 4);
                memcpy(ring + 16 * (first + i) + 12, tail, 4);
        }
        memcpy(ring + 0x104 + 2 * (index % RING_SIZE), &head, 2);
        memcpy(ring + 0x102, &u->offered[queue], 2);
}

static inline void driver_notify(struct unit *u, unsigned queue)
{
        pthread_mutex_lock(&u->device->lock);
        virtio_notified(u->device, queue);
        pthread_mutex_unlock(&u->device->lock);
}

static inline uint16_t driver_used(const struct unit *u, unsigned queue)
{
        uint16_t index;
        memcpy(&index, unit_at(u, queue * RING_STEP + 0x802), 2);
        return index;
}

/* What the last used element says was written. */
static inline uint32_t driver_written(const struct unit *u, unsigned queue)
{
        uint32_t size;
        unsigned last = (unsigned)(driver_used(u, queue) - 1) % RING_SIZE;
        memcpy(&size, unit_at(u, queue * RING_STEP + 0x804 + 8 * last + 4), 4);
        return size;
}

static inline void driver_wait(struct unit *u, unsigned queue, uint16_t used)
{
        pthread_mutex_lock(&u->lock);
        while (driver_used(u, queue) != used)
                pthread_cond_wait(&u->changed, &u->lock);
        pthread_mutex_unlock(&u->lock);
}

/* ---- snapshots ---- */

/* The bytes of its section; freed by state_writer_finish(). */
static inline int device_save(struct unit *u, struct state_writer *ret, struct err *err)
{
        struct device *d = &u->device->device;
        *ret = (struct state_writer){ .now_ns = 1 };
        return d->state->save(d, ret, err);
}

static inline int device_load(struct unit *u, const void *bytes, size_t size, struct err *err)
{
        struct device *d = &u->device->device;
        struct state_section s = {
                .file = "dir/state", .name = "device.0", .version = 1, .data = bytes, .size = size
        };
        return d->state->load(d, &s, err);
}

/* Memory and device of `from` become those of `to`, whose device is new. Workers are held. */
static inline void unit_move(struct unit *from, struct unit *to)
{
        struct err err = { 0 };
        struct state_writer w;
        if (device_save(from, &w, &err) < 0)
                fail_msg("%s", err_text(&err));
        memcpy(unit_at(to, 0), unit_at(from, 0), UNIT_MEMORY);
        memcpy(to->offered, from->offered, sizeof(to->offered));
        if (device_load(to, w.buf.data, w.buf.size, &err) < 0)
                fail_msg("%s", err_text(&err));
        state_writer_finish(&w);
}
