/* virtio entropy device (VIRTIO 1.2, section 5.4), fed by getrandom(). */
#pragma once

#include "vmm/machine.h"

int virtio_rng_create(struct machine *machine, struct err *err);
