/* virtio block device (VIRTIO 1.2, section 5.2): a disk image as vda in a Linux guest.
 *
 * Read, write, flush (which the image takes to stable storage), discard, write
 * zeroes, and the serial number; read-only where the image is. One queue per
 * vCPU up to BLK_QUEUES, each with a thread that works its requests off in order.
 */
#pragma once

#include "vmm/block/disk.h"
#include "vmm/machine.h"

#define BLK_QUEUES     4
#define BLK_SERIAL_MAX 20

struct worker;

struct blk_options {
        const char *serial;                     /* at most BLK_SERIAL_MAX bytes; NULL is none */
        uint64_t operations_per_s, bytes_per_s; /* 0: no limit; shared by the queues */
        unsigned slot;                          /* a kept PCI slot; 0: the next free one */
        struct worker *spare; /* the thread of the one queue; NULL: makes its own */
};

/* The device owns `disk` from here on, also on failure. */
int virtio_blk_create(struct machine *machine, struct disk *disk, const struct blk_options *options,
                      struct err *err);
