/* virtio console, one port (VIRTIO 1.2, section 5.3): hvc0 in a Linux guest. */
#pragma once

#include "vmm/machine.h"

/* Descriptors may be -1; they are dup'ed. */
int virtio_console_create(struct machine *machine, int in_fd, int out_fd, struct err *err);
