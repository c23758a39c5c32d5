/* The bus itself, for the files of this part. */
#pragma once

#include "vmm/pci/pci.h"

#define PCI_COMMAND 0x04 /* its offset in the configuration */

struct pci {
        struct device device;
        struct machine *machine;
        pthread_mutex_t lock;  /* configuration */
        pthread_mutex_t lines; /* INTx, and the slots for who holds only this one; innermost */
        struct pci_function *slots[PCI_SLOTS];
        struct pci_function bridge;
        uint32_t address; /* port 0xcf8 */
        uint64_t window_next;
        unsigned kept;                           /* slots at the end, for later */
        atomic_uint_fast64_t messages, prepared; /* MSI-X sent, and of these by a route */
};

/* Where the BARs answer follows the configuration; its lock held. */
void pci_map_bars(struct pci_function *function);
/* The line of a slot follows its functions. */
void pci_update_line(struct pci *pci, unsigned slot);
/* What masks MSI-X has changed. */
void pci_msix_unmasked(struct pci_function *function);

struct state_ops;
extern const struct state_ops pci_state; /* state.c */
