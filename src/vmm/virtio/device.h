/* A virtio device, whatever the transport.
 *
 * A device embeds a `struct virtio_device`, fills in what it is, and is put on
 * PCI or MMIO by virtio_add(). From then on the
 * transport calls the operations:
 *
 *   start    DRIVER_OK was set: queues are ready, `acked` is final
 *   stop     reset: returns when nothing touches the queues any more
 *   notify   the driver put something into a queue
 *   config_written   the driver wrote device configuration (already in `config`)
 *
 * All four are called on a vCPU's thread with the device's lock held. A device
 * that works on a thread of its own (virtio/worker.h) takes no lock of this kind
 * there, so that stop() can wait for it.
 *
 * A snapshot (vmm/snapshot/state.h) has what every device has (state.c: what was agreed on, queues,
 * configuration, transport) and what `save` of the operations adds. The machine stands meanwhile
 * and its workers are held: a request is either answered or still in its ring, from where the
 * machine that goes on takes it. Loading believes nothing: a state that no guest could have
 * brought about is refused.
 *
 * Source: VIRTIO 1.2, chapters 2, 3 and 4. Legacy and transitional drivers are
 * not served (VIRTIO_RING_F_VERSION_1 is required), nor packed rings.
 */
#pragma once

#include "vmm/machine.h"
#include "vmm/virtio/queue.h"

#define VIRTIO_QUEUES      17
#define VIRTIO_CONFIG_SIZE 64

#define VIRTIO_STATUS_ACKNOWLEDGE 1
#define VIRTIO_STATUS_DRIVER      2
#define VIRTIO_STATUS_DRIVER_OK   4
#define VIRTIO_STATUS_FEATURES_OK 8
#define VIRTIO_STATUS_NEEDS_RESET 64
#define VIRTIO_STATUS_FAILED      128

#define VIRTIO_RING_F_INDIRECT_DESC   (1ull << 28)
#define VIRTIO_RING_F_EVENT_IDX       (1ull << 29)
#define VIRTIO_RING_F_VERSION_1       (1ull << 32)
#define VIRTIO_RING_F_ACCESS_PLATFORM (1ull << 33) /* addresses go through the IOMMU */

enum virtio_id {
        VIRTIO_NET = 1,
        VIRTIO_BLK = 2,
        VIRTIO_CONSOLE = 3,
        VIRTIO_RNG = 4,
        VIRTIO_BALLOON = 5,
        VIRTIO_VSOCK = 19,
        VIRTIO_FS = 26,
};

struct state_ops;
struct state_section;
struct state_writer;
struct virtio_device;
struct virtio_pci;
struct virtio_mmio;

struct virtio_ops {
        void (*start)(struct virtio_device *device);
        void (*stop)(struct virtio_device *device);
        void (*notify)(struct virtio_device *device, unsigned queue);
        void (*config_written)(struct virtio_device *device, unsigned offset, unsigned size);
        /* Of snapshots; any may be NULL. save: what the device has beside; load: takes that, before
         * start() where a driver was there. */
        int (*save)(struct virtio_device *device, struct state_writer *writer, struct err *err);
        int (*load)(struct virtio_device *device, struct state_section *section, struct err *err);
        /* Takes over what of a snapshot's configuration is the guest's or may be another; what
         * then differs from the device's is refused. */
        int (*config_loaded)(struct virtio_device *device, uint8_t *config,
                             struct state_section *section, struct err *err);
};

struct virtio_transport {
        /* queue -1: the configuration changed */
        void (*interrupt)(void *arg, int queue);
        void *arg;
};

struct virtio_device {
        struct device device;
        struct machine *machine;
        enum virtio_id id;
        const char *name;
        const struct virtio_ops *ops;
        pthread_mutex_t lock;
        struct dma dma; /* of its queues */
        uint64_t features, acked;
        atomic_uint status;
        atomic_uint generation; /* of `config` */
        struct virtq queues[VIRTIO_QUEUES];
        unsigned queues_length;
        uint8_t config[VIRTIO_CONFIG_SIZE];
        unsigned config_size;
        struct virtio_transport transport;
        struct virtio_pci *pci; /* the one that it is on; else NULL */
        struct virtio_mmio *mmio;
        struct err broken; /* why it needs a reset */
};

/* `features` beside those of the ring and the version, which every device has. */
void virtio_init(struct virtio_device *device, struct machine *machine, enum virtio_id id,
                 const char *name, const struct virtio_ops *ops, uint64_t features);
void virtio_finish(struct virtio_device *device);
void virtio_queue(struct virtio_device *device, uint16_t size_max);

/* For the device. Thread-safe. */
void virtio_signal(struct virtio_device *device, unsigned queue); /* where the driver wants it */
void virtio_config_changed(struct virtio_device *device);
/* The guest does what no driver may: the device stops until it is reset. */
void virtio_broken(struct virtio_device *device, const char *what);
static inline bool virtio_live(struct virtio_device *device)
{
        unsigned s = atomic_load(&device->status);
        return s & VIRTIO_STATUS_DRIVER_OK && !(s & VIRTIO_STATUS_NEEDS_RESET);
}

/* For transports, with the device's lock held. */
void virtio_set_status(struct virtio_device *device, uint8_t status);
void virtio_set_ready(struct virtio_device *device, unsigned queue, bool ready);
/* Whether what the driver acknowledged is offered, and all that is needed. */
bool virtio_agreed(const struct virtio_device *device);
void virtio_notified(struct virtio_device *device, unsigned queue);
uint32_t virtio_features_half(const struct virtio_device *device, unsigned half);
void virtio_ack_half(struct virtio_device *device, unsigned half, uint32_t bits);
uint64_t virtio_config_read(const struct virtio_device *device, unsigned offset, unsigned size);
void virtio_config_write(struct virtio_device *device, unsigned offset, unsigned size,
                         uint64_t value);

extern const struct state_ops virtio_state;
/* Of its transport, with the device's lock held. */
void virtio_pci_save(const struct virtio_pci *pci, struct state_writer *writer);
int virtio_pci_load(struct virtio_pci *pci, struct state_section *section, struct err *err);
void virtio_mmio_save(struct virtio_mmio *mmio, struct state_writer *writer);
int virtio_mmio_load(struct virtio_mmio *mmio, struct state_section *section, struct err *err);

/* On the machine's transport: MMIO where virtio_mmio_create() was called, and PCI for kept
 * slots and otherwise. `slot` 0: the next free place. */
int virtio_add(struct virtio_device *device, unsigned slot, struct err *err);
/* Harmless where it was not added. */
void virtio_remove(struct virtio_device *device);

/* Puts the machine's virtio devices from here on to MMIO (VIRTIO 1.2, section 4.2). */
int virtio_mmio_create(struct machine *machine, struct err *err);
/* How many are there: from LAYOUT_VIRTIO_MMIO on, LAYOUT_VIRTIO_MMIO_STEP apart. */
unsigned virtio_mmio_length(const struct machine *machine);

/* transport.c's: PCI, modern, and MMIO. */
int virtio_pci_add(struct virtio_device *device, unsigned slot, struct virtio_pci **ret,
                   struct err *err);
void virtio_pci_remove(struct virtio_pci *pci);
int virtio_mmio_add(struct virtio_device *device, struct virtio_mmio **ret, struct err *err);
void virtio_mmio_remove(struct virtio_mmio *mmio);
