#include "vmm/vm.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/str.h"
#include "sys/kvm.h"
#include "vmm/boot/acpi.h"
#include "vmm/boot/boot.h"
#include "vmm/device/edu.h"
#include "vmm/device/keyboard.h"
#include "vmm/device/pit.h"
#include "vmm/device/power.h"
#include "vmm/device/rtc.h"
#include "vmm/device/serial.h"
#include "vmm/device/testdev.h"
#include "vmm/fs/device.h"
#include "vmm/gdb/server.h"
#include "vmm/hotplug/hotplug.h"
#include "vmm/jail/jail.h"
#include "vmm/kvm/kvm.h"
#include "vmm/layout.h"
#include "vmm/pci/pci.h"
#include "vmm/share.h"
#include "vmm/snapshot/snapshot.h"
#include "vmm/virtio/balloon.h"
#include "vmm/virtio/blk.h"
#include "vmm/virtio/console.h"
#include "vmm/virtio/device.h"
#include "vmm/virtio/net.h"
#include "vmm/virtio/rng.h"
#include "vmm/virtio/tap.h"
#include "vmm/virtio/vsock.h"
#include "vmm/virtio/vsock_peers.h"
#include "vmm/virtio/worker.h"
#include "vmm/vtd/vtd.h"

static const struct vcpu_ops *choose_cpu(int wanted)
{
        if (wanted == VM_CPU_KVM_SPLIT)
                return &vcpu_kvm_split;
        bool kvm = wanted == VM_CPU_KVM || (wanted == VM_CPU_AUTO && kvm_runs_well());
        return kvm ? &vcpu_kvm : &vcpu_soft;
}

static int build_platform(struct vm *vm, const struct vm_config *c, struct err *err)
{
        struct machine *m = vm->machine;
        int r = pci_create(m, err);
        if (r == 0)
                r = pit_create(m, err);
        if (r == 0)
                r = rtc_create(m, err);
        if (r == 0)
                r = keyboard_create(m, &vm->keyboard, err);
        if (r == 0)
                r = power_create(m, c->test_devices, &vm->power, err);
        if (r == 0 && c->test_devices)
                r = testdev_create(m, err);
        if (r == 0 && c->iommu)
                r = vtd_create(m, err);
        if (r == 0)
                r = hotplug_create(m, vm->power, c->hotplug,
                                   c->hotplug_queues ? c->hotplug_queues : 1, &vm->hotplug, err);
        bool stdio = c->serial != VM_PORT_NONE;
        if (r == 0)
                r = serial_create(m, LAYOUT_PORT_SERIAL, LAYOUT_IRQ_SERIAL,
                                  stdio ? STDIN_FILENO : -1, stdio ? STDOUT_FILENO : -1, err);
        return r;
}

static int add_disk(struct machine *m, const struct vm_disk *d, struct err *err)
{
        const struct disk_options image = { .path = d->path,
                                            .format = d->format,
                                            .read_only = d->read_only };
        const struct blk_options options = { d->serial, d->iops, d->bytes_per_second };
        const struct disk_create_options new = { .path = d->path,
                                                 .size_bytes = d->size_bytes,
                                                 .backing = d->backing,
                                                 .backing_format = d->backing_format };
        struct disk *disk = NULL;
        int r = 0;
        if ((d->size_bytes || d->backing) && access(d->path, F_OK) < 0 && errno == ENOENT)
                r = disk_create(&new, err);
        if (r == 0)
                r = disk_open(&image, &disk, err);
        return r < 0 ? r : virtio_blk_create(m, disk, &options, err);
}

static unsigned pairs(const struct vm_network *n)
{
        return n->queues ? n->queues : 1;
}

static int add_network(struct machine *m, const struct vm_network *n, const int *fds,
                       struct err *err)
{
        struct net_options options = {
                .fds = fds, .pairs = pairs(n), .mtu = n->mtu, .bytes_per_s = n->bytes_per_second
        };
        if (n->mac)
                (void)net_parse_mac(n->mac, options.mac); /* checked before */
        else
                net_mac_of_name(n->tap, options.mac);
        return virtio_net_create(m, &options, err);
}

static int add_filesystem(struct machine *m, const struct vm_filesystem *f, size_t servers,
                          struct err *err)
{
        struct fs_options options = { .root = f->path,
                                      .read_only = f->read_only,
                                      .submounts = f->submounts,
                                      .exclusive = f->exclusive,
                                      .only = f->only,
                                      .servers = (unsigned)servers };
        struct fs_server *server = NULL;
        int r = 0;
        if (geteuid() != 0) { /* who may not give files away is the guest's root */
                options.uids = (struct fs_id_map){ 0, geteuid(), 1 };
                options.gids = (struct fs_id_map){ 0, getegid(), 1 };
        }
        if (jail_is_on()) {
                options.root = NULL;
                r = jail_detach_directory(f->path, f->read_only, &options.root_fd, err);
        }
        if (r == 0)
                r = fs_server_create(&options, &server, err);
        return r < 0 ? r : virtio_fs_create(m, f->tag, server, err);
}

static int add_vsock(struct machine *m, const struct vm_vsock *v, int listen_fd, struct err *err)
{
        struct vsock_options options = { .listen_fd = listen_fd,
                                         .path = v->path,
                                         .cid = v->cid ? v->cid : VSOCK_CID_MIN };
        auto_free char *inside = NULL;
        if (jail_is_on()) {
                const char *slash = strrchr(v->path, '/');
                inside = xasprintf(JAIL_VSOCK "/%s", slash ? slash + 1 : v->path);
                options.path = inside;
        }
        return virtio_vsock_create(m, &options, err);
}

static int build_virtio(struct vm *vm, const struct vm_config *c, const struct vm_ports *ports,
                        struct err *err)
{
        struct machine *m = vm->machine;
        int r = c->transport == VM_TRANSPORT_MMIO ? virtio_mmio_create(m, err) : 0;
        if (r == 0)
                r = virtio_rng_create(m, err);
        if (r == 0 && !c->iommu) /* whose pages it would get around */
                r = virtio_balloon_create(m, &vm->balloon, err);
        if (r == 0 && c->console == VM_PORT_STDIO)
                r = virtio_console_create(m, STDIN_FILENO, STDOUT_FILENO, err);
        for (size_t i = 0; r == 0 && i < c->disks_length; i++)
                r = add_disk(m, &c->disks[i], err);
        for (size_t i = 0; r == 0 && i < c->networks_length; i++)
                r = add_network(m, &c->networks[i], ports->taps[i], err);
        for (size_t i = 0; r == 0 && i < c->filesystems_length; i++)
                r = add_filesystem(m, &c->filesystems[i], c->filesystems_length, err);
        if (r == 0 && c->vsock)
                r = add_vsock(m, c->vsock, ports->vsock_fd, err);
        if (r == 0 && c->test_devices)
                r = edu_create(m, err);
        return r;
}

static int load(struct vm *vm, const struct vm_config *c, struct err *err)
{
        struct machine *m = vm->machine;
        const struct boot_config boot = { c->kernel, c->initrd, c->cmdline, c->no_unpack };
        const struct acpi_config acpi = { .vcpus = c->cpus,
                                          .pci = true,
                                          .iommu = c->iommu,
                                          .hot_slots = c->hotplug,
                                          .virtio_mmio = virtio_mmio_length(m),
                                          .serial = { true } };
        struct boot_entry entry;
        struct cpu_state state;
        int r = boot_load(&m->memory, &boot, &entry, err);
        if (r == 0)
                r = acpi_build(&acpi, &m->memory, err);
        if (r == 0)
                r = m->cpu->get_state(&m->vcpus[0], &state, err);
        if (r < 0)
                return r;
        boot_entry_state(&entry, &state);
        return m->cpu->set_state(&m->vcpus[0], &state, err);
}

/* ---- ports ---- */

int vm_ports_open(const struct vm_config *c, struct vm_ports *ret, struct err *err)
{
        struct vm_ports p = { .vsock_fd = -1, .gdb_fd = -1, .gdb_wait = c->gdb_wait };
        int r = 0;
        memset(p.taps, 0xff, sizeof(p.taps));
        for (size_t i = 0; r == 0 && i < c->networks_length; i++) {
                const struct vm_network *n = &c->networks[i];
                r = n->fd ? tap_adopt((int)n->fd, &p.taps[i][0], err)
                          : tap_open(n->tap, pairs(n), n->mtu, p.taps[i], err);
        }
        if (r == 0 && c->vsock) {
                r = vsock_listen(c->vsock->path, &p.vsock_fd, err);
                p.vsock_path = c->vsock->path;
        }
        if (r == 0 && c->gdb) {
                r = gdb_listen(c->gdb, &p.gdb_fd, err);
                p.gdb_path = gdb_socket_path(c->gdb);
        }
        if (r < 0) {
                vm_ports_close(&p);
                return r;
        }
        *ret = p;
        return 0;
}

void vm_ports_close(struct vm_ports *p)
{
        for (size_t i = 0; i < VM_NETWORKS_MAX; i++)
                for (size_t k = 0; k < NET_PAIRS; k++)
                        if (p->taps[i][k] >= 0)
                                close_fd(&p->taps[i][k]);
        if (p->vsock_fd >= 0) {
                unlink(p->vsock_path);
                close_fd(&p->vsock_fd);
        }
        if (p->gdb_fd >= 0) {
                if (p->gdb_path)
                        unlink(p->gdb_path);
                close_fd(&p->gdb_fd);
        }
}

/* ---- the machine ---- */

static int start_profile(struct machine *m, const struct vm_config *c, struct err *err)
{
        if (!m->cpu->profile)
                return err_plain(err, EINVAL,
                                 "--profile '%s': processors of '%s' are the host's, whose perf "
                                 "tells; --cpu soft has profiles",
                                 c->profile, m->cpu->name);
        return m->cpu->profile(m, c->profile, err);
}

int vm_create(struct loop *loop, const struct vm_config *c, const struct vm_ports *ports,
              struct vm *ret, struct err *err)
{
        struct vm vm = { 0 };
        const struct snapshot *restore = ports->restore;
        const struct machine_options machine = { choose_cpu(c->cpu),
                                                 cpu_model_find(cpu_model_names[c->cpu_model]),
                                                 c->cpus,
                                                 c->memory_mib << 20,
                                                 c->memory_file,
                                                 restore ? &restore->memory_fd : NULL };
        int r = restore ? snapshot_fits(restore, machine.memory_bytes, c->cpus, err) : 0;
        if (r == 0)
                r = machine_create(loop, &machine, &vm.machine, err);
        if (r == 0 && c->profile)
                r = start_profile(vm.machine, c, err);
        if (r == 0)
                r = build_platform(&vm, c, err);
        if (r == 0)
                r = build_virtio(&vm, c, ports, err);
        bool held = r == 0 && restore;
        if (held) /* no device goes on before all can */
                workers_quiesce();
        if (r == 0)
                r = restore ? snapshot_load(restore, vm.machine, err) : load(&vm, c, err);
        if (r == 0 && ports->gdb_fd >= 0)
                r = gdb_server_create(vm.machine, ports->gdb_fd, ports->gdb_wait, &vm.gdb, err);
        if (r == 0 && c->memory_template)
                r = share_create(vm.machine, c->memory_template, err);
        if (r < 0)
                vm_destroy(&vm);
        else
                *ret = vm;
        if (held)
                workers_release();
        return r;
}

void vm_destroy(struct vm *vm)
{
        machine_destroy(vm->machine);
        *vm = (struct vm){ 0 };
}
