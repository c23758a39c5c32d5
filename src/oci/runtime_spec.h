/* The OCI runtime specification 1.3, Linux part, as C structs.
 *
 * Every struct has a json_shape; member names are the specification's, in
 * snake_case. What the specification calls optional and where zero has a
 * meaning has a `has_` flag beside it; an absent string is NULL, an absent
 * object a NULL pointer, an absent array has length 0. Sets of names that the
 * kernel or the runtime interprets (capabilities, system calls, mount options,
 * rlimit types, seccomp architectures and operators) stay strings; closed sets
 * of the specification are enums.
 *
 * Decoding (json_decode with oci_spec_shape) checks types, ranges and enum
 * names; oci_spec_validate() checks what a struct cannot say. Keys of other
 * platforms (windows, solaris, zos, freebsd, vm) and unknown keys are ignored,
 * as the specification asks.
 *
 * Ownership: all members belong to the struct and are returned by
 * json_free(&oci_spec_shape, spec). Links json-c only.
 *
 * Source: github.com/opencontainers/runtime-spec, config.md, config-linux.md,
 * runtime.md.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "codec/json.h"

#define OCI_RUNTIME_SPEC_VERSION "1.3.0"
#define OCI_CONFIG_SIZE_MAX      ((size_t)4 << 20) /* of config.json; a caller's limit for reading */

struct oci_console_size {
        uint32_t height, width;
};

struct oci_user {
        uint32_t uid, gid;
        uint32_t umask;
        bool has_umask;
        uint32_t *additional_gids;
        size_t additional_gids_length;
        char *username; /* not used on Linux */
};

struct oci_capabilities { /* names: "CAP_KILL" */
        char **bounding, **effective, **inheritable, **permitted, **ambient;
};

struct oci_rlimit {
        char *type; /* "RLIMIT_NOFILE" */
        uint64_t soft, hard;
};

enum oci_sched_policy {
        OCI_SCHED_UNSET,
        OCI_SCHED_OTHER,
        OCI_SCHED_FIFO,
        OCI_SCHED_RR,
        OCI_SCHED_BATCH,
        OCI_SCHED_ISO,
        OCI_SCHED_IDLE,
        OCI_SCHED_DEADLINE,
};

struct oci_scheduler {
        int policy; /* enum oci_sched_policy */
        int32_t nice, priority;
        char **flags; /* "SCHED_FLAG_RESET_ON_FORK" */
        uint64_t runtime_ns, deadline_ns, period_ns;
        bool has_runtime_ns, has_deadline_ns;
};

enum oci_ioprio_class { OCI_IOPRIO_UNSET, OCI_IOPRIO_RT, OCI_IOPRIO_BE, OCI_IOPRIO_IDLE };

struct oci_io_priority {
        int io_class; /* enum oci_ioprio_class */
        int32_t priority;
};

struct oci_cpu_affinity { /* for exec: lists as "0-3,7" */
        char *initial;
        char *final;
};

struct oci_process {
        bool terminal;
        struct oci_console_size *console_size;
        struct oci_user user;
        char **args;
        char **env; /* "NAME=value" */
        char *cwd;
        struct oci_capabilities *capabilities;
        struct oci_rlimit *rlimits;
        size_t rlimits_length;
        bool no_new_privileges;
        char *apparmor_profile;
        int32_t oom_score_adj;
        bool has_oom_score_adj;
        struct oci_scheduler *scheduler;
        char *selinux_label;
        struct oci_io_priority *io_priority;
        struct oci_cpu_affinity *exec_cpu_affinity;
};

struct oci_root {
        char *path; /* absolute, or relative to the bundle */
        bool readonly;
};

struct oci_id_mapping {
        uint32_t container_id, host_id, size;
};

struct oci_mount {
        char *destination;
        char *type;
        char *source;
        char **options;
        struct oci_id_mapping *uid_mappings;
        size_t uid_mappings_length;
        struct oci_id_mapping *gid_mappings;
        size_t gid_mappings_length;
};

struct oci_hook {
        char *path;
        char **args, **env;
        int32_t timeout_s;
        bool has_timeout_s;
};

struct oci_hooks {
        struct oci_hook *prestart;
        size_t prestart_length;
        struct oci_hook *create_runtime;
        size_t create_runtime_length;
        struct oci_hook *create_container;
        size_t create_container_length;
        struct oci_hook *start_container;
        size_t start_container_length;
        struct oci_hook *poststart;
        size_t poststart_length;
        struct oci_hook *poststop;
        size_t poststop_length;
};

enum oci_namespace_kind {
        OCI_NAMESPACE_UNSET,
        OCI_NAMESPACE_PID,
        OCI_NAMESPACE_NETWORK,
        OCI_NAMESPACE_MOUNT,
        OCI_NAMESPACE_IPC,
        OCI_NAMESPACE_UTS,
        OCI_NAMESPACE_USER,
        OCI_NAMESPACE_CGROUP,
        OCI_NAMESPACE_TIME,
        OCI_NAMESPACE_KINDS, /* count */
};

/* "pid", "network", …; "" for UNSET */
extern const char *const oci_namespace_names[];

struct oci_namespace {
        int kind;   /* enum oci_namespace_kind */
        char *path; /* to join; NULL creates a new one */
};

struct oci_time_offset {
        char *clock; /* key: "monotonic" or "boottime" */
        int64_t secs;
        uint32_t nanosecs;
};

/* A device node to create. Type: "c" or "u" (character), "b" (block), "p" (fifo). */
struct oci_device {
        char *path;
        char *type;
        int64_t major, minor;
        uint32_t file_mode;
        bool has_file_mode;
        uint32_t uid, gid;
        bool has_uid, has_gid;
};

struct oci_device_rule {
        bool allow;
        char *type; /* "a", "b", "c"; NULL is "a" */
        int64_t major, minor;
        bool has_major, has_minor; /* absent is any */
        char *access;              /* of "rwm"; NULL is all */
};

struct oci_memory {
        int64_t limit, reservation, swap, kernel, kernel_tcp; /* bytes; -1 unlimited */
        bool has_limit, has_reservation, has_swap, has_kernel, has_kernel_tcp;
        uint64_t swappiness;
        bool has_swappiness;
        bool disable_oom_killer, has_disable_oom_killer;
        bool use_hierarchy, has_use_hierarchy;
        bool check_before_update, has_check_before_update;
};

struct oci_cpu {
        uint64_t shares;
        int64_t quota_us; /* -1 unlimited */
        uint64_t burst_us, period_us;
        int64_t realtime_runtime_us;
        uint64_t realtime_period_us;
        int64_t idle;
        bool has_shares, has_quota_us, has_burst_us, has_period_us, has_realtime_runtime_us,
                has_realtime_period_us, has_idle;
        char *cpus, *mems;
};

struct oci_pids {
        int64_t limit; /* -1 unlimited */
        bool has_limit;
};

struct oci_weight_device {
        int64_t major, minor;
        uint16_t weight, leaf_weight;
        bool has_weight, has_leaf_weight;
};

struct oci_throttle_device {
        int64_t major, minor;
        uint64_t rate; /* bytes or operations a second */
};

struct oci_block_io {
        uint16_t weight, leaf_weight;
        bool has_weight, has_leaf_weight;
        struct oci_weight_device *weight_device;
        size_t weight_device_length;
        struct oci_throttle_device *throttle_read_bps;
        size_t throttle_read_bps_length;
        struct oci_throttle_device *throttle_write_bps;
        size_t throttle_write_bps_length;
        struct oci_throttle_device *throttle_read_iops;
        size_t throttle_read_iops_length;
        struct oci_throttle_device *throttle_write_iops;
        size_t throttle_write_iops_length;
};

struct oci_hugepage_limit {
        char *page_size; /* "2MB" */
        uint64_t limit_bytes;
};

struct oci_interface_priority {
        char *name;
        uint32_t priority;
};

struct oci_network_class { /* net_cls, net_prio */
        uint32_t class_id;
        bool has_class_id;
        struct oci_interface_priority *priorities;
        size_t priorities_length;
};

struct oci_rdma {
        char *device; /* key */
        uint32_t hca_handles, hca_objects;
        bool has_hca_handles, has_hca_objects;
};

struct oci_resources {
        struct oci_device_rule *devices;
        size_t devices_length;
        struct oci_memory *memory;
        struct oci_cpu *cpu;
        struct oci_pids *pids;
        struct oci_block_io *block_io;
        struct oci_hugepage_limit *hugepage_limits;
        size_t hugepage_limits_length;
        struct oci_network_class *network;
        struct oci_rdma *rdma;
        size_t rdma_length;
        char **unified; /* map: cgroup v2 file name = content */
};

enum oci_seccomp_action {
        OCI_SECCOMP_UNSET,
        OCI_SECCOMP_KILL, /* the thread; KILL_THREAD is the same */
        OCI_SECCOMP_KILL_PROCESS,
        OCI_SECCOMP_KILL_THREAD,
        OCI_SECCOMP_TRAP,
        OCI_SECCOMP_ERRNO,
        OCI_SECCOMP_TRACE,
        OCI_SECCOMP_ALLOW,
        OCI_SECCOMP_LOG,
        OCI_SECCOMP_NOTIFY,
};

enum oci_seccomp_op {
        OCI_SECCOMP_OP_UNSET,
        OCI_SECCOMP_OP_NE,
        OCI_SECCOMP_OP_LT,
        OCI_SECCOMP_OP_LE,
        OCI_SECCOMP_OP_EQ,
        OCI_SECCOMP_OP_GE,
        OCI_SECCOMP_OP_GT,
        OCI_SECCOMP_OP_MASKED_EQ,
};

struct oci_seccomp_arg {
        uint32_t index; /* 0 … 5 */
        uint64_t value, value_two;
        int op; /* enum oci_seccomp_op */
};

struct oci_syscall {
        char **names;
        int action; /* enum oci_seccomp_action */
        uint32_t errno_ret;
        bool has_errno_ret;
        struct oci_seccomp_arg *args;
        size_t args_length;
};

struct oci_seccomp {
        int default_action; /* enum oci_seccomp_action */
        uint32_t default_errno_ret;
        bool has_default_errno_ret;
        char **architectures; /* "SCMP_ARCH_X86_64" */
        char **flags;         /* "SECCOMP_FILTER_FLAG_LOG" */
        char *listener_path, *listener_metadata;
        struct oci_syscall *syscalls;
        size_t syscalls_length;
};

struct oci_intel_rdt {
        char *clos_id;
        char **schemata;
        char *l3_cache_schema, *mem_bw_schema;
        bool enable_monitoring;
        bool enable_cmt, enable_mbm; /* of specifications before 1.3 */
};

enum oci_personality_domain {
        OCI_PERSONALITY_UNSET,
        OCI_PERSONALITY_LINUX,
        OCI_PERSONALITY_LINUX32,
};

struct oci_personality {
        int domain; /* enum oci_personality_domain */
        char **flags;
};

struct oci_net_device {
        char *host_name; /* key: name in the runtime's network namespace */
        char *name;      /* in the container; NULL keeps it */
};

enum oci_memory_policy_mode {
        OCI_MPOL_UNSET,
        OCI_MPOL_DEFAULT,
        OCI_MPOL_BIND,
        OCI_MPOL_INTERLEAVE,
        OCI_MPOL_WEIGHTED_INTERLEAVE,
        OCI_MPOL_PREFERRED,
        OCI_MPOL_PREFERRED_MANY,
        OCI_MPOL_LOCAL,
};

struct oci_memory_policy {
        int mode; /* enum oci_memory_policy_mode */
        char *nodes;
        char **flags; /* "MPOL_F_STATIC_NODES" */
};

enum oci_propagation {
        OCI_PROPAGATION_UNSET,
        OCI_PROPAGATION_SHARED,
        OCI_PROPAGATION_SLAVE,
        OCI_PROPAGATION_PRIVATE,
        OCI_PROPAGATION_UNBINDABLE,
        OCI_PROPAGATION_RSHARED,
        OCI_PROPAGATION_RSLAVE,
        OCI_PROPAGATION_RPRIVATE,
        OCI_PROPAGATION_RUNBINDABLE,
};

struct oci_linux {
        struct oci_namespace *namespaces;
        size_t namespaces_length;
        struct oci_id_mapping *uid_mappings;
        size_t uid_mappings_length;
        struct oci_id_mapping *gid_mappings;
        size_t gid_mappings_length;
        struct oci_time_offset *time_offsets;
        size_t time_offsets_length;
        struct oci_device *devices;
        size_t devices_length;
        struct oci_net_device *net_devices;
        size_t net_devices_length;
        char *cgroups_path;
        struct oci_resources *resources;
        int rootfs_propagation; /* enum oci_propagation */
        struct oci_seccomp *seccomp;
        char **sysctl; /* map */
        char **masked_paths, **readonly_paths;
        char *mount_label;
        struct oci_personality *personality;
        struct oci_intel_rdt *intel_rdt;
        struct oci_memory_policy *memory_policy;
};

struct oci_spec {
        char *oci_version;
        struct oci_root *root;
        struct oci_mount *mounts;
        size_t mounts_length;
        struct oci_process *process;
        char *hostname, *domainname;
        struct oci_hooks *hooks;
        char **annotations; /* map */
        struct oci_linux *linux_;
};

/* What `isle-runtime state` prints and hooks read. */
struct oci_state {
        char *oci_version;
        char *id;
        char *status; /* "creating", "created", "running", "stopped"; ours adds "paused" */
        int64_t pid;
        bool has_pid;
        char *bundle;
        char **annotations; /* map */
};

extern const struct json_shape oci_spec_shape;
extern const struct json_shape oci_mount_shape;
extern const struct json_shape oci_process_shape;
extern const struct json_shape oci_resources_shape;
extern const struct json_shape oci_state_shape;
extern const struct json_shape oci_seccomp_shape; /* a profile file in the runtime's form */

/* Decodes and validates a config.json. */
int oci_spec_parse(const char *text, size_t size, struct oci_spec *ret, struct err *err);

/* What the types do not say: a version this code knows (1.x), root and process
 * present and complete, absolute paths, no namespace twice, mappings only where
 * there is a user namespace and not overlapping, time offsets of known clocks
 * and only with a new time namespace, device types, rlimits not twice and soft
 * <= hard, seccomp argument indexes, hook paths and timeouts, environment and
 * sysctl and annotation keys that are not empty. Whether the host can do it
 * (capability names, system calls, cgroup controllers) is the runtime's to say. */
int oci_spec_validate(const struct oci_spec *spec, struct err *err);
/* The same for a process by itself (exec). */
int oci_process_validate(const struct oci_process *process, struct err *err);
int oci_resources_validate(const struct oci_resources *resources, struct err *err);

/* The namespace of a kind, or NULL. */
const struct oci_namespace *oci_spec_namespace(const struct oci_spec *spec,
                                               enum oci_namespace_kind kind);
