/* What a machine is made of, as its user says it: by flags of isle-vmm, in a JSON
 * file, or over the control socket. One struct, one JSON shape.
 *
 *     {
 *       "cpu": "soft", "cpu_model": "x86-64-v3", "cpus": 2, "memory_mib": 512,
 *       "kernel": "vmlinuz", "initrd": "initrd.img", "cmdline": "console=ttyS0",
 *       "serial": "stdio", "console": "none",
 *       "disks": [{ "path": "root.img", "read_only": false, "serial": "root" }],
 *       "networks": [{ "tap": "tap0", "mac": "02:00:00:00:00:01" }],
 *       "vsock": { "cid": 3, "path": "/run/vm.vsock" }
 *     }
 *
 * Ownership: vm_config_finish() frees what decoding allocated.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "codec/json.h"
#include "cpu/model.h"

enum vm_cpu { VM_CPU_AUTO, VM_CPU_KVM, VM_CPU_SOFT, VM_CPU_KVM_SPLIT };
extern const char *const vm_cpu_names[], *const vm_port_names[], *const vm_format_names[];
enum vm_transport { VM_TRANSPORT_PCI, VM_TRANSPORT_MMIO };
extern const char *const vm_transport_names[];
enum vm_port { VM_PORT_UNSET, VM_PORT_NONE, VM_PORT_STDIO };

struct vm_disk {
        char *path;
        int format; /* enum disk_format */
        bool read_only;
        char *serial;
        uint64_t iops, bytes_per_second; /* 0: no limit */
        uint64_t size_bytes;             /* 0: the backing file's */
        char *backing;                   /* with either, an image that is not there is made */
        int backing_format;              /* enum disk_format */
};

struct vm_network {
        char *tap;                 /* an interface that exists, or is made and goes with the VM */
        uint32_t fd;               /* or this descriptor of one, which we were started with */
        char *mac;                 /* NULL: one that follows from the name of the tap */
        uint32_t queues;           /* pairs; 0: one */
        uint32_t mtu;              /* 0: the guest chooses */
        uint64_t bytes_per_second; /* each way; 0: no limit */
};

struct vm_vsock {
        uint32_t cid;
        char *path;
};

struct vm_filesystem {
        char *tag;  /* by which the guest mounts it */
        char *path; /* the directory */
        bool read_only, submounts, exclusive;
        char **only; /* names in it that there are for the guest; NULL: all. server.h */
};

struct vm_config {
        int cpu;       /* enum vm_cpu */
        int cpu_model; /* of cpu_model_names */
        uint32_t cpus;
        uint64_t memory_mib;
        char *kernel, *initrd, *cmdline;
        int serial;    /* enum vm_port: what ttyS0 is connected to */
        int console;   /* the same for hvc0 */
        int transport; /* enum vm_transport: of virtio devices */
        struct vm_disk *disks;
        size_t disks_length;
        struct vm_network *networks;
        size_t networks_length;
        struct vm_filesystem *filesystems;
        size_t filesystems_length;
        struct vm_vsock *vsock;  /* NULL: none */
        uint32_t hotplug;        /* places for devices that are attached while it runs */
        uint32_t hotplug_queues; /* pairs that such a network may have; 0: one */
        char *gdb;               /* where a debugger may come: tcp:[HOST]:PORT, unix:PATH */
        bool gdb_wait;           /* and the guest stands until it lets it go */
        char *memory_file;       /* NULL: memory goes with the machine */
        char *memory_template;   /* see share.h; NULL: none */
        char *profile;           /* NULL: none; a file, see soft/profile.h */
        bool iommu;              /* between devices and memory: Intel VT-d */
        bool test_devices;       /* debug exit and what test kernels expect */
        bool no_reboot;          /* a reset ends the program */
        bool no_unpack;          /* a bzImage unpacks itself */
};

/* A device that is attached to a running machine: one of the two. What is to be opened comes as
 * descriptors, those of a disk's backing files or of a tap's queues among them; `path` and `tap`
 * are for stories. */
struct vm_attachment {
        struct vm_disk *disk;
        struct vm_network *network;
};

#define VM_CPUS_DEFAULT    1
#define VM_MEMORY_DEFAULT  256
#define VM_DISKS_MAX       16
#define VM_NETWORKS_MAX    8
#define VM_FILESYSTEMS_MAX 8

extern const struct json_shape vm_config_shape;

void vm_config_init(struct vm_config *config);
void vm_config_finish(struct vm_config *config);
/* Reads a JSON file into an initialised configuration; what it does not name keeps
 * its default. */
int vm_config_read(const char *path, struct vm_config *config, struct err *err);
/* The same of a JSON text. */
int vm_config_decode(const char *text, size_t size, struct vm_config *config, struct err *err);
/* Adds a disk as --disk says it: PATH[,ro][,format=…][,serial=…][,iops=N][,bps=SIZE]; a
 * network as --net: tap=NAME|fd=N[,mac=…][,queues=N][,mtu=N][,bps=SIZE]. */
int vm_config_add_disk(struct vm_config *config, const char *text, struct err *err);
int vm_config_add_network(struct vm_config *config, const char *text, struct err *err);
/* A directory as --fs says it: TAG=PATH[,ro][,submounts][,exclusive][,only=NAME:…]. */
int vm_config_add_filesystem(struct vm_config *config, const char *text, struct err *err);
int vm_config_set_vsock(struct vm_config *config, const char *text, struct err *err);
/* From JSON, checked. Finished by vm_attachment_finish(), also on failure. */
int vm_attachment_decode(const char *text, size_t size, struct vm_attachment *ret, struct err *err);
void vm_attachment_finish(struct vm_attachment *attachment);
/* As JSON, of a configuration's only device. */
int vm_attachment_encode(const struct vm_config *config, struct buf *ret, struct err *err);
/* What can be said without the machine; names the member and the way out. */
int vm_config_check(const struct vm_config *config, struct err *err);
