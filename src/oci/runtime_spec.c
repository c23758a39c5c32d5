/* The tables. One for each object of the specification, leaves first. */
#include "oci/runtime_spec.h"

#include <assert.h>

#define COUNT_OF(names) (sizeof(names) / sizeof((names)[0]) - 1)

/* Process */

static const struct json_field console_size_fields[] = {
        JSON_FIELD(struct oci_console_size, "height", JSON_UINT, height, JSON_REQUIRED),
        JSON_FIELD(struct oci_console_size, "width", JSON_UINT, width, JSON_REQUIRED),
};
static const struct json_shape console_size_shape = JSON_SHAPE(
        "consoleSize", struct oci_console_size, console_size_fields);

static const struct json_field user_fields[] = {
        JSON_FIELD(struct oci_user, "uid", JSON_UINT, uid, JSON_KEEP_EMPTY),
        JSON_FIELD(struct oci_user, "gid", JSON_UINT, gid, JSON_KEEP_EMPTY),
        JSON_FIELD_OPT(struct oci_user, "umask", JSON_UINT, umask, has_umask),
        JSON_FIELD_UINTV(struct oci_user, "additionalGids", additional_gids, additional_gids_length,
                         0),
        JSON_FIELD(struct oci_user, "username", JSON_STRING, username, 0),
};
static const struct json_shape user_shape = JSON_SHAPE("user", struct oci_user, user_fields);

static const struct json_field capabilities_fields[] = {
        JSON_FIELD(struct oci_capabilities, "bounding", JSON_STRV, bounding, 0),
        JSON_FIELD(struct oci_capabilities, "effective", JSON_STRV, effective, 0),
        JSON_FIELD(struct oci_capabilities, "inheritable", JSON_STRV, inheritable, 0),
        JSON_FIELD(struct oci_capabilities, "permitted", JSON_STRV, permitted, 0),
        JSON_FIELD(struct oci_capabilities, "ambient", JSON_STRV, ambient, 0),
};
static const struct json_shape capabilities_shape = JSON_SHAPE(
        "capabilities", struct oci_capabilities, capabilities_fields);

static const struct json_field rlimit_fields[] = {
        JSON_FIELD(struct oci_rlimit, "type", JSON_STRING, type, JSON_REQUIRED),
        JSON_FIELD(struct oci_rlimit, "hard", JSON_UINT, hard, JSON_REQUIRED),
        JSON_FIELD(struct oci_rlimit, "soft", JSON_UINT, soft, JSON_REQUIRED),
};
static const struct json_shape rlimit_shape = JSON_SHAPE("rlimit", struct oci_rlimit,
                                                         rlimit_fields);

static const char *const sched_policy_names[] = {
        "",          "SCHED_OTHER", "SCHED_FIFO",     "SCHED_RR", "SCHED_BATCH",
        "SCHED_ISO", "SCHED_IDLE",  "SCHED_DEADLINE", NULL,
};
static_assert(COUNT_OF(sched_policy_names) == OCI_SCHED_DEADLINE + 1, "names follow the enum");

static const struct json_field scheduler_fields[] = {
        JSON_FIELD_ENUM(struct oci_scheduler, "policy", policy, sched_policy_names, JSON_REQUIRED),
        JSON_FIELD(struct oci_scheduler, "nice", JSON_INT, nice, 0),
        JSON_FIELD(struct oci_scheduler, "priority", JSON_INT, priority, 0),
        JSON_FIELD(struct oci_scheduler, "flags", JSON_STRV, flags, 0),
        JSON_FIELD_OPT(struct oci_scheduler, "runtime", JSON_UINT, runtime_ns, has_runtime_ns),
        JSON_FIELD_OPT(struct oci_scheduler, "deadline", JSON_UINT, deadline_ns, has_deadline_ns),
        JSON_FIELD(struct oci_scheduler, "period", JSON_UINT, period_ns, 0),
};
static const struct json_shape scheduler_shape = JSON_SHAPE("scheduler", struct oci_scheduler,
                                                            scheduler_fields);

static const char *const ioprio_class_names[] = {
        "", "IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE", NULL,
};
static_assert(COUNT_OF(ioprio_class_names) == OCI_IOPRIO_IDLE + 1, "names follow the enum");

static const struct json_field io_priority_fields[] = {
        JSON_FIELD_ENUM(struct oci_io_priority, "class", io_class, ioprio_class_names,
                        JSON_REQUIRED),
        JSON_FIELD(struct oci_io_priority, "priority", JSON_INT, priority, JSON_KEEP_EMPTY),
};
static const struct json_shape io_priority_shape = JSON_SHAPE("ioPriority", struct oci_io_priority,
                                                              io_priority_fields);

static const struct json_field cpu_affinity_fields[] = {
        JSON_FIELD(struct oci_cpu_affinity, "initial", JSON_STRING, initial, 0),
        JSON_FIELD(struct oci_cpu_affinity, "final", JSON_STRING, final, 0),
};
static const struct json_shape cpu_affinity_shape = JSON_SHAPE(
        "execCPUAffinity", struct oci_cpu_affinity, cpu_affinity_fields);

static const struct json_field process_fields[] = {
        JSON_FIELD(struct oci_process, "terminal", JSON_BOOL, terminal, 0),
        JSON_FIELD_POINTER(struct oci_process, "consoleSize", console_size, &console_size_shape, 0),
        JSON_FIELD_STRUCT(struct oci_process, "user", user, &user_shape, JSON_KEEP_EMPTY),
        JSON_FIELD(struct oci_process, "args", JSON_STRV, args, 0),
        JSON_FIELD(struct oci_process, "env", JSON_STRV, env, 0),
        JSON_FIELD(struct oci_process, "cwd", JSON_STRING, cwd, JSON_REQUIRED),
        JSON_FIELD_POINTER(struct oci_process, "capabilities", capabilities, &capabilities_shape,
                           0),
        JSON_FIELD_ARRAY(struct oci_process, "rlimits", rlimits, rlimits_length, &rlimit_shape, 0),
        JSON_FIELD(struct oci_process, "noNewPrivileges", JSON_BOOL, no_new_privileges, 0),
        JSON_FIELD(struct oci_process, "apparmorProfile", JSON_STRING, apparmor_profile, 0),
        JSON_FIELD_OPT(struct oci_process, "oomScoreAdj", JSON_INT, oom_score_adj,
                       has_oom_score_adj),
        JSON_FIELD_POINTER(struct oci_process, "scheduler", scheduler, &scheduler_shape, 0),
        JSON_FIELD(struct oci_process, "selinuxLabel", JSON_STRING, selinux_label, 0),
        JSON_FIELD_POINTER(struct oci_process, "ioPriority", io_priority, &io_priority_shape, 0),
        JSON_FIELD_POINTER(struct oci_process, "execCPUAffinity", exec_cpu_affinity,
                           &cpu_affinity_shape, 0),
};
const struct json_shape oci_process_shape = JSON_SHAPE("process", struct oci_process,
                                                       process_fields);

/* Root, mounts, hooks */

static const struct json_field root_fields[] = {
        JSON_FIELD(struct oci_root, "path", JSON_STRING, path, JSON_REQUIRED),
        JSON_FIELD(struct oci_root, "readonly", JSON_BOOL, readonly, 0),
};
static const struct json_shape root_shape = JSON_SHAPE("root", struct oci_root, root_fields);

static const struct json_field id_mapping_fields[] = {
        JSON_FIELD(struct oci_id_mapping, "containerID", JSON_UINT, container_id, JSON_REQUIRED),
        JSON_FIELD(struct oci_id_mapping, "hostID", JSON_UINT, host_id, JSON_REQUIRED),
        JSON_FIELD(struct oci_id_mapping, "size", JSON_UINT, size, JSON_REQUIRED),
};
static const struct json_shape id_mapping_shape = JSON_SHAPE("mapping", struct oci_id_mapping,
                                                             id_mapping_fields);

static const struct json_field mount_fields[] = {
        JSON_FIELD(struct oci_mount, "destination", JSON_STRING, destination, JSON_REQUIRED),
        JSON_FIELD(struct oci_mount, "type", JSON_STRING, type, 0),
        JSON_FIELD(struct oci_mount, "source", JSON_STRING, source, 0),
        JSON_FIELD(struct oci_mount, "options", JSON_STRV, options, 0),
        JSON_FIELD_ARRAY(struct oci_mount, "uidMappings", uid_mappings, uid_mappings_length,
                         &id_mapping_shape, 0),
        JSON_FIELD_ARRAY(struct oci_mount, "gidMappings", gid_mappings, gid_mappings_length,
                         &id_mapping_shape, 0),
};
const struct json_shape oci_mount_shape = JSON_SHAPE("mount", struct oci_mount, mount_fields);

static const struct json_field hook_fields[] = {
        JSON_FIELD(struct oci_hook, "path", JSON_STRING, path, JSON_REQUIRED),
        JSON_FIELD(struct oci_hook, "args", JSON_STRV, args, 0),
        JSON_FIELD(struct oci_hook, "env", JSON_STRV, env, 0),
        JSON_FIELD_OPT(struct oci_hook, "timeout", JSON_INT, timeout_s, has_timeout_s),
};
static const struct json_shape hook_shape = JSON_SHAPE("hook", struct oci_hook, hook_fields);

#define HOOKS(key, member)                                                                         \
        JSON_FIELD_ARRAY(struct oci_hooks, key, member, member##_length, &hook_shape, 0)
static const struct json_field hooks_fields[] = {
        HOOKS("prestart", prestart),
        HOOKS("createRuntime", create_runtime),
        HOOKS("createContainer", create_container),
        HOOKS("startContainer", start_container),
        HOOKS("poststart", poststart),
        HOOKS("poststop", poststop),
};
static const struct json_shape hooks_shape = JSON_SHAPE("hooks", struct oci_hooks, hooks_fields);

/* Namespaces, devices */

const char *const oci_namespace_names[] = {
        "", "pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time", NULL,
};
static_assert(COUNT_OF(oci_namespace_names) == OCI_NAMESPACE_KINDS, "names follow the enum");

static const struct json_field namespace_fields[] = {
        JSON_FIELD_ENUM(struct oci_namespace, "type", kind, oci_namespace_names, JSON_REQUIRED),
        JSON_FIELD(struct oci_namespace, "path", JSON_STRING, path, 0),
};
static const struct json_shape namespace_shape = JSON_SHAPE("namespace", struct oci_namespace,
                                                            namespace_fields);

static const struct json_field time_offset_fields[] = {
        JSON_FIELD(struct oci_time_offset, "secs", JSON_INT, secs, 0),
        JSON_FIELD(struct oci_time_offset, "nanosecs", JSON_UINT, nanosecs, 0),
};
static const struct json_shape time_offset_shape = JSON_SHAPE("timeOffset", struct oci_time_offset,
                                                              time_offset_fields);

static const struct json_field device_fields[] = {
        JSON_FIELD(struct oci_device, "path", JSON_STRING, path, JSON_REQUIRED),
        JSON_FIELD(struct oci_device, "type", JSON_STRING, type, JSON_REQUIRED),
        JSON_FIELD(struct oci_device, "major", JSON_INT, major, JSON_KEEP_EMPTY),
        JSON_FIELD(struct oci_device, "minor", JSON_INT, minor, JSON_KEEP_EMPTY),
        JSON_FIELD_OPT(struct oci_device, "fileMode", JSON_UINT, file_mode, has_file_mode),
        JSON_FIELD_OPT(struct oci_device, "uid", JSON_UINT, uid, has_uid),
        JSON_FIELD_OPT(struct oci_device, "gid", JSON_UINT, gid, has_gid),
};
static const struct json_shape device_shape = JSON_SHAPE("device", struct oci_device,
                                                         device_fields);

static const struct json_field net_device_fields[] = {
        JSON_FIELD(struct oci_net_device, "name", JSON_STRING, name, 0),
};
static const struct json_shape net_device_shape = JSON_SHAPE("netDevice", struct oci_net_device,
                                                             net_device_fields);

/* Resources */

static const struct json_field device_rule_fields[] = {
        JSON_FIELD(struct oci_device_rule, "allow", JSON_BOOL, allow, JSON_REQUIRED),
        JSON_FIELD(struct oci_device_rule, "type", JSON_STRING, type, 0),
        JSON_FIELD_OPT(struct oci_device_rule, "major", JSON_INT, major, has_major),
        JSON_FIELD_OPT(struct oci_device_rule, "minor", JSON_INT, minor, has_minor),
        JSON_FIELD(struct oci_device_rule, "access", JSON_STRING, access, 0),
};
static const struct json_shape device_rule_shape = JSON_SHAPE("device", struct oci_device_rule,
                                                              device_rule_fields);

#define MEMORY(key, kind, member) JSON_FIELD_OPT(struct oci_memory, key, kind, member, has_##member)
static const struct json_field memory_fields[] = {
        MEMORY("limit", JSON_INT, limit),
        MEMORY("reservation", JSON_INT, reservation),
        MEMORY("swap", JSON_INT, swap),
        MEMORY("kernel", JSON_INT, kernel),
        MEMORY("kernelTCP", JSON_INT, kernel_tcp),
        MEMORY("swappiness", JSON_UINT, swappiness),
        MEMORY("disableOOMKiller", JSON_BOOL, disable_oom_killer),
        MEMORY("useHierarchy", JSON_BOOL, use_hierarchy),
        MEMORY("checkBeforeUpdate", JSON_BOOL, check_before_update),
};
static const struct json_shape memory_shape = JSON_SHAPE("memory", struct oci_memory,
                                                         memory_fields);

#define CPU(key, kind, member) JSON_FIELD_OPT(struct oci_cpu, key, kind, member, has_##member)
static const struct json_field cpu_fields[] = {
        CPU("shares", JSON_UINT, shares),
        CPU("quota", JSON_INT, quota_us),
        CPU("burst", JSON_UINT, burst_us),
        CPU("period", JSON_UINT, period_us),
        CPU("realtimeRuntime", JSON_INT, realtime_runtime_us),
        CPU("realtimePeriod", JSON_UINT, realtime_period_us),
        CPU("idle", JSON_INT, idle),
        JSON_FIELD(struct oci_cpu, "cpus", JSON_STRING, cpus, 0),
        JSON_FIELD(struct oci_cpu, "mems", JSON_STRING, mems, 0),
};
static const struct json_shape cpu_shape = JSON_SHAPE("cpu", struct oci_cpu, cpu_fields);

static const struct json_field pids_fields[] = {
        JSON_FIELD_OPT(struct oci_pids, "limit", JSON_INT, limit, has_limit),
};
static const struct json_shape pids_shape = JSON_SHAPE("pids", struct oci_pids, pids_fields);

static const struct json_field weight_device_fields[] = {
        JSON_FIELD(struct oci_weight_device, "major", JSON_INT, major, JSON_REQUIRED),
        JSON_FIELD(struct oci_weight_device, "minor", JSON_INT, minor, JSON_REQUIRED),
        JSON_FIELD_OPT(struct oci_weight_device, "weight", JSON_UINT, weight, has_weight),
        JSON_FIELD_OPT(struct oci_weight_device, "leafWeight", JSON_UINT, leaf_weight,
                       has_leaf_weight),
};
static const struct json_shape weight_device_shape = JSON_SHAPE(
        "weightDevice", struct oci_weight_device, weight_device_fields);

static const struct json_field throttle_device_fields[] = {
        JSON_FIELD(struct oci_throttle_device, "major", JSON_INT, major, JSON_REQUIRED),
        JSON_FIELD(struct oci_throttle_device, "minor", JSON_INT, minor, JSON_REQUIRED),
        JSON_FIELD(struct oci_throttle_device, "rate", JSON_UINT, rate, JSON_REQUIRED),
};
static const struct json_shape throttle_device_shape = JSON_SHAPE(
        "throttleDevice", struct oci_throttle_device, throttle_device_fields);

#define THROTTLE(key, member)                                                                      \
        JSON_FIELD_ARRAY(struct oci_block_io, key, member, member##_length,                        \
                         &throttle_device_shape, 0)
static const struct json_field block_io_fields[] = {
        JSON_FIELD_OPT(struct oci_block_io, "weight", JSON_UINT, weight, has_weight),
        JSON_FIELD_OPT(struct oci_block_io, "leafWeight", JSON_UINT, leaf_weight, has_leaf_weight),
        JSON_FIELD_ARRAY(struct oci_block_io, "weightDevice", weight_device, weight_device_length,
                         &weight_device_shape, 0),
        THROTTLE("throttleReadBpsDevice", throttle_read_bps),
        THROTTLE("throttleWriteBpsDevice", throttle_write_bps),
        THROTTLE("throttleReadIOPSDevice", throttle_read_iops),
        THROTTLE("throttleWriteIOPSDevice", throttle_write_iops),
};
static const struct json_shape block_io_shape = JSON_SHAPE("blockIO", struct oci_block_io,
                                                           block_io_fields);

static const struct json_field hugepage_limit_fields[] = {
        JSON_FIELD(struct oci_hugepage_limit, "pageSize", JSON_STRING, page_size, JSON_REQUIRED),
        JSON_FIELD(struct oci_hugepage_limit, "limit", JSON_UINT, limit_bytes, JSON_REQUIRED),
};
static const struct json_shape hugepage_limit_shape = JSON_SHAPE(
        "hugepageLimit", struct oci_hugepage_limit, hugepage_limit_fields);

static const struct json_field interface_priority_fields[] = {
        JSON_FIELD(struct oci_interface_priority, "name", JSON_STRING, name, JSON_REQUIRED),
        JSON_FIELD(struct oci_interface_priority, "priority", JSON_UINT, priority, JSON_REQUIRED),
};
static const struct json_shape interface_priority_shape = JSON_SHAPE(
        "priority", struct oci_interface_priority, interface_priority_fields);

static const struct json_field network_class_fields[] = {
        JSON_FIELD_OPT(struct oci_network_class, "classID", JSON_UINT, class_id, has_class_id),
        JSON_FIELD_ARRAY(struct oci_network_class, "priorities", priorities, priorities_length,
                         &interface_priority_shape, 0),
};
static const struct json_shape network_class_shape = JSON_SHAPE("network", struct oci_network_class,
                                                                network_class_fields);

static const struct json_field rdma_fields[] = {
        JSON_FIELD_OPT(struct oci_rdma, "hcaHandles", JSON_UINT, hca_handles, has_hca_handles),
        JSON_FIELD_OPT(struct oci_rdma, "hcaObjects", JSON_UINT, hca_objects, has_hca_objects),
};
static const struct json_shape rdma_shape = JSON_SHAPE("rdma", struct oci_rdma, rdma_fields);

static const struct json_field resources_fields[] = {
        JSON_FIELD_ARRAY(struct oci_resources, "devices", devices, devices_length,
                         &device_rule_shape, 0),
        JSON_FIELD_POINTER(struct oci_resources, "memory", memory, &memory_shape, 0),
        JSON_FIELD_POINTER(struct oci_resources, "cpu", cpu, &cpu_shape, 0),
        JSON_FIELD_POINTER(struct oci_resources, "pids", pids, &pids_shape, 0),
        JSON_FIELD_POINTER(struct oci_resources, "blockIO", block_io, &block_io_shape, 0),
        JSON_FIELD_ARRAY(struct oci_resources, "hugepageLimits", hugepage_limits,
                         hugepage_limits_length, &hugepage_limit_shape, 0),
        JSON_FIELD_POINTER(struct oci_resources, "network", network, &network_class_shape, 0),
        JSON_FIELD_KEYED(struct oci_resources, "rdma", rdma, rdma_length, &rdma_shape, 0),
        JSON_FIELD(struct oci_resources, "unified", JSON_MAP, unified, 0),
};
const struct json_shape oci_resources_shape = JSON_SHAPE("resources", struct oci_resources,
                                                         resources_fields);

/* Seccomp */

static const char *const seccomp_action_names[] = {
        "",
        "SCMP_ACT_KILL",
        "SCMP_ACT_KILL_PROCESS",
        "SCMP_ACT_KILL_THREAD",
        "SCMP_ACT_TRAP",
        "SCMP_ACT_ERRNO",
        "SCMP_ACT_TRACE",
        "SCMP_ACT_ALLOW",
        "SCMP_ACT_LOG",
        "SCMP_ACT_NOTIFY",
        NULL,
};
static_assert(COUNT_OF(seccomp_action_names) == OCI_SECCOMP_NOTIFY + 1, "names follow the enum");

static const char *const seccomp_op_names[] = {
        "",
        "SCMP_CMP_NE",
        "SCMP_CMP_LT",
        "SCMP_CMP_LE",
        "SCMP_CMP_EQ",
        "SCMP_CMP_GE",
        "SCMP_CMP_GT",
        "SCMP_CMP_MASKED_EQ",
        NULL,
};
static_assert(COUNT_OF(seccomp_op_names) == OCI_SECCOMP_OP_MASKED_EQ + 1, "names follow the enum");

static const struct json_field seccomp_arg_fields[] = {
        JSON_FIELD(struct oci_seccomp_arg, "index", JSON_UINT, index, JSON_REQUIRED),
        JSON_FIELD(struct oci_seccomp_arg, "value", JSON_UINT, value, JSON_REQUIRED),
        JSON_FIELD(struct oci_seccomp_arg, "valueTwo", JSON_UINT, value_two, 0),
        JSON_FIELD_ENUM(struct oci_seccomp_arg, "op", op, seccomp_op_names, JSON_REQUIRED),
};
static const struct json_shape seccomp_arg_shape = JSON_SHAPE("arg", struct oci_seccomp_arg,
                                                              seccomp_arg_fields);

static const struct json_field syscall_fields[] = {
        JSON_FIELD(struct oci_syscall, "names", JSON_STRV, names, JSON_REQUIRED),
        JSON_FIELD_ENUM(struct oci_syscall, "action", action, seccomp_action_names, JSON_REQUIRED),
        JSON_FIELD_OPT(struct oci_syscall, "errnoRet", JSON_UINT, errno_ret, has_errno_ret),
        JSON_FIELD_ARRAY(struct oci_syscall, "args", args, args_length, &seccomp_arg_shape, 0),
};
static const struct json_shape syscall_shape = JSON_SHAPE("syscall", struct oci_syscall,
                                                          syscall_fields);

static const struct json_field seccomp_fields[] = {
        JSON_FIELD_ENUM(struct oci_seccomp, "defaultAction", default_action, seccomp_action_names,
                        JSON_REQUIRED),
        JSON_FIELD_OPT(struct oci_seccomp, "defaultErrnoRet", JSON_UINT, default_errno_ret,
                       has_default_errno_ret),
        JSON_FIELD(struct oci_seccomp, "architectures", JSON_STRV, architectures, 0),
        JSON_FIELD(struct oci_seccomp, "flags", JSON_STRV, flags, 0),
        JSON_FIELD(struct oci_seccomp, "listenerPath", JSON_STRING, listener_path, 0),
        JSON_FIELD(struct oci_seccomp, "listenerMetadata", JSON_STRING, listener_metadata, 0),
        JSON_FIELD_ARRAY(struct oci_seccomp, "syscalls", syscalls, syscalls_length, &syscall_shape,
                         0),
};
const struct json_shape oci_seccomp_shape = JSON_SHAPE("seccomp", struct oci_seccomp,
                                                       seccomp_fields);

/* The rest of "linux" */

static const struct json_field intel_rdt_fields[] = {
        JSON_FIELD(struct oci_intel_rdt, "closID", JSON_STRING, clos_id, 0),
        JSON_FIELD(struct oci_intel_rdt, "schemata", JSON_STRV, schemata, 0),
        JSON_FIELD(struct oci_intel_rdt, "l3CacheSchema", JSON_STRING, l3_cache_schema, 0),
        JSON_FIELD(struct oci_intel_rdt, "memBwSchema", JSON_STRING, mem_bw_schema, 0),
        JSON_FIELD(struct oci_intel_rdt, "enableMonitoring", JSON_BOOL, enable_monitoring, 0),
        JSON_FIELD(struct oci_intel_rdt, "enableCMT", JSON_BOOL, enable_cmt, 0),
        JSON_FIELD(struct oci_intel_rdt, "enableMBM", JSON_BOOL, enable_mbm, 0),
};
static const struct json_shape intel_rdt_shape = JSON_SHAPE("intelRdt", struct oci_intel_rdt,
                                                            intel_rdt_fields);

static const char *const personality_names[] = { "", "LINUX", "LINUX32", NULL };
static_assert(COUNT_OF(personality_names) == OCI_PERSONALITY_LINUX32 + 1, "names follow the enum");

static const struct json_field personality_fields[] = {
        JSON_FIELD_ENUM(struct oci_personality, "domain", domain, personality_names, JSON_REQUIRED),
        JSON_FIELD(struct oci_personality, "flags", JSON_STRV, flags, 0),
};
static const struct json_shape personality_shape = JSON_SHAPE("personality", struct oci_personality,
                                                              personality_fields);

static const char *const memory_policy_names[] = {
        "",
        "MPOL_DEFAULT",
        "MPOL_BIND",
        "MPOL_INTERLEAVE",
        "MPOL_WEIGHTED_INTERLEAVE",
        "MPOL_PREFERRED",
        "MPOL_PREFERRED_MANY",
        "MPOL_LOCAL",
        NULL,
};
static_assert(COUNT_OF(memory_policy_names) == OCI_MPOL_LOCAL + 1, "names follow the enum");

static const struct json_field memory_policy_fields[] = {
        JSON_FIELD_ENUM(struct oci_memory_policy, "mode", mode, memory_policy_names, JSON_REQUIRED),
        JSON_FIELD(struct oci_memory_policy, "nodes", JSON_STRING, nodes, 0),
        JSON_FIELD(struct oci_memory_policy, "flags", JSON_STRV, flags, 0),
};
static const struct json_shape memory_policy_shape = JSON_SHAPE(
        "memoryPolicy", struct oci_memory_policy, memory_policy_fields);

static const char *const propagation_names[] = {
        "",        "shared", "slave",    "private",     "unbindable",
        "rshared", "rslave", "rprivate", "runbindable", NULL,
};
static_assert(COUNT_OF(propagation_names) == OCI_PROPAGATION_RUNBINDABLE + 1,
              "names follow the enum");

static const struct json_field linux_fields[] = {
        JSON_FIELD_ARRAY(struct oci_linux, "namespaces", namespaces, namespaces_length,
                         &namespace_shape, 0),
        JSON_FIELD_ARRAY(struct oci_linux, "uidMappings", uid_mappings, uid_mappings_length,
                         &id_mapping_shape, 0),
        JSON_FIELD_ARRAY(struct oci_linux, "gidMappings", gid_mappings, gid_mappings_length,
                         &id_mapping_shape, 0),
        JSON_FIELD_KEYED(struct oci_linux, "timeOffsets", time_offsets, time_offsets_length,
                         &time_offset_shape, 0),
        JSON_FIELD_ARRAY(struct oci_linux, "devices", devices, devices_length, &device_shape, 0),
        JSON_FIELD_KEYED(struct oci_linux, "netDevices", net_devices, net_devices_length,
                         &net_device_shape, 0),
        JSON_FIELD(struct oci_linux, "cgroupsPath", JSON_STRING, cgroups_path, 0),
        JSON_FIELD_POINTER(struct oci_linux, "resources", resources, &oci_resources_shape, 0),
        JSON_FIELD_ENUM(struct oci_linux, "rootfsPropagation", rootfs_propagation,
                        propagation_names, 0),
        JSON_FIELD_POINTER(struct oci_linux, "seccomp", seccomp, &oci_seccomp_shape, 0),
        JSON_FIELD(struct oci_linux, "sysctl", JSON_MAP, sysctl, 0),
        JSON_FIELD(struct oci_linux, "maskedPaths", JSON_STRV, masked_paths, 0),
        JSON_FIELD(struct oci_linux, "readonlyPaths", JSON_STRV, readonly_paths, 0),
        JSON_FIELD(struct oci_linux, "mountLabel", JSON_STRING, mount_label, 0),
        JSON_FIELD_POINTER(struct oci_linux, "personality", personality, &personality_shape, 0),
        JSON_FIELD_POINTER(struct oci_linux, "intelRdt", intel_rdt, &intel_rdt_shape, 0),
        JSON_FIELD_POINTER(struct oci_linux, "memoryPolicy", memory_policy, &memory_policy_shape,
                           0),
};
static const struct json_shape linux_shape = JSON_SHAPE("linux", struct oci_linux, linux_fields);

static const struct json_field spec_fields[] = {
        JSON_FIELD(struct oci_spec, "ociVersion", JSON_STRING, oci_version, JSON_REQUIRED),
        JSON_FIELD_POINTER(struct oci_spec, "root", root, &root_shape, 0),
        JSON_FIELD_ARRAY(struct oci_spec, "mounts", mounts, mounts_length, &oci_mount_shape, 0),
        JSON_FIELD_POINTER(struct oci_spec, "process", process, &oci_process_shape, 0),
        JSON_FIELD(struct oci_spec, "hostname", JSON_STRING, hostname, 0),
        JSON_FIELD(struct oci_spec, "domainname", JSON_STRING, domainname, 0),
        JSON_FIELD_POINTER(struct oci_spec, "hooks", hooks, &hooks_shape, 0),
        JSON_FIELD(struct oci_spec, "annotations", JSON_MAP, annotations, 0),
        JSON_FIELD_POINTER(struct oci_spec, "linux", linux_, &linux_shape, 0),
};
const struct json_shape oci_spec_shape = JSON_SHAPE("config", struct oci_spec, spec_fields);

static const struct json_field state_fields[] = {
        JSON_FIELD(struct oci_state, "ociVersion", JSON_STRING, oci_version, JSON_REQUIRED),
        JSON_FIELD(struct oci_state, "id", JSON_STRING, id, JSON_REQUIRED),
        JSON_FIELD(struct oci_state, "status", JSON_STRING, status, JSON_REQUIRED),
        JSON_FIELD_OPT(struct oci_state, "pid", JSON_INT, pid, has_pid),
        JSON_FIELD(struct oci_state, "bundle", JSON_STRING, bundle, JSON_REQUIRED),
        JSON_FIELD(struct oci_state, "annotations", JSON_MAP, annotations, 0),
};
const struct json_shape oci_state_shape = JSON_SHAPE("state", struct oci_state, state_fields);

int oci_spec_parse(const char *text, size_t size, struct oci_spec *ret, struct err *err)
{
        struct oci_spec spec;
        int r = json_decode_text(&oci_spec_shape, text, size, &spec, err);
        if (r < 0)
                return r;
        r = oci_spec_validate(&spec, err);
        if (r < 0) {
                json_free(&oci_spec_shape, &spec);
                return r;
        }
        *ret = spec;
        return 0;
}

const struct oci_namespace *oci_spec_namespace(const struct oci_spec *spec,
                                               enum oci_namespace_kind kind)
{
        for (size_t i = 0; spec->linux_ && i < spec->linux_->namespaces_length; i++)
                if (spec->linux_->namespaces[i].kind == (int)kind)
                        return &spec->linux_->namespaces[i];
        return NULL;
}
