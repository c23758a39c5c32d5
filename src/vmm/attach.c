/* Devices for a machine that runs: what they need of the host comes as a descriptor. */
#include <errno.h>
#include <string.h>

#include "base/auto.h"
#include "vmm/hotplug/hotplug.h"
#include "vmm/virtio/blk.h"
#include "vmm/virtio/tap.h"
#include "vmm/vm.h"

static int make_disk(struct vm *vm, const struct hotplug_place *place, const struct vm_disk *d,
                     int *fd, struct err *err)
{
        const struct disk_options image = {
                .path = d->path, .format = d->format, .read_only = d->read_only, .alone = true
        };
        const struct blk_options options = { d->serial, d->iops, d->bytes_per_second, place->slot,
                                             place->disk };
        struct disk *disk = NULL;
        int r = disk_adopt(*fd, &image, &disk, err);
        if (r < 0)
                return r;
        (void)take_fd(*fd);
        return virtio_blk_create(vm->machine, disk, &options, err);
}

static int make_network(struct vm *vm, const struct hotplug_place *place,
                        const struct vm_network *n, const int *fd, struct err *err)
{
        struct net_options options = { .fds = fd,
                                       .pairs = 1,
                                       .mtu = n->mtu,
                                       .bytes_per_s = n->bytes_per_second,
                                       .slot = place->slot,
                                       .spare = place->net };
        (void)net_parse_mac(n->mac, options.mac); /* checked before */
        int r = tap_check(*fd, n->tap, err);
        return r < 0 ? r : virtio_net_create(vm->machine, &options, err);
}

int vm_attach(struct vm *vm, const char *name, const struct vm_attachment *what, int fd,
              struct err *err)
{
        auto_fd taken = fd;
        struct machine *m = vm->machine;
        struct hotplug_place place;
        const struct device *last = machine_last_device(m);
        int r = hotplug_find_place(vm->hotplug, name, &place, err);
        if (r < 0)
                return r;
        r = what->disk ? make_disk(vm, &place, what->disk, &taken, err)
                       : make_network(vm, &place, what->network, &taken, err);
        struct device *device = machine_last_device(m);
        if (r < 0 && device != last)
                machine_remove_device(m, device); /* half made */
        if (r < 0)
                return r;
        hotplug_plug(vm->hotplug, &place, name, what->disk ? "disk" : "network", device,
                     take_fd(taken));
        return 0;
}
