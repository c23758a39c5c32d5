/* A 16550A serial port with its FIFOs, on a stream.
 *
 * Source: National Semiconductor PC16550D data sheet. Line speed, parity and
 * break are stored and have no effect. */
#pragma once

#include "vmm/machine.h"

#define SERIAL_PORTS 8

/* in_fd or out_fd may be -1. */
int serial_create(struct machine *machine, uint16_t port, unsigned gsi, int in_fd, int out_fd,
                  struct err *err);
