/* Containers that run in virtual machines: the OCI runtime's verbs, with --vm.
 *
 * Theory of operation. To the host, such a container is a container whose program is a
 * virtual machine: the runtime (src/runtime) makes namespaces, cgroups, hooks and the
 * state directory as for any other, from a spec that jail.c derives from config.json.
 * Its root holds nothing but what the machine needs, and its first process is the shim
 * (shim.c), which starts isle-vmm, has the agent in the guest make the container there
 * from a second spec (inside.c), and then stands for the container's first process:
 * it has its standard descriptors, takes its signals, and ends with its status. So
 * kill, pause, state and list need no code of their own, start and delete only for the
 * network (network.h), resume for the clock (clock.h), and when the shim dies, however it dies, the
 * pid namespace takes the machine with it.
 *
 *   ROOT/ID/vm/     bound into the jail: shim.json, and the Unix socket behind the
 *                   guest's vsock, through which exec reaches the agent
 *   ROOT/ID/control/  bound there, too: the control socket of isle-vmm, for update
 *   ROOT/ID/jail/   the jail's root: mount points only
 *
 * In the jail /share is what the guest sees by virtio-fs: rootfs/ and, for each bind
 * mount, mounts/N. A root that is made of layers is none of it: root.h. */
#pragma once

#include "base/buf.h"
#include "guest/root.h"
#include "runtime/cli.h"
#include "runtime/container.h"
#include "runtime/launch.h"

#define GUEST_ID        "container" /* of the only container in the guest */
#define GUEST_DIRECTORY "/isle/vm"  /* in the jail: ROOT/ID/vm */
#define GUEST_TEMPLATE  "/isle/template"
#define GUEST_SHARE     "/share"
/* Of isle-vmm's control socket, apart: who breaks out of the machine sees the vsock's only. */
#define GUEST_CONTROL_NAME   "control" /* in ROOT/ID */
#define GUEST_CONTROL        "/isle/control"
#define GUEST_CONTROL_SOCKET "api"
#define GUEST_SOCKET         "vsock" /* in that directory */

#define GUEST_CACHE "/var/cache/isle"

/* Behind the first line: against what would wake a guest that has nothing to do, some times in a
 * second (the watch over the TSC, compaction ahead of need) or in a minute; and free pages
 * shall not wait in lists of their processor, where 50 MiB of them are out of the host's reach. */
#define GUEST_KERNEL_ARGUMENTS                                                                     \
        "console=ttyS0 quiet cryptomgr.notests panic=-1"                                           \
        " tsc=reliable nowatchdog"                                                                 \
        " sysctl.vm.compaction_proactiveness=0 sysctl.vm.stat_interval=60"                         \
        " sysctl.net.ipv4.neigh.default.interval_probe_time_ms=3600000"                            \
        " sysctl.net.ipv6.neigh.default.interval_probe_time_ms=3600000"                            \
        " sysctl.vm.percpu_pagelist_high_fraction=10000000"

/* Annotation of config.json: kvm, soft or auto. Of the container's state: which of the first two
 * it is. Without it the environment's ISLE_VM_CPU decides. */
#define GUEST_CPU_ANNOTATION "isle.vm.cpu"
/* The same of its model, and the environment's ISLE_VM_CPU_MODEL. */
#define GUEST_CPU_MODEL_ANNOTATION "isle.vm.cpu-model"
#define GUEST_CPU_FILE             "cpu" /* in that directory, the same, for engines */
/* In that directory, for engines: how often the guest's kernel killed in the container for want of
 * memory, "0" to begin with. Replaced, but not more than some times in a second. */
#define GUEST_OOM_FILE "oom"

/* What the machine is made of, chosen before anything is: parts.c. */
struct guest_parts {
        char *kernel, *initramfs;
        char *vmm, *runtime; /* programs */
        char *template;      /* NULL: none */
        struct guest_root root;
};
int guest_parts_find(struct guest_parts *ret, struct err *err);
void guest_parts_finish(struct guest_parts *parts);

/* An initial ramdisk with the agent, the runtime and the modules that a guest needs, for
 * one kernel; made once and kept: initramfs.c. */
int initramfs_ensure(const char *kernel, const char *agent, const char *runtime, char **ret_path,
                     struct err *err);

/* What it holds, appended to `archive`. */
int initramfs_build(const char *kernel, const char *agent, const char *runtime, struct buf *archive,
                    struct err *err);

/* Memory that machines of this kernel and ramdisk have in common; made once and kept:
 * template.c. *ret_path is untouched where this kernel has none. */
int template_ensure(const struct guest_parts *parts, char **ret_path, struct err *err);

/* What neither spec can be made without. */
int guest_check_parts(const struct oci_spec *spec, struct err *err);
/* config.json -> the jail's spec: jail.c. `channel` is the shim's descriptor. */
int guest_make_jail(struct oci_spec *spec, const struct guest_parts *parts, const char *state,
                    int channel, struct err *err);
/* config.json -> the guest's: inside.c; heap text. `layered`: the agent makes the root. */
int guest_make_inside(const char *config, bool layered, char **ret_text, struct err *err);

/* A read-only root is read-only to the machine, which cannot make mount points there: makes those
 * of a config.json, on the host, as a container's creation does; relative to the bundle, which is
 * the working directory. targets.c. */
int guest_make_targets(const struct oci_spec *spec, struct err *err);

/* It shows something of the host's, and so comes by the share. */
bool guest_mount_is_bind(const struct oci_mount *mount);

/* --- how large it is: size.c --- */

/* Annotations of config.json: how far `update` can go beyond the limits at creation. */
#define GUEST_MEMORY_ANNOTATION "isle.vm.memory-max"
#define GUEST_CPUS_ANNOTATION   "isle.vm.cpus-max"
#define GUEST_CPUS_MAX          64

struct guest_size {
        uint64_t memory_bytes;
        uint32_t cpus, cpus_max; /* at the start, and that there are */
};
int guest_size(const struct oci_spec *spec, struct guest_size *ret, struct err *err);
/* What the limits alone ask for. */
uint64_t guest_memory_bytes(const struct oci_spec *spec);
unsigned guest_cpus(const struct oci_spec *spec);
/* The memory of a machine for a container with this limit, not more than the host has; and the
 * processors for a quota. */
uint64_t guest_memory_for(int64_t limit_bytes);
unsigned guest_cpus_for(const struct oci_cpu *cpu);
/* Limits of the container become those of its machine, on the host. `cpus`: that there may be. */
void guest_host_limits(struct oci_resources *resources, uint64_t machine_bytes, unsigned cpus);
/* By which they grow. */
uint64_t guest_overhead_bytes(uint64_t machine_bytes, unsigned cpus);
/* What CPUID shows of it: of isle-vmm's --cpu-model, static. NULL: all that the host has. */
int guest_choose_cpu_model(const struct oci_spec *spec, const char **ret, struct err *err);
/* "kvm" or "soft", static. */
int guest_choose_cpu(const struct oci_spec *spec, const char **ret, struct err *err);

/* --- verbs that differ --- */
int guest_create(const struct launch_options *options, struct err *err);
int guest_run(const struct launch_options *options, bool keep, int *ret_code, struct err *err);
int guest_exec(const struct exec_options *options, int *ret_code, struct err *err);
int guest_start(const char *root, const char *id, struct err *err);
int guest_resume(const char *root, const char *id, struct err *err);
int guest_delete(const char *root, const char *id, bool force, struct err *err);
/* The guest's processes, as ps(1) with these options prints them, on standard output. */
int guest_ps(const char *root, const char *id, char *const *options, struct err *err);
/* The tar archive at standard input goes into the container, unpacked by its agent: extract.c. */
int guest_extract(const struct extract_options *options, struct err *err);
/* A file of the container, with what is beneath it, as a tar archive at standard output, behind a
 * line {"mode":…,"size_bytes":…,"mtime_ns":…,"link":…}; or that line alone: archive.c. */
int guest_archive(const struct archive_options *options, struct err *err);
/* A connection to the agent of a machine that runs; `what` it cannot do while paused. */
int guest_reach(const char *root, const char *id, const char *what, int *ret_fd, struct err *err);
/* New limits, for the host's groups, the container's in the guest, and the machine: update.c. */
int guest_update(const char *root, const char *id, struct oci_resources *resources,
                 struct err *err);

/* The network namespace of a process. */
int guest_open_network(pid_t pid, int *ret_fd, struct err *err);

/* What the shim is told, in GUEST_DIRECTORY/shim.json. */
struct shim_config {
        uint64_t memory_bytes;
        uint32_t cpus, cpus_max;
        char *cpu;                   /* of isle-vmm's --cpu */
        char *cpu_model;             /* of its --cpu-model; NULL: its default */
        char *inside;                /* config.json of the guest */
        char *upper;                 /* NULL: the root is shared; root.h */
        bool read_only, is_volatile; /* with `upper` */
        bool terminal;
        bool waits; /* a listening socket follows on the channel: `start` comes there */
};
#define GUEST_CONFIG "shim.json"
extern const struct json_shape shim_config_shape;

/* The shim's main function; `channel` is a descriptor. Does not return. */
void shim_main(int channel) __attribute__((noreturn));
