/* One sample of an instance's resource use; units are in the names. */
#pragma once

#include "engine/instance.h"

struct instance_blkio {
        uint64_t major, minor;
        const char *op; /* "read", "write" */
        uint64_t bytes, operations;
};

struct instance_stats {
        int64_t read_ns; /* real time of the sample */
        uint64_t cpu_total_ns, cpu_user_ns, cpu_kernel_ns;
        uint64_t *cpu_each_ns; /* per CPU; NULL where the kernel does not say */
        size_t cpu_each_length;
        uint64_t system_cpu_ns; /* whole host since boot, all CPUs */
        unsigned cpus_online;
        uint64_t throttle_periods, throttled_periods, throttled_ns;
        uint64_t memory_bytes, memory_max_bytes,
                memory_limit_bytes; /* limit: of the host where none */
        uint64_t memory_failures;
        char **memory_detail;      /* map "inactive_file=4096" … as docker's memory_stats.stats */
        bool cgroup_v2;            /* which names memory_detail has */
        uint64_t pids, pids_limit; /* limit 0: none */
        struct instance_blkio *blkio;
        size_t blkio_length;
};

/* `stats` is borrowed; all zero for an instance that does not run (as docker). */
typedef void instance_sampled(void *arg, int r, const struct err *err,
                              const struct instance_stats *stats);
void instance_sample(struct instance *instance, instance_sampled *done, void *arg);
