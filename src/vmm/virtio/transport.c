/* Which transport a device is put on. */
#include "vmm/virtio/device.h"

int virtio_add(struct virtio_device *d, unsigned slot, struct err *err)
{
        return !slot && d->machine->mmio_places ? virtio_mmio_add(d, &d->mmio, err)
                                                : virtio_pci_add(d, slot, &d->pci, err);
}

void virtio_remove(struct virtio_device *d)
{
        virtio_pci_remove(d->pci);
        virtio_mmio_remove(d->mmio);
        d->pci = NULL;
        d->mmio = NULL;
}
