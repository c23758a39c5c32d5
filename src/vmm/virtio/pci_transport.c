/* virtio over PCI, modern (VIRTIO 1.2, section 4.1): everything in BAR 0. */
#include <string.h>

#include "base/auto.h"
#include "base/str.h"
#include "vmm/pci/pci.h"
#include "vmm/snapshot/state.h"
#include "vmm/virtio/device.h"

#define BAR_SIZE      0x8000
#define AT_COMMON     0x0000
#define AT_ISR        0x1000
#define AT_CONFIG     0x2000
#define AT_NOTIFY     0x3000
#define AT_MSIX       0x4000
#define PART_SIZE     0x1000
#define NOTIFY_STRIDE 4
#define NO_VECTOR     0xffff
#define VENDOR        0x1af4
#define DEVICE_BASE   0x1040

enum { CAP_COMMON = 1, CAP_NOTIFY, CAP_ISR, CAP_DEVICE, CAP_PCI };

#define ISR_QUEUE  1
#define ISR_CONFIG 2

struct virtio_pci {
        struct pci_function function;
        struct virtio_device *device;
        uint32_t feature_select, ack_select;
        uint16_t queue_select;
        /* Read by the device's threads. */
        _Atomic uint16_t config_vector, vectors[VIRTIO_QUEUES];
        atomic_uint isr;
        unsigned window; /* the capability through which BARs are reached by config space */
};

/* Offsets of the common configuration. */
enum {
        C_FEATURE_SELECT = 0,
        C_FEATURE = 4,
        C_ACK_SELECT = 8,
        C_ACK = 12,
        C_CONFIG_VECTOR = 16,
        C_QUEUES = 18,
        C_STATUS = 20,
        C_GENERATION = 21,
        C_SELECT = 22,
        C_SIZE = 24,
        C_VECTOR = 26,
        C_ENABLE = 28,
        C_NOTIFY_OFF = 30,
        C_DESCRIPTORS = 32,
        C_AVAILABLE = 40,
        C_USED = 48,
};

static void interrupt(void *arg, int queue)
{
        struct virtio_pci *p = arg;
        if (pci_msix_enabled(&p->function)) {
                uint16_t vector = queue < 0 ? p->config_vector : p->vectors[queue];
                if (vector != NO_VECTOR)
                        pci_msix_fire(&p->function, vector);
                return;
        }
        atomic_fetch_or(&p->isr, queue < 0 ? ISR_CONFIG : ISR_QUEUE);
        pci_interrupt(&p->function, true);
}

static uint64_t half(uint64_t value, uint64_t offset, uint64_t base)
{
        return value >> 8 * (offset - base);
}

static uint64_t queue_read(const struct virtio_pci *p, const struct virtq *q, uint64_t offset)
{
        switch (offset) {
        case C_SIZE:
                return q->size;
        case C_VECTOR:
                return p->vectors[p->queue_select];
        case C_ENABLE:
                return q->ready;
        case C_NOTIFY_OFF:
                return p->queue_select;
        case C_DESCRIPTORS:
        case C_DESCRIPTORS + 4:
                return half(q->descriptors.value, offset, C_DESCRIPTORS);
        case C_AVAILABLE:
        case C_AVAILABLE + 4:
                return half(q->available.value, offset, C_AVAILABLE);
        case C_USED:
        case C_USED + 4:
                return half(q->used.value, offset, C_USED);
        default:
                return 0;
        }
}

static uint64_t common_read(struct virtio_pci *p, uint64_t offset)
{
        struct virtio_device *d = p->device;
        switch (offset) {
        case C_FEATURE_SELECT:
                return p->feature_select;
        case C_FEATURE:
                return virtio_features_half(d, p->feature_select);
        case C_ACK_SELECT:
                return p->ack_select;
        case C_ACK:
                return p->ack_select < 2 ? (uint32_t)(d->acked >> 32 * p->ack_select) : 0;
        case C_CONFIG_VECTOR:
                return p->config_vector;
        case C_QUEUES:
                return d->queues_length;
        case C_STATUS:
                return atomic_load(&d->status);
        case C_GENERATION:
                return atomic_load(&d->generation) & 0xff;
        case C_SELECT:
                return p->queue_select;
        default:
                return p->queue_select < d->queues_length
                               ? queue_read(p, &d->queues[p->queue_select], offset)
                               : 0;
        }
}

static uint16_t vector(const struct virtio_pci *p, uint64_t value)
{
        return value < p->function.msix_length ? (uint16_t)value : NO_VECTOR;
}

static void set_half(struct gpa *address, uint64_t offset, uint64_t base, unsigned size,
                     uint64_t value)
{
        if (size == 8)
                address->value = value;
        else if (offset == base)
                address->value = (address->value & ~0xffffffffull) | (uint32_t)value;
        else
                address->value = (uint32_t)address->value | value << 32;
}

static void queue_write(struct virtio_pci *p, struct virtq *q, uint64_t offset, unsigned size,
                        uint64_t value)
{
        if (offset == C_VECTOR)
                p->vectors[p->queue_select] = vector(p, value);
        if (offset == C_ENABLE && value)
                virtio_set_ready(p->device, p->queue_select, true);
        if (q->ready || atomic_load(&p->device->status) & VIRTIO_STATUS_DRIVER_OK)
                return; /* fixed while it is in use */
        if (offset == C_SIZE)
                q->size = (uint16_t)value;
        else if (offset >= C_DESCRIPTORS && offset < C_AVAILABLE)
                set_half(&q->descriptors, offset, C_DESCRIPTORS, size, value);
        else if (offset >= C_AVAILABLE && offset < C_USED)
                set_half(&q->available, offset, C_AVAILABLE, size, value);
        else if (offset >= C_USED && offset < C_USED + 8)
                set_half(&q->used, offset, C_USED, size, value);
}

static void forget_vectors(struct virtio_pci *p)
{
        p->config_vector = NO_VECTOR;
        for (unsigned i = 0; i < VIRTIO_QUEUES; i++)
                p->vectors[i] = NO_VECTOR;
}

static void set_status(struct virtio_pci *p, uint8_t status)
{
        virtio_set_status(p->device, status);
        if (status)
                return;
        forget_vectors(p);
        p->queue_select = 0;
        p->feature_select = p->ack_select = 0;
        atomic_store(&p->isr, 0);
        pci_interrupt(&p->function, false);
}

static void common_write(struct virtio_pci *p, uint64_t offset, unsigned size, uint64_t value)
{
        struct virtio_device *d = p->device;
        switch (offset) {
        case C_FEATURE_SELECT:
                p->feature_select = (uint32_t)value;
                break;
        case C_ACK_SELECT:
                p->ack_select = (uint32_t)value;
                break;
        case C_ACK:
                virtio_ack_half(d, p->ack_select, (uint32_t)value);
                break;
        case C_CONFIG_VECTOR:
                p->config_vector = vector(p, value);
                break;
        case C_STATUS:
                set_status(p, (uint8_t)value);
                break;
        case C_SELECT:
                p->queue_select = (uint16_t)value;
                break;
        default:
                if (p->queue_select < d->queues_length)
                        queue_write(p, &d->queues[p->queue_select], offset, size, value);
                break;
        }
}

static uint64_t bar_read(void *device, uint64_t offset, unsigned size)
{
        struct virtio_pci *p = device;
        uint64_t value = 0;
        if (offset >= AT_MSIX)
                return pci_msix_read(&p->function, offset - AT_MSIX, size);
        if (offset == AT_ISR) {
                value = atomic_exchange(&p->isr, 0);
                pci_interrupt(&p->function, false);
                return value;
        }
        pthread_mutex_lock(&p->device->lock);
        if (offset < AT_COMMON + PART_SIZE)
                value = common_read(p, offset - AT_COMMON);
        else if (offset >= AT_CONFIG && offset < AT_CONFIG + PART_SIZE)
                value = virtio_config_read(p->device, (unsigned)(offset - AT_CONFIG), size);
        pthread_mutex_unlock(&p->device->lock);
        return value;
}

static void bar_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
        struct virtio_pci *p = device;
        if (offset >= AT_MSIX) {
                pci_msix_write(&p->function, offset - AT_MSIX, size, value);
                return;
        }
        pthread_mutex_lock(&p->device->lock);
        if (offset >= AT_NOTIFY)
                virtio_notified(p->device, (unsigned)(offset - AT_NOTIFY) / NOTIFY_STRIDE);
        else if (offset < AT_COMMON + PART_SIZE)
                common_write(p, offset - AT_COMMON, size, value);
        else if (offset >= AT_CONFIG && offset < AT_CONFIG + PART_SIZE)
                virtio_config_write(p->device, (unsigned)(offset - AT_CONFIG), size, value);
        pthread_mutex_unlock(&p->device->lock);
}

static const struct bus_ops bar_bus = { bar_read, bar_write };

/* The window capability: offset and length name a place in the BAR, its data
 * bytes are that place. */
static bool window_place(const struct virtio_pci *p, unsigned offset, uint32_t *ret_at,
                         uint32_t *ret_size)
{
        const uint8_t *c = p->function.config + p->window;
        memcpy(ret_at, c + 8, 4);
        memcpy(ret_size, c + 12, 4);
        return offset == p->window + 16 && c[4] == 0 &&
               (*ret_size == 1 || *ret_size == 2 || *ret_size == 4) && *ret_at < BAR_SIZE &&
               *ret_at % *ret_size == 0;
}

static void config_read(struct pci_function *f, unsigned offset, unsigned size)
{
        struct virtio_pci *p = container_of(f, struct virtio_pci, function);
        uint32_t at, length;
        (void)size;
        if (!window_place(p, offset, &at, &length))
                return;
        uint64_t value = bar_read(p, at, length);
        memcpy(f->config + p->window + 16, &value, 4);
}

static void config_written(struct pci_function *f, unsigned offset, unsigned size)
{
        struct virtio_pci *p = container_of(f, struct virtio_pci, function);
        uint32_t at, length, value;
        (void)size;
        if (!window_place(p, offset, &at, &length))
                return;
        memcpy(&value, f->config + p->window + 16, 4);
        bar_write(p, at, length, value);
}

static unsigned add_capability(struct pci_function *f, uint8_t type, uint32_t offset, uint32_t size,
                               uint32_t extra, unsigned extra_size)
{
        uint8_t body[18] = { (uint8_t)(16 + extra_size), type };
        memcpy(body + 6, &offset, 4);
        memcpy(body + 10, &size, 4);
        memcpy(body + 14, &extra, 4);
        return pci_function_capability(f, 9, body, 14 + extra_size);
}

/* Class codes as a driver or a person looking at lspci expects them. */
static uint32_t class_of(enum virtio_id id)
{
        switch (id) {
        case VIRTIO_NET:
                return 0x020000;
        case VIRTIO_BLK:
                return 0x010000;
        case VIRTIO_CONSOLE:
                return 0x078000;
        case VIRTIO_FS:
                return 0x018000;
        default:
                return 0xff0000;
        }
}

/* ---- snapshots ---- */

void virtio_pci_save(const struct virtio_pci *p, struct state_writer *w)
{
        state_put(w, (uint8_t)p->function.slot, 1);
        state_put(w, p->feature_select, 4);
        state_put(w, p->ack_select, 4);
        state_put(w, p->queue_select, 2);
        state_put(w, (uint8_t)atomic_load(&p->isr), 1);
        state_put(w, p->config_vector, 2);
        for (unsigned i = 0; i < p->device->queues_length; i++)
                state_put(w, p->vectors[i], 2);
}

int virtio_pci_load(struct virtio_pci *p, struct state_section *s, struct err *err)
{
        uint8_t slot = state_get(s, 1);
        if (slot != p->function.slot)
                return state_refuse(s, err, "is of a device in PCI slot %u, here it is in slot %u",
                                    slot, p->function.slot);
        p->feature_select = state_get(s, 4);
        p->ack_select = state_get(s, 4);
        p->queue_select = state_get(s, 2);
        atomic_store(&p->isr, state_get(s, 1) & (ISR_QUEUE | ISR_CONFIG));
        p->config_vector = vector(p, state_get(s, 2));
        for (unsigned i = 0; i < p->device->queues_length; i++)
                p->vectors[i] = vector(p, state_get(s, 2));
        pci_interrupt(&p->function, atomic_load(&p->isr));
        return 0;
}

/* ---- building ---- */

int virtio_pci_add(struct virtio_device *device, unsigned slot, struct virtio_pci **ret,
                   struct err *err)
{
        struct virtio_pci *p = new0(struct virtio_pci);
        struct pci_function *f = &p->function;
        uint16_t id = (uint16_t)(DEVICE_BASE + device->id);
        p->device = device;
        forget_vectors(p);
        pci_function_init(
                f, device->name,
                &(struct pci_identity){ VENDOR, id, VENDOR, id, 1, class_of(device->id) });
        pci_function_bar(f, 0, BAR_SIZE, &bar_bus, p);
        pci_function_msix(f, device->queues_length + 1, 0, AT_MSIX);
        add_capability(f, CAP_COMMON, AT_COMMON, 56, 0, 0);
        add_capability(f, CAP_NOTIFY, AT_NOTIFY, NOTIFY_STRIDE * VIRTIO_QUEUES, NOTIFY_STRIDE, 4);
        add_capability(f, CAP_ISR, AT_ISR, 1, 0, 0);
        add_capability(f, CAP_DEVICE, AT_CONFIG, VIRTIO_CONFIG_SIZE, 0, 0);
        p->window = add_capability(f, CAP_PCI, 0, 0, 0, 4);
        memset(f->writable + p->window + 4, 0xff, 1);
        memset(f->writable + p->window + 8, 0xff, 12);
        f->config_read = config_read;
        f->config_written = config_written;
        int r = pci_add(device->machine, f, slot, err);
        if (r < 0) {
                pci_function_finish(f);
                free(p);
                return r;
        }
        device->dma.source = pci_source(f);
        device->transport = (struct virtio_transport){ interrupt, p };
        *ret = p;
        return 0;
}

void virtio_pci_remove(struct virtio_pci *p)
{
        if (!p)
                return;
        pci_remove(&p->function);
        pthread_mutex_lock(&p->device->lock);
        virtio_set_status(p->device, 0);
        p->device->transport = (struct virtio_transport){ 0 };
        pthread_mutex_unlock(&p->device->lock);
        pci_function_finish(&p->function);
        free(p);
}
