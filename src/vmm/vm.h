/* From a configuration to a machine that runs. */
#pragma once

#include "vmm/config.h"
#include "vmm/machine.h"
#include "vmm/virtio/net.h"

struct balloon;
struct gdb_server;
struct hotplug;
struct keyboard;
struct power;
struct snapshot;

/* A built machine and the devices that somebody will want to speak to. */
struct vm {
        struct machine *machine;
        struct keyboard *keyboard;
        struct power *power;
        struct balloon *balloon; /* NULL with an IOMMU */
        struct gdb_server *gdb;  /* NULL: none */
        struct hotplug *hotplug;
};

/* Where the machine meets the host's networks, and who debugs it. Opened before the machine's
 * process is made, which has a network of its own, and kept open over resets. */
struct vm_ports {
        int taps[VM_NETWORKS_MAX][NET_PAIRS]; /* -1: none */
        int vsock_fd;                         /* -1: none; listens at vsock_path */
        const char *vsock_path;               /* the configuration's */
        int gdb_fd;                           /* -1: none; listens */
        const char *gdb_path;                 /* NULL: not a Unix socket */
        struct snapshot *restore;             /* what the next life goes on from; NULL: none */
        bool gdb_wait;                        /* the guest stands until a debugger lets it go */
};

/* `config` has been checked, and must outlive the ports. */
int vm_ports_open(const struct vm_config *config, struct vm_ports *ret, struct err *err);
void vm_ports_close(struct vm_ports *ports);

/* Builds it and loads the kernel; nothing runs yet. */
int vm_create(struct loop *loop, const struct vm_config *config, const struct vm_ports *ports,
              struct vm *ret, struct err *err);
void vm_destroy(struct vm *vm);

/* Attaches a device to a machine that runs. `fds`, at least one, are its files or its tap's
 * queues, taken over also on failure. Loop's thread. */
int vm_attach(struct vm *vm, const char *name, const struct vm_attachment *what, const int *fds,
              unsigned length, struct err *err);
