/* Devices for a machine that runs: what they need of the host comes as a descriptor. */
#include <errno.h>
#include <string.h>

#include "base/auto.h"
#include "vmm/block/disk.h"
#include "vmm/hotplug/hotplug.h"
#include "vmm/virtio/blk.h"
#include "vmm/virtio/tap.h"
#include "vmm/vm.h"

static int make_disk(struct vm *vm, const struct hotplug_place *place, const struct vm_disk *d,
                     struct disk_chain *files, struct err *err)
{
        const struct disk_options image = {
                .path = d->path, .format = d->format, .read_only = d->read_only, .given = files
        };
        const struct blk_options options = { d->serial, d->iops, d->bytes_per_second, place->slot,
                                             place->disk };
        struct disk *disk = NULL;
        int r = disk_open(&image, &disk, err);
        return r < 0 ? r : virtio_blk_create(vm->machine, disk, &options, err);
}

static int check_queues(const struct hotplug_place *place, const struct vm_network *n,
                        const struct disk_chain *files, struct err *err)
{
        unsigned pairs = n->queues ? n->queues : 1;
        if (pairs > place->pairs)
                return err_plain(err, EINVAL,
                                 "network '%s': %u queues, and the places of this machine are for "
                                 "%u; --hotplug-queues N makes them for up to %d",
                                 n->tap, pairs, place->pairs, NET_PAIRS);
        if (files->length != pairs)
                return err_plain(err, EINVAL,
                                 "network '%s': %u queues, and %u descriptors came; there is one "
                                 "for each",
                                 n->tap, pairs, files->length);
        return tap_check(files->fds, pairs, n->tap, err);
}

static int make_network(struct vm *vm, const struct hotplug_place *place,
                        const struct vm_network *n, const struct disk_chain *files, struct err *err)
{
        struct net_options options = { .fds = files->fds,
                                       .pairs = files->length,
                                       .mtu = n->mtu,
                                       .bytes_per_s = n->bytes_per_second,
                                       .slot = place->slot,
                                       .spares = place->net };
        (void)net_parse_mac(n->mac, options.mac); /* checked before */
        int r = check_queues(place, n, files, err);
        return r < 0 ? r : virtio_net_create(vm->machine, &options, err);
}

static int attach(struct vm *vm, const char *name, const struct vm_attachment *what,
                  struct disk_chain *files, struct err *err)
{
        struct machine *m = vm->machine;
        struct hotplug_place place;
        const struct device *last = machine_last_device(m);
        int r = hotplug_find_place(vm->hotplug, name, &place, err);
        if (r < 0)
                return r;
        r = what->disk ? make_disk(vm, &place, what->disk, files, err)
                       : make_network(vm, &place, what->network, files, err);
        struct device *device = machine_last_device(m);
        if (r < 0 && device != last)
                machine_remove_device(m, device); /* half made */
        if (r < 0)
                return r;
        /* A disk has its files; those of a network are its place's. */
        unsigned kept = what->network ? files->length : 0;
        hotplug_plug(vm->hotplug, &place, name, what->disk ? "disk" : "network", device, files->fds,
                     kept);
        files->length = 0;
        return 0;
}

int vm_attach(struct vm *vm, const char *name, const struct vm_attachment *what, const int *fds,
              unsigned length, struct err *err)
{
        struct disk_chain files = { .length = length < DISK_DEPTH_MAX ? length : DISK_DEPTH_MAX };
        memcpy(files.fds, fds, files.length * sizeof(*fds));
        int r = 0;
        for (unsigned i = files.length; i < length; i++) {
                int surplus = fds[i];
                close_fd(&surplus);
                r = -EINVAL;
        }
        if (r < 0)
                err_plain(err, EINVAL,
                          "device '%s': more than %d descriptors came with the request", name,
                          DISK_DEPTH_MAX);
        else
                r = attach(vm, name, what, &files, err);
        disk_chain_close(&files);
        return r;
}
