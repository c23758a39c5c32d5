/* Control groups of one container, whatever hierarchies the host has.
 *
 * `struct cgroup` is one group under one path in every hierarchy it uses. The
 * differences between version 1 (one hierarchy per controller, also "hybrid",
 * where an empty version 2 tree is mounted beside them) and version 2 (one tree)
 * are behind `struct cgroup_ops`, one file each; cgroup_dummy.c is for tests.
 *
 * Limits are the runtime-spec's terms. Where a value has another range in
 * version 2 it is converted (shares to weight and so on; see cgroup_convert.h).
 *
 * On version 1 only the hierarchies that are needed are joined: those a limit
 * asks for, and devices, freezer, memory, pids, cpuacct for supervision, where
 * they exist. Nothing here runs a program, keeps a global or starts a thread.
 *
 * Source: kernel Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

enum cgroup_mode {
        CGROUP_MODE_V1,
        CGROUP_MODE_HYBRID, /* v1 controllers beside a v2 tree without controllers */
        CGROUP_MODE_V2,
};

enum cgroup_controller {
        CGROUP_CPU,
        CGROUP_CPUACCT,
        CGROUP_CPUSET,
        CGROUP_MEMORY,
        CGROUP_DEVICES,
        CGROUP_FREEZER,
        CGROUP_PIDS,
        CGROUP_BLKIO, /* "io" in version 2 */
        CGROUP_HUGETLB,
        CGROUP_RDMA,
        CGROUP_NET_CLS,
        CGROUP_NET_PRIO,
        CGROUP_SYSTEMD, /* version 1: what systemd knows its units by, no controller of the kernel
                         */
        CGROUP_CONTROLLERS, /* count */
};

#define CGROUP_BIT(controller) (1u << (controller))

extern const char *const cgroup_controller_names[CGROUP_CONTROLLERS];

#define CGROUP_UNSET INT64_MIN /* of a limit: leave as it is */
#define CGROUP_MAX   (-1)      /* of a limit: none */

struct cgroup_device_rule {
        bool allow;
        char type;            /* 'a', 'b', 'c' */
        int64_t major, minor; /* -1 is any */
        char access[4];       /* of "rwm" */
};

struct cgroup_io_device {
        uint64_t major, minor;
        int64_t weight, leaf_weight;                        /* CGROUP_UNSET where not given */
        int64_t read_bps, write_bps, read_iops, write_iops; /* likewise; 0 is no limit */
};

struct cgroup_hugetlb_limit {
        const char *page_size; /* "2MB" */
        uint64_t limit_bytes;
};

struct cgroup_named_limit { /* rdma: a and b are handles and objects; net_prio: a is the priority */
        const char *name;
        int64_t a, b;
};

struct cgroup_limits {
        int64_t memory_bytes, memory_reservation_bytes, memory_swap_bytes /* memory + swap */,
                memory_kernel_bytes, memory_kernel_tcp_bytes, memory_swappiness;
        int64_t oom_kill_disable;        /* 0 or 1 */
        bool memory_check_before_update; /* refuse a limit below the present use */
        int64_t cpu_shares, cpu_quota_us, cpu_period_us, cpu_burst_us, cpu_rt_runtime_us,
                cpu_rt_period_us, cpu_idle;
        const char *cpuset_cpus, *cpuset_mems; /* NULL: unset */
        int64_t pids_max;
        bool io_wanted; /* join blkio for its statistics even without a limit */
        int64_t io_weight, io_leaf_weight;
        const struct cgroup_io_device *io_devices;
        size_t io_devices_length;
        const struct cgroup_hugetlb_limit *hugetlb;
        size_t hugetlb_length;
        const struct cgroup_named_limit *rdma;
        size_t rdma_length;
        int64_t net_class_id;
        const struct cgroup_named_limit *net_priorities;
        size_t net_priorities_length;
        const struct cgroup_device_rule *devices; /* in order; NULL: unset */
        size_t devices_length;
        char *const *unified; /* "file=content", version 2 only */
};

/* All unset. */
void cgroup_limits_init(struct cgroup_limits *limits);
/* CGROUP_BIT set of controllers the limits need. */
uint32_t cgroup_limits_controllers(const struct cgroup_limits *limits);

struct cgroup_io_stat {
        uint64_t major, minor;
        uint64_t read_bytes, write_bytes, read_operations, write_operations;
};

/* Zero where the kernel or the hierarchy does not say; limits: UINT64_MAX for none. */
struct cgroup_stats {
        uint64_t cpu_total_ns, cpu_user_ns, cpu_kernel_ns;
        uint64_t *cpu_each_ns; /* per CPU, v1 only; heap */
        size_t cpu_each_length;
        uint64_t throttle_periods, throttled_periods, throttled_ns;
        uint64_t memory_bytes, memory_max_bytes, memory_limit_bytes, memory_failures;
        uint64_t swap_bytes /* v1: memory + swap */, swap_limit_bytes;
        uint64_t kernel_bytes;
        char **memory_detail; /* "key=value", memory.stat as it is */
        uint64_t oom, oom_kill;
        uint64_t pids, pids_limit;
        struct cgroup_io_stat *io; /* heap */
        size_t io_length;
        bool v2;
};

struct cgroup;

enum cgroup_mode cgroup_mode(void);
const char *cgroup_mode_name(enum cgroup_mode mode); /* "v1", "hybrid", "v2" */

/* Names a group, touches nothing. An absolute `path` counts from the root of
 * every hierarchy, a relative one from the caller's own group (version 2: from
 * its parent, for a group with members cannot have children with controllers).
 * `controllers` is the CGROUP_BIT set asked for beside those of supervision;
 * CGROUP_BIT(n) that the host has not is an error naming it. */
int cgroup_prepare(const char *path, uint32_t controllers, struct cgroup **ret, struct err *err);
/* The same from cgroup_paths(), kept in a state file. */
int cgroup_open(char *const *paths, struct cgroup **ret, struct err *err);
/* Makes it mean a group below: "path", or "controller,…:path" for some hierarchies of
 * version 1. -EINVAL for a path that is not below, -ENOENT for a controller it has not and
 * for a group that is not there. */
int cgroup_descend(struct cgroup *cgroup, const char *where, struct err *err);
void cgroup_close(struct cgroup *cgroup); /* forgets, removes nothing; NULL is fine */
/* "memory=/sys/fs/cgroup/memory/x" or "=/sys/fs/cgroup/x" (v2); lives as long as the group. */
char *const *cgroup_paths(const struct cgroup *cgroup);

/* Makes the directories. *ret_existed tells whether the group was there before
 * with members in it, and nothing was made; with NULL it is taken as it is. */
int cgroup_create(struct cgroup *cgroup, bool *ret_existed, struct err *err);
int cgroup_has_members(struct cgroup *cgroup, bool *ret, struct err *err);
int cgroup_apply(struct cgroup *cgroup, const struct cgroup_limits *limits, struct err *err);
int cgroup_attach(struct cgroup *cgroup, pid_t pid, struct err *err);
/* A way for a process with one thread to join by itself, with what is opened before it is
 * cloned. To move another process, version 1 takes a lock against every fork and exit,
 * which waits for a grace period where nobody took it lately: 20 ms. To move oneself it does
 * not. Empty on version 2, where CLONE_INTO_CGROUP is better still. */
struct cgroup_door {
        int fds[16];
        size_t length;
};
int cgroup_door_open(struct cgroup *cgroup, struct cgroup_door *ret, struct err *err);
int cgroup_door_enter(struct cgroup_door *door, struct err *err);
void cgroup_door_close(struct cgroup_door *door);
/* Names the hierarchies (v1) that an update needs, too; cgroup_paths() has them. Nothing is made.
 */
int cgroup_extend(struct cgroup *cgroup, uint32_t controllers, struct err *err);
/* Makes those groups where they are not there, and moves members there that are not in them: what
 * somebody began who was killed is finished. */
int cgroup_join(struct cgroup *cgroup, uint32_t controllers, struct err *err);
/* A directory descriptor for CLONE_INTO_CGROUP; -EOPNOTSUPP on version 1. */
int cgroup_directory(struct cgroup *cgroup, int *ret_fd, struct err *err);

int cgroup_freeze(struct cgroup *cgroup, struct err *err);
int cgroup_thaw(struct cgroup *cgroup, struct err *err);
/* Thaws the group that a process is in, whichever that is: somebody may have moved it. */
void cgroup_thaw_process(pid_t pid);
/* 1 frozen, 0 not. */
int cgroup_is_frozen(struct cgroup *cgroup, struct err *err);

/* Sends to every member, also of groups below; for SIGKILL with no escape
 * (cgroup.kill, or frozen meanwhile); frozen groups are thawed so that it
 * arrives. A group that does not exist has no members. */
int cgroup_kill(struct cgroup *cgroup, int signo, struct err *err);
/* Pids of all members, also below; heap. */
int cgroup_members(struct cgroup *cgroup, pid_t **ret_pids, size_t *ret_length, struct err *err);
/* Removes the directories and those below; members are waited for up to
 * `timeout_ms`. -EBUSY where some stay. Missing is success. */
int cgroup_remove(struct cgroup *cgroup, int timeout_ms, struct err *err);
/* Removes the group at an absolute path from every hierarchy where it has neither
 * members nor groups below; where it has, it stays. */
void cgroup_trim(const char *path);

int cgroup_stats(struct cgroup *cgroup, struct cgroup_stats *ret, struct err *err);
void cgroup_stats_finish(struct cgroup_stats *stats);
/* How often the kernel's OOM killer struck in the group. */
int cgroup_oom_kills(struct cgroup *cgroup, uint64_t *ret, struct err *err);
/* A descriptor that polls POLLPRI (v2 memory.events) or POLLIN (v1 eventfd) when
 * the counter may have changed. */
int cgroup_oom_watch(struct cgroup *cgroup, int *ret_fd, struct err *err);

#define auto_cgroup __attribute__((cleanup(auto_cgroup_cleanup))) struct cgroup *
static inline void auto_cgroup_cleanup(struct cgroup **cgroup)
{
        cgroup_close(*cgroup);
}
