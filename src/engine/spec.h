/* What a user asks for: the Docker Engine API's container configuration.
 *
 * `struct instance_spec` is Config + HostConfig (+ NetworkingConfig, accepted
 * as it is) with docker's own field names, so the same shapes read the body of
 * POST /containers/create, write the record in the store and answer inspect.
 * Members are named like docker's keys in snake case; a comment stands only
 * where the key does not explain itself. Absent lists and maps are NULL.
 *
 * What Isle cannot do (yet) is refused by spec_check() with a clear error when
 * an instance is created; nothing is ignored silently except the few keys that
 * spec.c lists as meaningless on Linux or deprecated.
 *
 * Source: Docker Engine API v1.47, definitions ContainerConfig, HostConfig.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "codec/json.h"

struct health_config {
        char **test;         /* {"NONE"}, {"CMD", args…}, {"CMD-SHELL", command} */
        int64_t interval_ns; /* 0 inherits */
        int64_t timeout_ns;
        int64_t start_period_ns;
        int64_t start_interval_ns;
        int64_t retries;
};

/* docker's Config */
struct instance_config {
        char *hostname; /* empty: the first 12 digits of the id */
        char *domainname;
        char *user;                                      /* name|uid[:group|gid] */
        bool attach_stdin, attach_stdout, attach_stderr; /* what the CLI will attach; informative */
        char **exposed_ports;                            /* "80/tcp" */
        bool tty;
        bool open_stdin; /* keep a stdin for attach */
        bool stdin_once; /* close it when its first client goes */
        char **env;      /* KEY=VALUE */
        char **cmd;
        struct health_config *healthcheck;
        bool args_escaped;
        char *image;    /* as the user wrote it */
        char **volumes; /* set of paths */
        char *working_dir;
        char **entrypoint;
        bool network_disabled;
        char *mac_address;
        char **on_build;
        char **labels;     /* map */
        char *stop_signal; /* empty: SIGTERM */
        bool has_stop_timeout;
        int64_t stop_timeout; /* seconds; -1 is for ever */
        char **shell;
};

struct log_config {
        char *type;    /* json-file (default) or none */
        char **config; /* map: max-size, max-file, labels … */
};

struct restart_policy {
        char *name; /* "", no, always, unless-stopped, on-failure */
        int64_t maximum_retry_count;
};

struct device_mapping {
        char *path_on_host, *path_in_container, *cgroup_permissions;
};

struct device_request { /* GPUs; refused */
        char *driver;
        int64_t count;
        char **device_ids;
};

struct ulimit {
        char *name;
        int64_t soft, hard; /* -1 unlimited */
};

struct weight_device {
        char *path;
        uint16_t weight;
};

struct throttle_device {
        char *path;
        uint64_t rate;
};

struct bind_options {
        char *propagation;
        bool non_recursive, create_mountpoint, read_only_non_recursive, read_only_force_recursive;
};

struct volume_options {
        bool no_copy;
        char **labels; /* map */
        struct json_object *driver_config;
        char *subpath;
};

struct tmpfs_options {
        int64_t size_bytes;
        uint32_t mode;
        struct json_object *options;
};

/* One --mount. */
struct mount_request {
        char *type; /* bind, volume, tmpfs */
        char *source, *target;
        bool read_only;
        char *consistency; /* ignored on Linux */
        struct bind_options *bind_options;
        struct volume_options *volume_options;
        struct tmpfs_options *tmpfs_options;
};

/* docker's HostConfig */
struct host_config {
        char **binds; /* src:dst[:options] */
        char *container_id_file;
        struct log_config log_config;
        char *network_mode; /* "", default, none, host, container:NAME; others refused */
        struct json_object *port_bindings;
        struct restart_policy restart_policy;
        bool auto_remove;
        char *volume_driver;
        char **volumes_from;        /* name[:ro|rw] */
        uint32_t *console_size;     /* rows, columns */
        size_t console_size_length; /* 2 or 0 */
        char **annotations;         /* map */

        char **cap_add, **cap_drop;
        char *cgroupns_mode; /* "", private, host */
        char **dns, **dns_options, **dns_search;
        char **extra_hosts; /* host:ip */
        char **group_add;
        char *ipc_mode; /* "", none, private, shareable, host, container:NAME */
        char *cgroup;
        char **links;
        int64_t oom_score_adj;
        char *pid_mode; /* "", host, container:NAME */
        bool privileged;
        bool publish_all_ports;
        bool readonly_rootfs;
        char **security_opt;
        char **storage_opt; /* map */
        char **tmpfs;       /* map: path=options */
        char *uts_mode;     /* "", host */
        char *userns_mode;  /* "", host */
        int64_t shm_size;   /* bytes; 0: 64 MiB */
        char **sysctls;     /* map */
        char *runtime;
        char *isolation;

        uint64_t cpu_shares;
        int64_t memory, nano_cpus;
        char *cgroup_parent;
        uint16_t blkio_weight;
        struct weight_device *blkio_weight_device;
        size_t blkio_weight_device_length;
        struct throttle_device *blkio_device_read_bps, *blkio_device_write_bps;
        struct throttle_device *blkio_device_read_iops, *blkio_device_write_iops;
        size_t blkio_device_read_bps_length, blkio_device_write_bps_length;
        size_t blkio_device_read_iops_length, blkio_device_write_iops_length;
        int64_t cpu_period, cpu_quota;
        int64_t cpu_realtime_period, cpu_realtime_runtime;
        char *cpuset_cpus, *cpuset_mems;
        struct device_mapping *devices;
        size_t devices_length;
        char **device_cgroup_rules; /* "c 1:3 rwm" */
        struct device_request *device_requests;
        size_t device_requests_length;
        int64_t kernel_memory_tcp;
        int64_t memory_reservation;
        int64_t memory_swap; /* memory + swap; -1 unlimited; 0: twice memory */
        bool has_memory_swappiness;
        int64_t memory_swappiness;
        bool has_oom_kill_disable, oom_kill_disable;
        bool has_pids_limit;
        int64_t pids_limit; /* <= 0 unlimited */
        struct ulimit *ulimits;
        size_t ulimits_length;
        int64_t cpu_count, cpu_percent;
        struct mount_request *mounts;
        size_t mounts_length;
        bool has_masked_paths, has_readonly_paths; /* false: docker's default lists */
        char **masked_paths, **readonly_paths;
        bool has_init, init;
};

struct instance_spec {
        struct instance_config config;
        struct host_config host;
        struct json_object *networking; /* NetworkingConfig of the request, or NULL */
};

extern const struct json_shape config_shape;
extern const struct json_shape host_config_shape;
/* {"Config": …, "HostConfig": …, "NetworkingConfig": …}: the store's form. */
extern const struct json_shape instance_spec_shape;
/* The resources of HostConfig plus RestartPolicy: the body of POST /update. */
#define update_shape host_config_shape

/* The body of POST /containers/create: Config's keys at the top, HostConfig and
 * NetworkingConfig beside them. The caller frees with spec_finish(). */
int spec_decode_create(const char *text, size_t size, struct instance_spec *ret, struct err *err);

struct instance_spec *spec_copy(const struct instance_spec *spec);
void spec_finish(struct instance_spec *spec); /* members, not the struct; NULL allowed */

/* Names of the runtimes: "isle-vm" runs in a virtual machine; "runc" is docker's name for ours. */
bool runtime_is_known(const char *name);
/* Of a virtual machine, in Annotations: its processor, auto, kvm or soft. */
#define SPEC_VM_CPU "isle.vm.cpu"
/* Its model: what CPUID shows of it; host or a level of the psABI (src/cpu/model.h). */
#define SPEC_VM_CPU_MODEL "isle.vm.cpu-model"
bool vm_cpu_model_is_known(const char *model);
#define SPEC_VM_CPU_MODELS "host, x86-64, x86-64-v2 and x86-64-v3"
/* Of a virtual machine, in Annotations: its root file system, fs or erofs (src/guest/root.h). */
#define SPEC_VM_ROOTFS       "isle.vm.rootfs"
#define SPEC_VM_ROOTFS_IMAGE "isle.vm.rootfs-image"
bool vm_rootfs_is_known(const char *rootfs);
/* In a virtual machine: by its isolation ("vm") or its runtime ("isle-vm"). */
bool host_config_wants_vm(const struct host_config *host);
/* In one that makes its root of the layers by itself: erofs. */
bool host_config_wants_layers(const struct host_config *host);

/* Refuses what cannot be done and what makes no sense (-EINVAL, the text is for
 * the user); appends warnings (strv) for what is accepted but has no effect. */
int spec_check(const struct instance_spec *spec, char ***warnings, struct err *err);
