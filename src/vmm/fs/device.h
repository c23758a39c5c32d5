/* virtio file system device (VIRTIO 1.2, section 5.11): carries a guest's FUSE
 * requests to a server. Each of its two queues has a thread, so that a FORGET
 * never waits for a slow read; no DAX window, no notifications.
 *
 * A reset of the device ends what the guest held of the server. */
#pragma once

#include "vmm/fs/server.h"
#include "vmm/machine.h"

#define FS_TAG_MAX 36 /* bytes; by which the guest mounts it */

/* The server is the device's from here on, also on failure. */
int virtio_fs_create(struct machine *machine, const char *tag, struct fs_server *server,
                     struct err *err);
