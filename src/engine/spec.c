#include "engine/spec.h"

#include <stdlib.h>

#include "base/auto.h"
#include "base/str.h"

/* Tables of docker's keys. KEEP: written even when empty, as docker's inspect does. */
#define KEEP JSON_KEEP_EMPTY
#define NUL  (JSON_KEEP_EMPTY | JSON_NULL)

#define T struct health_config
static const struct json_field health_fields[] = {
        JSON_FIELD(T, "Test", JSON_STRV, test, 0),
        JSON_FIELD(T, "Interval", JSON_INT, interval_ns, 0),
        JSON_FIELD(T, "Timeout", JSON_INT, timeout_ns, 0),
        JSON_FIELD(T, "StartPeriod", JSON_INT, start_period_ns, 0),
        JSON_FIELD(T, "StartInterval", JSON_INT, start_interval_ns, 0),
        JSON_FIELD(T, "Retries", JSON_INT, retries, 0),
};
static const struct json_shape health_shape = JSON_SHAPE("Healthcheck", T, health_fields);
#undef T

#define T struct instance_config
static const struct json_field config_fields[] = {
        JSON_FIELD(T, "Hostname", JSON_STRING, hostname, KEEP),
        JSON_FIELD(T, "Domainname", JSON_STRING, domainname, KEEP),
        JSON_FIELD(T, "User", JSON_STRING, user, KEEP),
        JSON_FIELD(T, "AttachStdin", JSON_BOOL, attach_stdin, KEEP),
        JSON_FIELD(T, "AttachStdout", JSON_BOOL, attach_stdout, KEEP),
        JSON_FIELD(T, "AttachStderr", JSON_BOOL, attach_stderr, KEEP),
        JSON_FIELD(T, "ExposedPorts", JSON_SET, exposed_ports, 0),
        JSON_FIELD(T, "Tty", JSON_BOOL, tty, KEEP),
        JSON_FIELD(T, "OpenStdin", JSON_BOOL, open_stdin, KEEP),
        JSON_FIELD(T, "StdinOnce", JSON_BOOL, stdin_once, KEEP),
        JSON_FIELD(T, "Env", JSON_STRV, env, KEEP),
        JSON_FIELD(T, "Cmd", JSON_STRV, cmd, NUL | JSON_OR_STRING),
        JSON_FIELD_POINTER(T, "Healthcheck", healthcheck, &health_shape, 0),
        JSON_FIELD(T, "ArgsEscaped", JSON_BOOL, args_escaped, 0),
        JSON_FIELD(T, "Image", JSON_STRING, image, KEEP),
        JSON_FIELD(T, "Volumes", JSON_SET, volumes, NUL),
        JSON_FIELD(T, "WorkingDir", JSON_STRING, working_dir, KEEP),
        JSON_FIELD(T, "Entrypoint", JSON_STRV, entrypoint, NUL | JSON_OR_STRING),
        JSON_FIELD(T, "NetworkDisabled", JSON_BOOL, network_disabled, 0),
        JSON_FIELD(T, "MacAddress", JSON_STRING, mac_address, 0),
        JSON_FIELD(T, "OnBuild", JSON_STRV, on_build, NUL),
        JSON_FIELD(T, "Labels", JSON_MAP, labels, KEEP),
        JSON_FIELD(T, "StopSignal", JSON_STRING, stop_signal, 0),
        JSON_FIELD_OPT(T, "StopTimeout", JSON_INT, stop_timeout, has_stop_timeout),
        JSON_FIELD(T, "Shell", JSON_STRV, shell, 0),
};
const struct json_shape config_shape = JSON_SHAPE("Config", T, config_fields);
#undef T

#define T struct log_config
static const struct json_field log_config_fields[] = {
        JSON_FIELD(T, "Type", JSON_STRING, type, KEEP),
        JSON_FIELD(T, "Config", JSON_MAP, config, KEEP),
};
static const struct json_shape log_config_shape = JSON_SHAPE("LogConfig", T, log_config_fields);
#undef T

#define T struct restart_policy
static const struct json_field restart_policy_fields[] = {
        JSON_FIELD(T, "Name", JSON_STRING, name, KEEP),
        JSON_FIELD(T, "MaximumRetryCount", JSON_INT, maximum_retry_count, KEEP),
};
static const struct json_shape restart_policy_shape = JSON_SHAPE("RestartPolicy", T,
                                                                 restart_policy_fields);
#undef T

#define T struct device_mapping
static const struct json_field device_fields[] = {
        JSON_FIELD(T, "PathOnHost", JSON_STRING, path_on_host, KEEP),
        JSON_FIELD(T, "PathInContainer", JSON_STRING, path_in_container, KEEP),
        JSON_FIELD(T, "CgroupPermissions", JSON_STRING, cgroup_permissions, KEEP),
};
static const struct json_shape device_shape = JSON_SHAPE("Devices", T, device_fields);
#undef T

#define T struct device_request
static const struct json_field device_request_fields[] = {
        JSON_FIELD(T, "Driver", JSON_STRING, driver, KEEP),
        JSON_FIELD(T, "Count", JSON_INT, count, KEEP),
        JSON_FIELD(T, "DeviceIDs", JSON_STRV, device_ids, 0),
};
static const struct json_shape device_request_shape = JSON_SHAPE("DeviceRequests", T,
                                                                 device_request_fields);
#undef T

#define T struct ulimit
static const struct json_field ulimit_fields[] = {
        JSON_FIELD(T, "Name", JSON_STRING, name, KEEP),
        JSON_FIELD(T, "Hard", JSON_INT, hard, KEEP),
        JSON_FIELD(T, "Soft", JSON_INT, soft, KEEP),
};
static const struct json_shape ulimit_shape = JSON_SHAPE("Ulimits", T, ulimit_fields);
#undef T

#define T struct weight_device
static const struct json_field weight_device_fields[] = {
        JSON_FIELD(T, "Path", JSON_STRING, path, KEEP),
        JSON_FIELD(T, "Weight", JSON_UINT, weight, KEEP),
};
static const struct json_shape weight_device_shape = JSON_SHAPE("BlkioWeightDevice", T,
                                                                weight_device_fields);
#undef T

#define T struct throttle_device
static const struct json_field throttle_device_fields[] = {
        JSON_FIELD(T, "Path", JSON_STRING, path, KEEP),
        JSON_FIELD(T, "Rate", JSON_UINT, rate, KEEP),
};
static const struct json_shape throttle_device_shape = JSON_SHAPE("BlkioDevice", T,
                                                                  throttle_device_fields);
#undef T

#define T struct bind_options
static const struct json_field bind_options_fields[] = {
        JSON_FIELD(T, "Propagation", JSON_STRING, propagation, 0),
        JSON_FIELD(T, "NonRecursive", JSON_BOOL, non_recursive, 0),
        JSON_FIELD(T, "CreateMountpoint", JSON_BOOL, create_mountpoint, 0),
        JSON_FIELD(T, "ReadOnlyNonRecursive", JSON_BOOL, read_only_non_recursive, 0),
        JSON_FIELD(T, "ReadOnlyForceRecursive", JSON_BOOL, read_only_force_recursive, 0),
};
static const struct json_shape bind_options_shape = JSON_SHAPE("BindOptions", T,
                                                               bind_options_fields);
#undef T

#define T struct volume_options
static const struct json_field volume_options_fields[] = {
        JSON_FIELD(T, "NoCopy", JSON_BOOL, no_copy, 0),
        JSON_FIELD(T, "Labels", JSON_MAP, labels, 0),
        JSON_FIELD(T, "DriverConfig", JSON_ANY, driver_config, 0),
        JSON_FIELD(T, "Subpath", JSON_STRING, subpath, 0),
};
static const struct json_shape volume_options_shape = JSON_SHAPE("VolumeOptions", T,
                                                                 volume_options_fields);
#undef T

#define T struct tmpfs_options
static const struct json_field tmpfs_options_fields[] = {
        JSON_FIELD(T, "SizeBytes", JSON_INT, size_bytes, 0),
        JSON_FIELD(T, "Mode", JSON_UINT, mode, 0),
        JSON_FIELD(T, "Options", JSON_ANY, options, 0),
};
static const struct json_shape tmpfs_options_shape = JSON_SHAPE("TmpfsOptions", T,
                                                                tmpfs_options_fields);
#undef T

#define T struct mount_request
static const struct json_field mount_fields[] = {
        JSON_FIELD(T, "Type", JSON_STRING, type, KEEP),
        JSON_FIELD(T, "Source", JSON_STRING, source, 0),
        JSON_FIELD(T, "Target", JSON_STRING, target, KEEP),
        JSON_FIELD(T, "ReadOnly", JSON_BOOL, read_only, 0),
        JSON_FIELD(T, "Consistency", JSON_STRING, consistency, 0),
        JSON_FIELD_POINTER(T, "BindOptions", bind_options, &bind_options_shape, 0),
        JSON_FIELD_POINTER(T, "VolumeOptions", volume_options, &volume_options_shape, 0),
        JSON_FIELD_POINTER(T, "TmpfsOptions", tmpfs_options, &tmpfs_options_shape, 0),
};
static const struct json_shape mount_shape = JSON_SHAPE("Mounts", T, mount_fields);
#undef T

#define T struct host_config
#define THROTTLE(key, member)                                                                      \
        JSON_FIELD_ARRAY(T, key, member, member##_length, &throttle_device_shape, NUL)
static const struct json_field host_config_fields[] = {
        JSON_FIELD(T, "Binds", JSON_STRV, binds, NUL),
        JSON_FIELD(T, "ContainerIDFile", JSON_STRING, container_id_file, KEEP),
        JSON_FIELD_STRUCT(T, "LogConfig", log_config, &log_config_shape, KEEP),
        JSON_FIELD(T, "NetworkMode", JSON_STRING, network_mode, KEEP),
        JSON_FIELD(T, "PortBindings", JSON_ANY, port_bindings, NUL),
        JSON_FIELD_STRUCT(T, "RestartPolicy", restart_policy, &restart_policy_shape, KEEP),
        JSON_FIELD(T, "AutoRemove", JSON_BOOL, auto_remove, KEEP),
        JSON_FIELD(T, "VolumeDriver", JSON_STRING, volume_driver, KEEP),
        JSON_FIELD(T, "VolumesFrom", JSON_STRV, volumes_from, NUL),
        JSON_FIELD_UINTV(T, "ConsoleSize", console_size, console_size_length, NUL),
        JSON_FIELD(T, "Annotations", JSON_MAP, annotations, 0),
        JSON_FIELD(T, "CapAdd", JSON_STRV, cap_add, NUL),
        JSON_FIELD(T, "CapDrop", JSON_STRV, cap_drop, NUL),
        JSON_FIELD(T, "CgroupnsMode", JSON_STRING, cgroupns_mode, KEEP),
        JSON_FIELD(T, "Dns", JSON_STRV, dns, KEEP),
        JSON_FIELD(T, "DnsOptions", JSON_STRV, dns_options, KEEP),
        JSON_FIELD(T, "DnsSearch", JSON_STRV, dns_search, KEEP),
        JSON_FIELD(T, "ExtraHosts", JSON_STRV, extra_hosts, NUL),
        JSON_FIELD(T, "GroupAdd", JSON_STRV, group_add, NUL),
        JSON_FIELD(T, "IpcMode", JSON_STRING, ipc_mode, KEEP),
        JSON_FIELD(T, "Cgroup", JSON_STRING, cgroup, KEEP),
        JSON_FIELD(T, "Links", JSON_STRV, links, NUL),
        JSON_FIELD(T, "OomScoreAdj", JSON_INT, oom_score_adj, KEEP),
        JSON_FIELD(T, "PidMode", JSON_STRING, pid_mode, KEEP),
        JSON_FIELD(T, "Privileged", JSON_BOOL, privileged, KEEP),
        JSON_FIELD(T, "PublishAllPorts", JSON_BOOL, publish_all_ports, KEEP),
        JSON_FIELD(T, "ReadonlyRootfs", JSON_BOOL, readonly_rootfs, KEEP),
        JSON_FIELD(T, "SecurityOpt", JSON_STRV, security_opt, NUL),
        JSON_FIELD(T, "StorageOpt", JSON_MAP, storage_opt, 0),
        JSON_FIELD(T, "Tmpfs", JSON_MAP, tmpfs, 0),
        JSON_FIELD(T, "UTSMode", JSON_STRING, uts_mode, KEEP),
        JSON_FIELD(T, "UsernsMode", JSON_STRING, userns_mode, KEEP),
        JSON_FIELD(T, "ShmSize", JSON_INT, shm_size, KEEP),
        JSON_FIELD(T, "Sysctls", JSON_MAP, sysctls, 0),
        JSON_FIELD(T, "Runtime", JSON_STRING, runtime, KEEP),
        JSON_FIELD(T, "Isolation", JSON_STRING, isolation, KEEP),
        JSON_FIELD(T, "CpuShares", JSON_UINT, cpu_shares, KEEP),
        JSON_FIELD(T, "Memory", JSON_INT, memory, KEEP),
        JSON_FIELD(T, "NanoCpus", JSON_INT, nano_cpus, KEEP),
        JSON_FIELD(T, "CgroupParent", JSON_STRING, cgroup_parent, KEEP),
        JSON_FIELD(T, "BlkioWeight", JSON_UINT, blkio_weight, KEEP),
        JSON_FIELD_ARRAY(T, "BlkioWeightDevice", blkio_weight_device, blkio_weight_device_length,
                         &weight_device_shape, KEEP),
        THROTTLE("BlkioDeviceReadBps", blkio_device_read_bps),
        THROTTLE("BlkioDeviceWriteBps", blkio_device_write_bps),
        THROTTLE("BlkioDeviceReadIOps", blkio_device_read_iops),
        THROTTLE("BlkioDeviceWriteIOps", blkio_device_write_iops),
        JSON_FIELD(T, "CpuPeriod", JSON_INT, cpu_period, KEEP),
        JSON_FIELD(T, "CpuQuota", JSON_INT, cpu_quota, KEEP),
        JSON_FIELD(T, "CpuRealtimePeriod", JSON_INT, cpu_realtime_period, KEEP),
        JSON_FIELD(T, "CpuRealtimeRuntime", JSON_INT, cpu_realtime_runtime, KEEP),
        JSON_FIELD(T, "CpusetCpus", JSON_STRING, cpuset_cpus, KEEP),
        JSON_FIELD(T, "CpusetMems", JSON_STRING, cpuset_mems, KEEP),
        JSON_FIELD_ARRAY(T, "Devices", devices, devices_length, &device_shape, KEEP),
        JSON_FIELD(T, "DeviceCgroupRules", JSON_STRV, device_cgroup_rules, NUL),
        JSON_FIELD_ARRAY(T, "DeviceRequests", device_requests, device_requests_length,
                         &device_request_shape, NUL),
        JSON_FIELD(T, "KernelMemoryTCP", JSON_INT, kernel_memory_tcp, 0),
        JSON_FIELD(T, "MemoryReservation", JSON_INT, memory_reservation, KEEP),
        JSON_FIELD(T, "MemorySwap", JSON_INT, memory_swap, KEEP),
        JSON_FIELD_OPT(T, "MemorySwappiness", JSON_INT, memory_swappiness, has_memory_swappiness),
        JSON_FIELD_OPT(T, "OomKillDisable", JSON_BOOL, oom_kill_disable, has_oom_kill_disable),
        JSON_FIELD_OPT(T, "PidsLimit", JSON_INT, pids_limit, has_pids_limit),
        JSON_FIELD_ARRAY(T, "Ulimits", ulimits, ulimits_length, &ulimit_shape, KEEP),
        JSON_FIELD(T, "CpuCount", JSON_INT, cpu_count, KEEP),
        JSON_FIELD(T, "CpuPercent", JSON_INT, cpu_percent, KEEP),
        JSON_FIELD_ARRAY(T, "Mounts", mounts, mounts_length, &mount_shape, 0),
        JSON_FIELD_OPT(T, "MaskedPaths", JSON_STRV, masked_paths, has_masked_paths),
        JSON_FIELD_OPT(T, "ReadonlyPaths", JSON_STRV, readonly_paths, has_readonly_paths),
        JSON_FIELD_OPT(T, "Init", JSON_BOOL, init, has_init),
};
const struct json_shape host_config_shape = JSON_SHAPE("HostConfig", T, host_config_fields);
#undef T

#define T struct instance_spec
static const struct json_field instance_spec_fields[] = {
        JSON_FIELD_STRUCT(T, "Config", config, &config_shape, KEEP),
        JSON_FIELD_STRUCT(T, "HostConfig", host, &host_config_shape, KEEP),
        JSON_FIELD(T, "NetworkingConfig", JSON_ANY, networking, 0),
};
const struct json_shape instance_spec_shape = JSON_SHAPE("instance", T, instance_spec_fields);
#undef T

#define T struct instance_spec
static const struct json_field create_fields[] = {
        JSON_FIELD_STRUCT(T, "HostConfig", host, &host_config_shape, 0),
        JSON_FIELD(T, "NetworkingConfig", JSON_ANY, networking, 0),
};
static const struct json_shape create_shape = JSON_SHAPE("request", T, create_fields);
#undef T

int spec_decode_create(const char *text, size_t size, struct instance_spec *ret, struct err *err)
{
        auto_json object = NULL;
        int r = json_parse(text, size, &object, err);
        if (r < 0)
                return r;
        struct instance_spec spec = { 0 };
        r = json_decode(&create_shape, object, &spec, err);
        if (r < 0)
                return r;
        r = json_decode(&config_shape, object, &spec.config, err);
        if (r < 0) {
                spec_finish(&spec);
                return r;
        }
        *ret = spec;
        return 0;
}

struct instance_spec *spec_copy(const struct instance_spec *spec)
{
        auto_json object = json_encode(&instance_spec_shape, spec);
        struct instance_spec *copy = new0(struct instance_spec);
        /* What was decoded once decodes again. */
        if (json_decode(&instance_spec_shape, object, copy, NULL) < 0)
                abort();
        return copy;
}

void spec_finish(struct instance_spec *spec)
{
        if (spec)
                json_free(&instance_spec_shape, spec);
}
