/* One PCI bus: a host bridge, up to 31 functions (one per slot), configuration
 * by ECAM and by ports 0xcf8/0xcfc, memory BARs, MSI-X and INTx.
 *
 * A device embeds a `struct pci_function`, fills in its identity, BARs and
 * capabilities, and calls pci_add(), which gives it a slot and addresses inside
 * the window (there is no firmware to do it). A guest may move BARs and switch
 * decoding; the bus regions follow.
 *
 * Threads: configuration is serialised by the bus's lock, which is outermost: a
 * device's config callbacks run under it and may take the device's own.
 * pci_interrupt() and pci_msix_fire() may be called by any thread, a device's
 * lock held.
 *
 * Source: PCI Local Bus Specification 3.0, PCI Express Base 3.0 section 7.2.2.
 */
#pragma once

#include "vmm/machine.h"

#define PCI_SLOTS       32
#define PCI_BARS        6
#define PCI_CONFIG_SIZE 256
#define PCI_MSIX_MAX    64

struct pci_bar {
        uint64_t size; /* a power of two, 0: none; 64-bit memory, takes two places */
        const struct bus_ops *ops;
        void *device;
        uint64_t mapped; /* where it answers now; 0: nowhere */
};

struct pci_msix_entry {
        uint64_t address;
        uint32_t data, control; /* control bit 0: masked */
        bool pending;
        struct irq_route route;
};

struct pci_function {
        struct pci *pci;
        unsigned slot;
        const char *name;
        uint8_t config[PCI_CONFIG_SIZE];
        uint8_t writable[PCI_CONFIG_SIZE]; /* bits the guest may change */
        struct pci_bar bars[PCI_BARS];
        unsigned capabilities_end; /* where the next capability goes */
        uint8_t last_capability;

        unsigned msix_capability; /* offset; 0: none */
        pthread_mutex_t msix_lock;
        struct pci_msix_entry msix[PCI_MSIX_MAX];
        unsigned msix_length;
        atomic_bool line; /* INTx as the device drives it */
        /* Told of writes to capabilities' own bytes; may be NULL. */
        void (*config_read)(struct pci_function *f, unsigned offset, unsigned size_bytes);
        void (*config_written)(struct pci_function *f, unsigned offset, unsigned size_bytes);
};

int pci_create(struct machine *machine, struct err *err);

struct pci_identity {
        uint16_t vendor, device, subsystem_vendor, subsystem;
        uint8_t revision;
        uint32_t class_code; /* 24 bits */
};
void pci_function_init(struct pci_function *function, const char *name,
                       const struct pci_identity *identity);
void pci_function_finish(struct pci_function *function);
/* `size` is a power of two, at least 4 KiB; bar 0, 2 or 4. */
void pci_function_bar(struct pci_function *function, unsigned bar, uint64_t size,
                      const struct bus_ops *ops, void *device);
/* Appends a capability of `size` bytes and returns its offset. `body` follows the
 * two bytes of the header. */
unsigned pci_function_capability(struct pci_function *function, uint8_t id, const void *body,
                                 size_t size);
/* MSI-X with its table at `offset` of `bar` and the pending bits behind it: the
 * device passes accesses of that range on to pci_msix_read()/write(). */
void pci_function_msix(struct pci_function *function, unsigned length, unsigned bar,
                       uint32_t offset);
#define PCI_MSIX_SIZE(length) ((length)*16ull + 16)
uint64_t pci_msix_read(struct pci_function *function, uint64_t offset, unsigned size_bytes);
void pci_msix_write(struct pci_function *function, uint64_t offset, unsigned size_bytes,
                    uint64_t value);

/* The last `length` slots are for what comes while the guest runs. */
int pci_keep_slots(struct machine *machine, unsigned length, struct err *err);
/* Gives it the first free slot and addresses; or a kept `slot`, and none: then the guest
 * does it. -ENOSPC. */
int pci_add(struct machine *machine, struct pci_function *function, unsigned slot, struct err *err);
void pci_remove(struct pci_function *function);
/* (The bus is saved as a whole: configuration, MSI-X and INTx of all slots. A device saves what
 * is its own, and is loaded after it.) */

bool pci_msix_enabled(const struct pci_function *function);
void pci_msix_fire(struct pci_function *function, unsigned vector);
/* Its requester id. */
static inline uint16_t pci_source(const struct pci_function *function)
{
        return (uint16_t)(function->slot << 3);
}
/* The level of INTA, as the device wants it. */
void pci_interrupt(struct pci_function *function, bool raised);
