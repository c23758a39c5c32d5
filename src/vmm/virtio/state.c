/* A virtio device in a snapshot: see device.h.
 *
 * What a driver may write into registers at any time is taken as it is, for the device meets
 * it again as if the driver had; what a device checks when the driver sets it is checked here. */
#include <errno.h>
#include <string.h>

#include "base/str.h"
#include "vmm/snapshot/state.h"
#include "vmm/virtio/device.h"

enum { ON_NOTHING, ON_PCI, ON_MMIO };
static const char *const transports[] = { "no transport", "PCI", "MMIO" };

enum { QUEUE_READY = 1, QUEUE_SIGNALLED = 2, QUEUE_LOST = 4 };

static uint8_t transport_of(const struct virtio_device *d)
{
        return d->pci ? ON_PCI : d->mmio ? ON_MMIO : ON_NOTHING;
}

/* ---- saving ---- */

static void save_queue(const struct virtq *q, struct state_writer *w)
{
        uint8_t flags = (uint8_t)((q->ready ? QUEUE_READY : 0) |
                                  (q->signalled_valid ? QUEUE_SIGNALLED : 0) |
                                  (q->lost ? QUEUE_LOST : 0));
        state_put(w, flags, 1);
        state_put(w, q->size, 2);
        state_put(w, q->descriptors.value, 8);
        state_put(w, q->available.value, 8);
        state_put(w, q->used.value, 8);
        state_put(w, q->next_available, 2);
        state_put(w, q->next_used, 2);
        state_put(w, q->signalled, 2);
}

static void save_transport(struct virtio_device *d, struct state_writer *w)
{
        if (d->pci)
                virtio_pci_save(d->pci, w);
        else if (d->mmio)
                virtio_mmio_save(d->mmio, w);
}

static int save(struct device *device, struct state_writer *w, struct err *err)
{
        struct virtio_device *d = container_of(device, struct virtio_device, device);
        pthread_mutex_lock(&d->lock);
        state_put(w, (uint8_t)d->id, 1);
        state_put(w, transport_of(d), 1);
        state_put(w, d->features, 8);
        state_put(w, d->acked, 8);
        state_put(w, (uint8_t)atomic_load(&d->status), 1);
        state_put(w, atomic_load(&d->generation), 4);
        state_put(w, (uint8_t)d->queues_length, 1);
        for (unsigned i = 0; i < d->queues_length; i++)
                save_queue(&d->queues[i], w);
        state_put(w, (uint8_t)d->config_size, 1);
        state_put_bytes(w, d->config, d->config_size);
        save_transport(d, w);
        int r = d->ops->save ? d->ops->save(d, w, err) : 0;
        pthread_mutex_unlock(&d->lock);
        return r;
}

/* ---- loading ---- */

/* That it is the same device, built in the same way. */
static int load_identity(const struct virtio_device *d, struct state_section *s, struct err *err)
{
        uint8_t id = state_get(s, 1), transport = state_get(s, 1);
        uint64_t features = state_get(s, 8);
        if (id != d->id)
                return state_refuse(s, err, "is of a virtio device %u, where this machine has a %u",
                                    id, d->id);
        if (transport != transport_of(d))
                return state_refuse(s, err, "is of a device on %s, where this machine has it on %s",
                                    transport < ELEMENTS(transports) ? transports[transport] : "?",
                                    transports[transport_of(d)]);
        if (features != d->features)
                return state_refuse(
                        s, err,
                        "has a device that offers 0x%llx, this machine's offers 0x%llx: "
                        "give it the same options",
                        (unsigned long long)features, (unsigned long long)d->features);
        return 0;
}

static int load_agreement(struct virtio_device *d, struct state_section *s, struct err *err)
{
        d->acked = state_get(s, 8);
        uint8_t status = state_get(s, 1);
        atomic_store(&d->generation, state_get(s, 4));
        if (status & VIRTIO_STATUS_DRIVER_OK && !(status & VIRTIO_STATUS_FEATURES_OK))
                return state_refuse(s, err, "has a driver that runs but has agreed on nothing");
        if (status & VIRTIO_STATUS_FEATURES_OK && !virtio_agreed(d))
                return state_refuse(s, err, "has a driver that took 0x%llx of 0x%llx",
                                    (unsigned long long)d->acked, (unsigned long long)d->features);
        atomic_store(&d->status, status);
        return 0;
}

static int load_queue(struct virtio_device *d, unsigned index, struct state_section *s,
                      struct err *err)
{
        struct virtq *q = &d->queues[index];
        uint8_t flags = state_get(s, 1);
        virtq_reset(q);
        q->size = state_get(s, 2);
        q->descriptors = gpa(state_get(s, 8));
        q->available = gpa(state_get(s, 8));
        q->used = gpa(state_get(s, 8));
        q->next_available = state_get(s, 2);
        q->next_used = state_get(s, 2);
        q->signalled = state_get(s, 2);
        q->signalled_valid = flags & QUEUE_SIGNALLED;
        q->event_index = atomic_load(&d->status) & VIRTIO_STATUS_DRIVER_OK &&
                         d->acked & VIRTIO_RING_F_EVENT_IDX;
        if (flags & QUEUE_READY && virtq_start(q) < 0)
                return state_refuse(s, err, "has queue %u of %u entries outside of the memory",
                                    index, q->size);
        q->lost = flags & QUEUE_LOST;
        return 0;
}

static int load_queues(struct virtio_device *d, struct state_section *s, struct err *err)
{
        uint8_t length = state_get(s, 1);
        if (length != d->queues_length)
                return state_refuse(s, err, "has %u queues, this machine's device has %u", length,
                                    d->queues_length);
        int result = 0;
        for (unsigned i = 0; result == 0 && i < length; i++)
                result = load_queue(d, i, s, err);
        return result;
}

static int load_config(struct virtio_device *d, struct state_section *s, struct err *err)
{
        uint8_t config[VIRTIO_CONFIG_SIZE], size = state_get(s, 1);
        if (size != d->config_size)
                return state_refuse(s, err,
                                    "has %u bytes of configuration, this machine's device %u", size,
                                    d->config_size);
        state_get_bytes(s, config, size);
        int result = d->ops->config_loaded ? d->ops->config_loaded(d, config, s, err) : 0;
        if (result < 0)
                return result;
        for (unsigned i = 0; i < size; i++)
                if (config[i] != d->config[i])
                        return state_refuse(
                                s, err,
                                "has a device of another configuration (byte %u is 0x%02x,"
                                " here 0x%02x): give it the same options",
                                i, config[i], d->config[i]);
        return 0;
}

static int load_transport(struct virtio_device *d, struct state_section *s, struct err *err)
{
        if (d->pci)
                return virtio_pci_load(d->pci, s, err);
        return d->mmio ? virtio_mmio_load(d->mmio, s, err) : 0;
}

/* Lock held. */
static int load_all(struct virtio_device *d, struct state_section *s, struct err *err)
{
        int result = load_identity(d, s, err);
        if (result == 0)
                result = load_agreement(d, s, err);
        if (result == 0)
                result = load_queues(d, s, err);
        if (result == 0)
                result = load_config(d, s, err);
        if (result == 0)
                result = load_transport(d, s, err);
        if (result == 0 && d->ops->load)
                result = d->ops->load(d, s, err);
        return result < 0 ? result : state_end(s, err);
}

static int load(struct device *device, struct state_section *s, struct err *err)
{
        struct virtio_device *d = container_of(device, struct virtio_device, device);
        pthread_mutex_lock(&d->lock);
        int result = load_all(d, s, err);
        unsigned status = atomic_load(&d->status);
        if (result < 0)
                atomic_store(&d->status, 0); /* nothing was started */
        else if (status & VIRTIO_STATUS_DRIVER_OK && d->ops->start)
                d->ops->start(d);
        bool broke = result == 0 && (atomic_load(&d->status) & ~status);
        if (broke)
                result = state_refuse(s, err, "cannot go on: %s", err_text(&d->broken));
        pthread_mutex_unlock(&d->lock);
        return result;
}

const struct state_ops virtio_state = { 1, save, load };
