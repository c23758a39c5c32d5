/* virtio over MMIO (VIRTIO 1.2, section 4.2): a page of registers per device, version 2.
 *
 * Four interrupt lines are shared by all: a line is up while a device on it has
 * something that its driver has not acknowledged. */
#include <string.h>

#include "base/auto.h"
#include "base/str.h"
#include "vmm/layout.h"
#include "vmm/snapshot/state.h"
#include "vmm/virtio/device.h"

#define PLACES  64
#define LINES   4
#define MAGIC   0x74726976u
#define VERSION 2
#define VENDOR  0x454c5349u /* "ISLE" */

#define ISR_QUEUE  1u
#define ISR_CONFIG 2u

enum {
        M_MAGIC = 0x000,
        M_VERSION = 0x004,
        M_DEVICE = 0x008,
        M_VENDOR = 0x00c,
        M_FEATURES = 0x010,
        M_FEATURES_SELECT = 0x014,
        M_ACK = 0x020,
        M_ACK_SELECT = 0x024,
        M_QUEUE_SELECT = 0x030,
        M_QUEUE_SIZE_MAX = 0x034,
        M_QUEUE_SIZE = 0x038,
        M_QUEUE_READY = 0x044,
        M_NOTIFY = 0x050,
        M_INTERRUPTS = 0x060,
        M_INTERRUPTS_ACK = 0x064,
        M_STATUS = 0x070,
        M_DESCRIPTORS = 0x080, /* halves of 64 bits, as the two that follow */
        M_AVAILABLE = 0x090,
        M_USED = 0x0a0,
        M_SHARED_LENGTH = 0x0b0, /* there is no shared memory: all ones */
        M_SHARED_BASE = 0x0b8,
        M_GENERATION = 0x0fc,
        M_CONFIG = 0x100,
};

struct virtio_mmio {
        struct virtio_device *device;
        struct virtio_mmio_places *places;
        unsigned place;
        uint32_t features_select, ack_select, queue_select;
        uint32_t interrupts; /* the places' lock */
};

/* Places stay with who had them first: their addresses are in the DSDT. */
struct virtio_mmio_places {
        struct device device;
        struct machine *machine;
        pthread_mutex_t lock; /* of lines; innermost */
        struct virtio_mmio *at[PLACES];
        unsigned length;
};

/* Lock held. */
static void update_line(struct virtio_mmio_places *p, unsigned place)
{
        uint32_t any = 0;
        for (unsigned i = place % LINES; i < p->length; i += LINES)
                any |= p->at[i] ? p->at[i]->interrupts : 0;
        irq_line(&p->machine->irq, LAYOUT_IRQ_MMIO_FIRST + place % LINES, any);
}

static void change_interrupts(struct virtio_mmio *m, uint32_t set, uint32_t clear)
{
        pthread_mutex_lock(&m->places->lock);
        m->interrupts = (m->interrupts & ~clear) | set;
        update_line(m->places, m->place);
        pthread_mutex_unlock(&m->places->lock);
}

static void interrupt(void *arg, int queue)
{
        change_interrupts(arg, queue < 0 ? ISR_CONFIG : ISR_QUEUE, 0);
}

static uint32_t interrupts(struct virtio_mmio *m)
{
        pthread_mutex_lock(&m->places->lock);
        uint32_t value = m->interrupts;
        pthread_mutex_unlock(&m->places->lock);
        return value;
}

static struct virtq *selected(struct virtio_mmio *m)
{
        struct virtio_device *d = m->device;
        return m->queue_select < d->queues_length ? &d->queues[m->queue_select] : NULL;
}

static uint64_t register_read(struct virtio_mmio *m, uint64_t offset)
{
        struct virtio_device *d = m->device;
        const struct virtq *q = selected(m);
        switch (offset) {
        case M_MAGIC:
                return MAGIC;
        case M_VERSION:
                return VERSION;
        case M_DEVICE:
                return d->id;
        case M_VENDOR:
                return VENDOR;
        case M_FEATURES:
                return virtio_features_half(d, m->features_select);
        case M_QUEUE_SIZE_MAX:
                return q ? q->size_max : 0;
        case M_QUEUE_READY:
                return q && q->ready;
        case M_INTERRUPTS:
                return interrupts(m);
        case M_STATUS:
                return atomic_load(&d->status);
        case M_SHARED_LENGTH:
        case M_SHARED_LENGTH + 4:
        case M_SHARED_BASE:
        case M_SHARED_BASE + 4:
                return UINT32_MAX;
        case M_GENERATION:
                return atomic_load(&d->generation);
        default:
                return 0;
        }
}

static void set_status(struct virtio_mmio *m, uint8_t status)
{
        virtio_set_status(m->device, status);
        if (status)
                return;
        m->queue_select = m->features_select = m->ack_select = 0;
        change_interrupts(m, 0, UINT32_MAX);
}

static void set_half(struct gpa *address, bool high, uint32_t value)
{
        unsigned shift = high ? 32 : 0;
        address->value = (address->value & ~(0xffffffffull << shift)) | (uint64_t)value << shift;
}

static void queue_write(struct virtio_mmio *m, struct virtq *q, uint64_t offset, uint32_t value)
{
        if (offset == M_QUEUE_READY)
                virtio_set_ready(m->device, m->queue_select, value & 1);
        if (q->ready || atomic_load(&m->device->status) & VIRTIO_STATUS_DRIVER_OK)
                return; /* fixed while it is in use */
        switch (offset) {
        case M_QUEUE_SIZE:
                q->size = (uint16_t)value;
                break;
        case M_DESCRIPTORS:
        case M_DESCRIPTORS + 4:
                set_half(&q->descriptors, offset != M_DESCRIPTORS, value);
                break;
        case M_AVAILABLE:
        case M_AVAILABLE + 4:
                set_half(&q->available, offset != M_AVAILABLE, value);
                break;
        case M_USED:
        case M_USED + 4:
                set_half(&q->used, offset != M_USED, value);
                break;
        default:
                break;
        }
}

static void register_write(struct virtio_mmio *m, uint64_t offset, uint32_t value)
{
        struct virtio_device *d = m->device;
        struct virtq *q = selected(m);
        switch (offset) {
        case M_FEATURES_SELECT:
                m->features_select = value;
                break;
        case M_ACK:
                virtio_ack_half(d, m->ack_select, value);
                break;
        case M_ACK_SELECT:
                m->ack_select = value;
                break;
        case M_QUEUE_SELECT:
                m->queue_select = value;
                break;
        case M_NOTIFY:
                virtio_notified(d, value);
                break;
        case M_INTERRUPTS_ACK:
                change_interrupts(m, 0, value);
                break;
        case M_STATUS:
                set_status(m, (uint8_t)value);
                break;
        default:
                if (q)
                        queue_write(m, q, offset, value);
                break;
        }
}

/* Registers are words; the device's configuration is read as it is laid out. The device's
 * lock is held. */
static uint64_t page_read(void *device, uint64_t offset, unsigned size)
{
        struct virtio_mmio *m = device;
        if (offset >= M_CONFIG)
                return virtio_config_read(m->device, (unsigned)(offset - M_CONFIG), size);
        return size == 4 ? register_read(m, offset) : 0;
}

static void page_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
        struct virtio_mmio *m = device;
        if (offset >= M_CONFIG)
                virtio_config_write(m->device, (unsigned)(offset - M_CONFIG), size, value);
        else if (size == 4)
                register_write(m, offset, (uint32_t)value);
}

static const struct bus_ops page_bus = { page_read, page_write };

/* ---- snapshots ---- */

void virtio_mmio_save(struct virtio_mmio *m, struct state_writer *w)
{
        state_put(w, (uint8_t)m->place, 1);
        state_put(w, m->features_select, 4);
        state_put(w, m->ack_select, 4);
        state_put(w, m->queue_select, 4);
        state_put(w, (uint8_t)interrupts(m), 1);
}

int virtio_mmio_load(struct virtio_mmio *m, struct state_section *s, struct err *err)
{
        uint8_t place = state_get(s, 1);
        if (place != m->place)
                return state_refuse(s, err, "is of a device in MMIO place %u, here it is in %u",
                                    place, m->place);
        m->features_select = state_get(s, 4);
        m->ack_select = state_get(s, 4);
        m->queue_select = state_get(s, 4);
        change_interrupts(m, state_get(s, 1) & (ISR_QUEUE | ISR_CONFIG), UINT32_MAX);
        return 0;
}

/* ---- places ---- */

static void destroy(struct device *device)
{
        struct virtio_mmio_places *p = container_of(device, struct virtio_mmio_places, device);
        p->machine->mmio_places = NULL;
        pthread_mutex_destroy(&p->lock);
        free(p);
}

int virtio_mmio_create(struct machine *machine, struct err *err)
{
        struct virtio_mmio_places *p = new0(struct virtio_mmio_places);
        (void)err;
        p->machine = machine;
        pthread_mutex_init(&p->lock, NULL);
        machine_add_device(machine, &p->device, "virtio-mmio", destroy);
        p->device.state = &state_nothing; /* places are their devices' */
        machine->mmio_places = p;
        return 0;
}

unsigned virtio_mmio_length(const struct machine *machine)
{
        return machine->mmio_places ? machine->mmio_places->length : 0;
}

static uint64_t address_of(const struct virtio_mmio *m)
{
        return LAYOUT_VIRTIO_MMIO + m->place * LAYOUT_VIRTIO_MMIO_STEP;
}

int virtio_mmio_add(struct virtio_device *device, struct virtio_mmio **ret, struct err *err)
{
        struct virtio_mmio_places *p = device->machine->mmio_places;
        if (p->length == PLACES)
                return err_plain(err, ENOSPC, "%s: all %d places for virtio devices are taken",
                                 device->name, PLACES);
        struct virtio_mmio *m = new0(struct virtio_mmio);
        m->device = device;
        m->places = p;
        m->place = p->length;
        const struct bus_region page = { address_of(m), LAYOUT_VIRTIO_MMIO_STEP,
                                         &page_bus,     m,
                                         &device->lock, device->name };
        int r = bus_add(&device->machine->mmio, &page, err);
        if (r < 0) {
                free(m);
                return r;
        }
        pthread_mutex_lock(&p->lock);
        p->at[p->length++] = m;
        pthread_mutex_unlock(&p->lock);
        device->transport = (struct virtio_transport){ interrupt, m };
        *ret = m;
        return 0;
}

void virtio_mmio_remove(struct virtio_mmio *m)
{
        if (!m)
                return;
        bus_remove(&m->device->machine->mmio, m, address_of(m));
        pthread_mutex_lock(&m->device->lock);
        virtio_set_status(m->device, 0);
        m->device->transport = (struct virtio_transport){ 0 };
        pthread_mutex_unlock(&m->device->lock);
        change_interrupts(m, 0, UINT32_MAX);
        pthread_mutex_lock(&m->places->lock);
        m->places->at[m->place] = NULL;
        pthread_mutex_unlock(&m->places->lock);
        free(m);
}
