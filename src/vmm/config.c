#include "vmm/config.h"

#include <fcntl.h>
#include <net/if.h>
#include <string.h>

#include "base/file.h"
#include "base/str.h"
#include "vmm/fs/device.h"
#include "vmm/hotplug/hotplug.h"
#include "vmm/machine.h"
#include "vmm/virtio/blk.h"
#include "vmm/virtio/net.h"
#include "vmm/virtio/vsock.h"

#define CONFIG_SIZE_MAX ((size_t)1 << 20)
#define MEMORY_MIB_MIN  16

const char *const vm_cpu_names[] = { "auto", "kvm", "soft", "kvm-split", NULL };
const char *const vm_port_names[] = { "", "none", "stdio", NULL };
const char *const vm_transport_names[] = { "pci", "mmio", NULL };
const char *const vm_format_names[] = { "", "raw", "qcow2", NULL };

static const struct json_field disk_fields[] = {
        JSON_FIELD(struct vm_disk, "path", JSON_STRING, path, JSON_REQUIRED),
        JSON_FIELD_ENUM(struct vm_disk, "format", format, vm_format_names, 0),
        JSON_FIELD(struct vm_disk, "read_only", JSON_BOOL, read_only, 0),
        JSON_FIELD(struct vm_disk, "serial", JSON_STRING, serial, 0),
        JSON_FIELD(struct vm_disk, "iops", JSON_UINT, iops, 0),
        JSON_FIELD(struct vm_disk, "bytes_per_second", JSON_UINT, bytes_per_second, 0),
        JSON_FIELD(struct vm_disk, "size", JSON_UINT, size_bytes, 0),
        JSON_FIELD(struct vm_disk, "backing", JSON_STRING, backing, 0),
        JSON_FIELD_ENUM(struct vm_disk, "backing_format", backing_format, vm_format_names, 0),
};
static const struct json_shape disk_shape = JSON_SHAPE("disk", struct vm_disk, disk_fields);

static const struct json_field network_fields[] = {
        JSON_FIELD(struct vm_network, "tap", JSON_STRING, tap, 0),
        JSON_FIELD(struct vm_network, "fd", JSON_UINT, fd, 0),
        JSON_FIELD(struct vm_network, "mac", JSON_STRING, mac, 0),
        JSON_FIELD(struct vm_network, "queues", JSON_UINT, queues, 0),
        JSON_FIELD(struct vm_network, "mtu", JSON_UINT, mtu, 0),
        JSON_FIELD(struct vm_network, "bytes_per_second", JSON_UINT, bytes_per_second, 0),
};
static const struct json_shape network_shape = JSON_SHAPE("network", struct vm_network,
                                                          network_fields);

static const struct json_field filesystem_fields[] = {
        JSON_FIELD(struct vm_filesystem, "tag", JSON_STRING, tag, JSON_REQUIRED),
        JSON_FIELD(struct vm_filesystem, "path", JSON_STRING, path, JSON_REQUIRED),
        JSON_FIELD(struct vm_filesystem, "read_only", JSON_BOOL, read_only, 0),
        JSON_FIELD(struct vm_filesystem, "submounts", JSON_BOOL, submounts, 0),
        JSON_FIELD(struct vm_filesystem, "exclusive", JSON_BOOL, exclusive, 0),
        JSON_FIELD(struct vm_filesystem, "only", JSON_STRV, only, 0),
};
static const struct json_shape filesystem_shape = JSON_SHAPE("filesystem", struct vm_filesystem,
                                                             filesystem_fields);

static const struct json_field vsock_fields[] = {
        JSON_FIELD(struct vm_vsock, "cid", JSON_UINT, cid, 0),
        JSON_FIELD(struct vm_vsock, "path", JSON_STRING, path, JSON_REQUIRED),
};
static const struct json_shape vsock_shape = JSON_SHAPE("vsock", struct vm_vsock, vsock_fields);

static const struct json_field config_fields[] = {
        JSON_FIELD_ENUM(struct vm_config, "cpu", cpu, vm_cpu_names, 0),
        JSON_FIELD_ENUM(struct vm_config, "cpu_model", cpu_model, cpu_model_names, 0),
        JSON_FIELD(struct vm_config, "cpus", JSON_UINT, cpus, 0),
        JSON_FIELD(struct vm_config, "memory_mib", JSON_UINT, memory_mib, 0),
        JSON_FIELD(struct vm_config, "kernel", JSON_STRING, kernel, 0),
        JSON_FIELD(struct vm_config, "initrd", JSON_STRING, initrd, 0),
        JSON_FIELD(struct vm_config, "cmdline", JSON_STRING, cmdline, 0),
        JSON_FIELD_ENUM(struct vm_config, "serial", serial, vm_port_names, 0),
        JSON_FIELD_ENUM(struct vm_config, "console", console, vm_port_names, 0),
        JSON_FIELD_ENUM(struct vm_config, "transport", transport, vm_transport_names, 0),
        JSON_FIELD_ARRAY(struct vm_config, "disks", disks, disks_length, &disk_shape, 0),
        JSON_FIELD_ARRAY(struct vm_config, "networks", networks, networks_length, &network_shape,
                         0),
        JSON_FIELD_ARRAY(struct vm_config, "filesystems", filesystems, filesystems_length,
                         &filesystem_shape, 0),
        JSON_FIELD_POINTER(struct vm_config, "vsock", vsock, &vsock_shape, 0),
        JSON_FIELD(struct vm_config, "hotplug", JSON_UINT, hotplug, 0),
        JSON_FIELD(struct vm_config, "hotplug_queues", JSON_UINT, hotplug_queues, 0),
        JSON_FIELD(struct vm_config, "gdb", JSON_STRING, gdb, 0),
        JSON_FIELD(struct vm_config, "gdb_wait", JSON_BOOL, gdb_wait, 0),
        JSON_FIELD(struct vm_config, "memory_file", JSON_STRING, memory_file, 0),
        JSON_FIELD(struct vm_config, "memory_template", JSON_STRING, memory_template, 0),
        JSON_FIELD(struct vm_config, "profile", JSON_STRING, profile, 0),
        JSON_FIELD(struct vm_config, "iommu", JSON_BOOL, iommu, 0),
        JSON_FIELD(struct vm_config, "test_devices", JSON_BOOL, test_devices, 0),
        JSON_FIELD(struct vm_config, "no_reboot", JSON_BOOL, no_reboot, 0),
        JSON_FIELD(struct vm_config, "no_unpack", JSON_BOOL, no_unpack, 0),
};
const struct json_shape vm_config_shape = JSON_SHAPE("machine", struct vm_config, config_fields);

void vm_config_init(struct vm_config *c)
{
        *c = (struct vm_config){ .cpus = VM_CPUS_DEFAULT, .memory_mib = VM_MEMORY_DEFAULT };
}

void vm_config_finish(struct vm_config *c)
{
        json_free(&vm_config_shape, c);
}

int vm_config_decode(const char *text, size_t size, struct vm_config *c, struct err *err)
{
        int r = json_decode_text(&vm_config_shape, text, size, c, err);
        if (r < 0)
                return r;
        if (!c->cpus)
                c->cpus = VM_CPUS_DEFAULT;
        if (!c->memory_mib)
                c->memory_mib = VM_MEMORY_DEFAULT;
        return 0;
}

int vm_config_read(const char *path, struct vm_config *c, struct err *err)
{
        auto_free char *text = NULL;
        size_t size;
        int r = file_read(AT_FDCWD, path, CONFIG_SIZE_MAX, &text, &size, err);
        if (r == 0)
                r = vm_config_decode(text, size, c, err);
        return r < 0 ? err_wrap(err, "configuration '%s'", path) : 0;
}

/* ---- a device alone ---- */

static int check_disk(const struct vm_disk *d, struct err *err);
static int check_network(const struct vm_network *n, struct err *err);

static const struct json_field attachment_fields[] = {
        JSON_FIELD_POINTER(struct vm_attachment, "disk", disk, &disk_shape, 0),
        JSON_FIELD_POINTER(struct vm_attachment, "network", network, &network_shape, 0),
};
static const struct json_shape attachment_shape = JSON_SHAPE("device", struct vm_attachment,
                                                             attachment_fields);

void vm_attachment_finish(struct vm_attachment *a)
{
        json_free(&attachment_shape, a);
}

static int check_attachment(const struct vm_attachment *a, struct err *err)
{
        if (!a->disk == !a->network)
                return err_plain(err, EINVAL, "a device is one of 'disk' and 'network'");
        if (a->network && !a->network->tap)
                return err_plain(err, EINVAL, "a network that is attached is named by 'tap'");
        if (a->network && !a->network->mac)
                return err_plain(err, EINVAL, "network '%s': 'mac' is missing", a->network->tap);
        if (a->disk && (a->disk->size_bytes || a->disk->backing))
                return err_plain(err, EINVAL, "disk '%s': what is attached is there already",
                                 a->disk->path);
        return a->disk ? check_disk(a->disk, err) : check_network(a->network, err);
}

int vm_attachment_decode(const char *text, size_t size, struct vm_attachment *ret, struct err *err)
{
        int r = json_decode_text(&attachment_shape, text, size, ret, err);
        return r < 0 ? r : check_attachment(ret, err);
}

int vm_attachment_encode(const struct vm_config *c, struct buf *ret, struct err *err)
{
        struct vm_attachment a = { 0 };
        if (c->disks_length + c->networks_length != 1)
                return err_plain(err, EINVAL, "--attach: one --disk or --net says what");
        if (c->disks_length)
                a.disk = &c->disks[0];
        else
                a.network = &c->networks[0];
        int r = check_attachment(&a, err);
        auto_free char *text = r < 0 ? NULL : json_encode_text(&attachment_shape, &a, false);
        return r < 0 ? r : buf_puts(ret, text);
}

/* ---- as flags say it ---- */

struct word {
        const char *key;
        enum { WORD_FLAG, WORD_TEXT, WORD_NUMBER, WORD_SIZE, WORD_FORMAT } kind;
        void *place;
};

static int take_value(const char *option, const struct word *w, const char *value, struct err *err)
{
        switch (w->kind) {
        case WORD_FLAG:
                *(bool *)w->place = true;
                return 0;
        case WORD_TEXT:
                free(*(char **)w->place);
                *(char **)w->place = xstrdup(value);
                return 0;
        case WORD_NUMBER:
                if (str_to_u64(value, w->place) == 0)
                        return 0;
                return err_plain(err, EINVAL, "%s: %s=%s: not a number", option, w->key, value);
        case WORD_SIZE:
                if (str_to_size(value, w->place) == 0)
                        return 0;
                return err_plain(err, EINVAL, "%s: %s=%s: a size such as 10m is needed", option,
                                 w->key, value);
        default:
                for (int i = 1; vm_format_names[i]; i++) {
                        if (streq(value, vm_format_names[i])) {
                                *(int *)w->place = i;
                                return 0;
                        }
                }
                return err_plain(err, EINVAL, "%s: %s=%s: there are raw and qcow2", option, w->key,
                                 value);
        }
}

/* One `key` or `key=value` against a table that ends with a NULL key. */
static int take_word(const char *option, const struct word *words, char *text, struct err *err)
{
        char *value = strchr(text, '=');
        if (value)
                *value++ = '\0';
        for (const struct word *w = words; w->key; w++) {
                if (!streq(text, w->key))
                        continue;
                if (!value != (w->kind == WORD_FLAG) || (value && !*value))
                        return err_plain(err, EINVAL, "%s: %s %s value", option, text,
                                         w->kind == WORD_FLAG ? "takes no" : "needs a");
                return take_value(option, w, value, err);
        }
        auto_strv keys = NULL;
        for (const struct word *w = words; w->key; w++)
                strv_push(&keys, w->key);
        auto_free char *all = strv_join(keys, ", ");
        return err_plain(err, EINVAL, "%s: '%s' is not known; there are %s", option, text, all);
}

static int take_words(const char *option, const struct word *words, char *const *texts,
                      struct err *err)
{
        int r = 0;
        for (unsigned i = 0; r == 0 && texts[i]; i++)
                r = take_word(option, words, texts[i], err);
        return r;
}

int vm_config_add_disk(struct vm_config *c, const char *text, struct err *err)
{
        struct vm_disk disk = { 0 };
        const struct word words[] = {
                { "ro", WORD_FLAG, &disk.read_only },
                { "format", WORD_FORMAT, &disk.format },
                { "serial", WORD_TEXT, &disk.serial },
                { "iops", WORD_NUMBER, &disk.iops },
                { "bps", WORD_SIZE, &disk.bytes_per_second },
                { "size", WORD_SIZE, &disk.size_bytes },
                { "backing", WORD_TEXT, &disk.backing },
                { "backing_format", WORD_FORMAT, &disk.backing_format },
                { 0 },
        };
        auto_strv parts = str_split(text, ',');
        int r = take_words("--disk", words, parts + 1, err);
        if (r < 0) {
                free(disk.serial);
                free(disk.backing);
                return r;
        }
        disk.path = xstrdup(parts[0]);
        c->disks = xrealloc(c->disks, c->disks_length + 1, sizeof(*c->disks));
        c->disks[c->disks_length++] = disk;
        return 0;
}

int vm_config_add_network(struct vm_config *c, const char *text, struct err *err)
{
        struct vm_network network = { 0 };
        uint64_t fd = 0, queues = 0, mtu = 0;
        const struct word words[] = {
                { "tap", WORD_TEXT, &network.tap },
                { "fd", WORD_NUMBER, &fd },
                { "mac", WORD_TEXT, &network.mac },
                { "queues", WORD_NUMBER, &queues },
                { "mtu", WORD_NUMBER, &mtu },
                { "bps", WORD_SIZE, &network.bytes_per_second },
                { 0 },
        };
        auto_strv parts = str_split(text, ',');
        int r = take_words("--net", words, parts, err);
        if (r == 0 && !network.tap && !fd)
                r = err_plain(err, EINVAL, "--net '%s': tap=NAME is missing, or fd=N", text);
        if (r < 0) {
                free(network.tap);
                free(network.mac);
                return r;
        }
        network.fd = fd > UINT32_MAX ? UINT32_MAX : (uint32_t)fd;
        network.queues = queues > UINT32_MAX ? UINT32_MAX : (uint32_t)queues;
        network.mtu = mtu > UINT32_MAX ? UINT32_MAX : (uint32_t)mtu;
        c->networks = xrealloc(c->networks, c->networks_length + 1, sizeof(*c->networks));
        c->networks[c->networks_length++] = network;
        return 0;
}

int vm_config_add_filesystem(struct vm_config *c, const char *text, struct err *err)
{
        struct vm_filesystem fs = { 0 };
        auto_free char *only = NULL;
        const struct word words[] = { { "ro", WORD_FLAG, &fs.read_only },
                                      { "submounts", WORD_FLAG, &fs.submounts },
                                      { "exclusive", WORD_FLAG, &fs.exclusive },
                                      { "only", WORD_TEXT, &only },
                                      { 0 } };
        auto_strv parts = str_split(text, ',');
        const char *equals = strchr(parts[0], '=');
        if (!equals)
                return err_plain(err, EINVAL, "--fs '%s': TAG=PATH is needed", text);
        int r = take_words("--fs", words, parts + 1, err);
        if (r < 0)
                return r;
        fs.tag = xstrndup(parts[0], (size_t)(equals - parts[0]));
        fs.path = xstrdup(equals + 1);
        fs.only = only ? str_split(only, ':') : NULL;
        c->filesystems = xrealloc(c->filesystems, c->filesystems_length + 1,
                                  sizeof(*c->filesystems));
        c->filesystems[c->filesystems_length++] = fs;
        return 0;
}

int vm_config_set_vsock(struct vm_config *c, const char *text, struct err *err)
{
        char *path = NULL;
        uint64_t cid = VSOCK_CID_MIN;
        const struct word words[] = { { "path", WORD_TEXT, &path },
                                      { "cid", WORD_NUMBER, &cid },
                                      { 0 } };
        auto_strv parts = str_split(text, ',');
        int r = take_words("--vsock", words, parts, err);
        if (r == 0 && !path)
                r = err_plain(err, EINVAL, "--vsock '%s': path=PATH is missing", text);
        if (r < 0) {
                free(path);
                return r;
        }
        if (!c->vsock)
                c->vsock = new0(struct vm_vsock);
        free(c->vsock->path);
        *c->vsock = (struct vm_vsock){ cid > UINT32_MAX ? UINT32_MAX : (uint32_t)cid, path };
        return 0;
}

/* ---- checks ---- */

static int check_disk(const struct vm_disk *d, struct err *err)
{
        if (str_empty(d->path))
                return err_plain(err, EINVAL, "a disk has no path");
        if (d->serial && strlen(d->serial) > BLK_SERIAL_MAX)
                return err_plain(err, EINVAL, "disk '%s': serial '%s' is longer than %d bytes",
                                 d->path, d->serial, BLK_SERIAL_MAX);
        if (!d->size_bytes && !d->backing)
                return 0;
        if (d->format == DISK_RAW || d->read_only)
                return err_plain(err, EINVAL,
                                 "disk '%s': 'size' and 'backing' make a qcow2 image, for writing",
                                 d->path);
        if (d->size_bytes % DISK_SECTOR)
                return err_plain(err, EINVAL, "disk '%s': size %llu is no multiple of %u", d->path,
                                 (unsigned long long)d->size_bytes, DISK_SECTOR);
        if (d->backing && d->backing_format == DISK_AUTO)
                return err_plain(err, EINVAL,
                                 "disk '%s': the backing file '%s' needs 'backing_format', raw or "
                                 "qcow2: it is not guessed",
                                 d->path, d->backing);
        return 0;
}

static int check_tap_fd(const struct vm_network *n, struct err *err)
{
        if (n->tap || n->queues > 1)
                return err_plain(err, EINVAL,
                                 "network with fd %u: it has one queue, and no tap is named",
                                 n->fd);
        if (!n->mac)
                return err_plain(err, EINVAL, "network with fd %u: it needs a mac", n->fd);
        return n->fd <= INT32_MAX
                       ? 0
                       : err_plain(err, EINVAL, "network with fd %u: no descriptor", n->fd);
}

static int check_network(const struct vm_network *n, struct err *err)
{
        uint8_t mac[6];
        int r = n->fd ? check_tap_fd(n, err) : 0;
        if (r < 0)
                return r;
        if (!n->fd && (str_empty(n->tap) || strlen(n->tap) >= IFNAMSIZ))
                return err_plain(err, EINVAL, "network '%s': a name of 1 to %d bytes is needed",
                                 n->tap ? n->tap : "", IFNAMSIZ - 1);
        if (n->mac && net_parse_mac(n->mac, mac) < 0)
                return err_plain(err, EINVAL,
                                 "network '%s': mac '%s' is no unicast address such as "
                                 "02:00:00:00:00:01",
                                 n->fd ? "fd" : n->tap, n->mac);
        if (n->queues > NET_PAIRS)
                return err_plain(err, EINVAL, "network '%s': %u queues: 1 to %u are possible",
                                 n->fd ? "fd" : n->tap, n->queues, NET_PAIRS);
        if (n->mtu && (n->mtu < NET_MTU_MIN || n->mtu > NET_MTU_MAX))
                return err_plain(err, EINVAL, "network '%s': mtu %u: %u to %u are possible",
                                 n->fd ? "fd" : n->tap, n->mtu, NET_MTU_MIN, NET_MTU_MAX);
        return 0;
}

static int check_vsock(const struct vm_vsock *v, struct err *err)
{
        if (v && v->cid && (v->cid < VSOCK_CID_MIN || v->cid == UINT32_MAX))
                return err_plain(err, EINVAL, "vsock '%s': cid %u: %u to %u are possible", v->path,
                                 v->cid, VSOCK_CID_MIN, UINT32_MAX - 1);
        return 0;
}

static int check_filesystem(const struct vm_config *c, size_t i, struct err *err)
{
        const struct vm_filesystem *fs = &c->filesystems[i];
        if (str_empty(fs->path))
                return err_plain(err, EINVAL, "file system '%s' has no path", fs->tag);
        if (str_empty(fs->tag) || strlen(fs->tag) > FS_TAG_MAX)
                return err_plain(err, EINVAL, "file system '%s': a tag of 1 to %d bytes is needed",
                                 fs->tag ? fs->tag : "", FS_TAG_MAX);
        for (char **name = fs->only; name && *name; name++)
                if (!**name || strchr(*name, '/') || streq(*name, ".") || streq(*name, ".."))
                        return err_plain(err, EINVAL, "file system '%s': only '%s' is not a name",
                                         fs->tag, *name);
        for (size_t k = 0; k < i; k++)
                if (streq(c->filesystems[k].tag, fs->tag))
                        return err_plain(err, EINVAL, "two file systems have the tag '%s'",
                                         fs->tag);
        return 0;
}

static int check_devices(const struct vm_config *c, struct err *err)
{
        int r = 0;
        if (c->disks_length > VM_DISKS_MAX)
                return err_plain(err, EINVAL, "%zu disks: %u are possible", c->disks_length,
                                 VM_DISKS_MAX);
        if (c->networks_length > VM_NETWORKS_MAX)
                return err_plain(err, EINVAL, "%zu networks: %u are possible", c->networks_length,
                                 VM_NETWORKS_MAX);
        for (size_t i = 0; r == 0 && i < c->disks_length; i++)
                r = check_disk(&c->disks[i], err);
        for (size_t i = 0; r == 0 && i < c->networks_length; i++)
                r = check_network(&c->networks[i], err);
        if (c->filesystems_length > VM_FILESYSTEMS_MAX)
                return err_plain(err, EINVAL, "%zu file systems: %u are possible",
                                 c->filesystems_length, VM_FILESYSTEMS_MAX);
        for (size_t i = 0; r == 0 && i < c->filesystems_length; i++)
                r = check_filesystem(c, i, err);
        return r < 0 ? r : check_vsock(c->vsock, err);
}

static int check_iommu(const struct vm_config *c, struct err *err)
{
        if (c->iommu && c->cpu != VM_CPU_SOFT)
                return err_plain(err, EINVAL,
                                 "an IOMMU with cpu '%s': it needs interrupt chips of ours; "
                                 "choose soft",
                                 vm_cpu_names[c->cpu]);
        if (c->iommu && c->transport != VM_TRANSPORT_PCI)
                return err_plain(err, EINVAL,
                                 "an IOMMU with transport '%s': it serves PCI devices; choose pci",
                                 vm_transport_names[c->transport]);
        return 0;
}

int vm_config_check(const struct vm_config *c, struct err *err)
{
        if (!c->kernel)
                return err_plain(err, EINVAL, "no kernel is named; --kernel FILE does");
        if (c->cpus < 1 || c->cpus > MACHINE_VCPUS)
                return err_plain(err, EINVAL, "%u vCPUs: 1 to %u are possible", c->cpus,
                                 MACHINE_VCPUS);
        if (c->memory_mib < MEMORY_MIB_MIN || c->memory_mib > 1ull << 20)
                return err_plain(err, EINVAL, "memory of %llu MiB: %u to %llu are possible",
                                 (unsigned long long)c->memory_mib, MEMORY_MIB_MIN, 1ull << 20);
        if (c->hotplug > HOTPLUG_SLOTS_MAX)
                return err_plain(err, EINVAL, "%u places for devices: 0 to %d are possible",
                                 c->hotplug, HOTPLUG_SLOTS_MAX);
        if (c->hotplug_queues > NET_PAIRS)
                return err_plain(err, EINVAL,
                                 "%u queues for networks that are attached: 1 to %u are possible",
                                 c->hotplug_queues, NET_PAIRS);
        if (c->gdb_wait && !c->gdb)
                return err_plain(err, EINVAL,
                                 "nobody can start what waits for gdb; --gdb WHERE "
                                 "lets one come");
        if (c->serial != VM_PORT_NONE && c->console == VM_PORT_STDIO)
                return err_plain(err, EINVAL, "both serial and console are at stdio; choose one");
        int r = check_iommu(c, err);
        return r < 0 ? r : check_devices(c, err);
}
