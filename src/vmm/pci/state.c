/* The bus in and out of a snapshot. Of each function: what the guest could have written into its
 * configuration, its MSI-X table and its INTx. */
#include <string.h>

#include "base/str.h"
#include "vmm/pci/bus.h"
#include "vmm/snapshot/state.h"

static const struct state_field entry_fields[] = {
        STATE_FIELD(struct pci_msix_entry, address, UINT64_MAX),
        STATE_FIELD(struct pci_msix_entry, data, UINT32_MAX),
        STATE_FIELD(struct pci_msix_entry, control, 1),
        STATE_FIELD(struct pci_msix_entry, pending, 1),
};

static void save_function(struct pci_function *f, struct state_writer *w)
{
        state_put(w, f->slot, 1);
        state_put_bytes(w, f->config, 4); /* vendor and device */
        for (unsigned i = 0; i < PCI_CONFIG_SIZE; i++)
                state_put(w, f->config[i] & f->writable[i], 1);
        state_put(w, atomic_load(&f->line), 1);
        state_put(w, f->msix_length, 1);
        pthread_mutex_lock(&f->msix_lock);
        for (unsigned i = 0; i < f->msix_length; i++)
                state_put_fields(w, &f->msix[i], entry_fields, ELEMENTS(entry_fields));
        pthread_mutex_unlock(&f->msix_lock);
}

static int save(struct device *device, struct state_writer *w, struct err *err)
{
        struct pci *pci = container_of(device, struct pci, device);
        unsigned functions = 0;
        (void)err;
        pthread_mutex_lock(&pci->lock);
        for (unsigned i = 0; i < PCI_SLOTS; i++)
                functions += pci->slots[i] != NULL;
        state_put(w, pci->address, 4);
        state_put(w, functions, 1);
        for (unsigned i = 0; i < PCI_SLOTS; i++)
                if (pci->slots[i])
                        save_function(pci->slots[i], w);
        pthread_mutex_unlock(&pci->lock);
        return 0;
}

static int check_function(struct pci_function *f, struct state_section *s, struct err *err)
{
        unsigned slot = (unsigned)state_get(s, 1);
        uint8_t identity[4];
        state_get_bytes(s, identity, sizeof(identity));
        if (slot == f->slot && memcmp(identity, f->config, sizeof(identity)) == 0)
                return 0;
        return state_refuse(s, err,
                            "slot %u has device %02x%02x, where this machine has '%s' in slot %u; "
                            "restore it with the configuration that it was saved with",
                            slot, identity[3], identity[2], f->name, f->slot);
}

static int load_function(struct pci_function *f, struct state_section *s, struct err *err)
{
        int r = check_function(f, s, err);
        if (r < 0)
                return r;
        for (unsigned i = 0; i < PCI_CONFIG_SIZE; i++) {
                uint8_t byte = (uint8_t)state_get(s, 1), mask = f->writable[i];
                f->config[i] = (uint8_t)((f->config[i] & ~mask) | (byte & mask));
        }
        atomic_store(&f->line, state_get_max(s, "INTx", 1, 1));
        unsigned length = (unsigned)state_get(s, 1);
        if (length != f->msix_length)
                return state_refuse(s, err, "'%s' has %u vectors, where this machine's has %u",
                                    f->name, length, f->msix_length);
        for (unsigned i = 0; i < length; i++)
                state_get_fields(s, &f->msix[i], entry_fields, ELEMENTS(entry_fields));
        return 0;
}

static int load(struct pci *pci, struct state_section *s, struct err *err)
{
        unsigned functions = 0;
        pci->address = (uint32_t)state_get(s, 4);
        unsigned saved = (unsigned)state_get(s, 1);
        int r = 0;
        for (unsigned i = 0; i < PCI_SLOTS; i++)
                functions += pci->slots[i] != NULL;
        if (saved != functions)
                return state_refuse(s, err,
                                    "%u devices, where this machine has %u; restore it with the "
                                    "configuration that it was saved with",
                                    saved, functions);
        for (unsigned i = 0; r == 0 && i < PCI_SLOTS; i++)
                if (pci->slots[i])
                        r = load_function(pci->slots[i], s, err);
        return r < 0 ? r : state_end(s, err);
}

static int restore(struct device *device, struct state_section *s, struct err *err)
{
        struct pci *pci = container_of(device, struct pci, device);
        pthread_mutex_lock(&pci->lock);
        for (unsigned i = 0; i < PCI_SLOTS; i++) /* nowhere, lest one is in the other's way */
                if (pci->slots[i]) {
                        memset(pci->slots[i]->config + PCI_COMMAND, 0, 2);
                        pci_map_bars(pci->slots[i]);
                }
        int r = load(pci, s, err);
        for (unsigned i = 0; r == 0 && i < PCI_SLOTS; i++)
                if (pci->slots[i])
                        pci_map_bars(pci->slots[i]);
        for (unsigned i = 0; r == 0 && i < PCI_SLOTS; i++) {
                pci_update_line(pci, i);
                if (pci->slots[i] && pci->slots[i]->msix_capability)
                        pci_msix_unmasked(pci->slots[i]);
        }
        pthread_mutex_unlock(&pci->lock);
        return r;
}

const struct state_ops pci_state = { 1, save, restore };
