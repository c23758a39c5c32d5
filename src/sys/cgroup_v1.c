#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/str.h"
#include "sys/cgroup_provider.h"

#define FREEZE_TIMEOUT_NS (2 * NS_PER_S)
#define FREEZE_AGAIN      50 /* polls after which FROZEN is written once more */
#define FREEZE_POLL_NS    200000L
#define USER_HZ_NS        (NS_PER_S / 100)

/* A fresh cpuset has no cpu and no memory node; members need some: the parent's. Nothing is done
 * to one that has. */
static int fresh_cpuset(const char *directory, void *arg, struct err *err)
{
        static const char *const files[] = { "cpuset.cpus", "cpuset.mems" };
        (void)arg;
        auto_free char *parent = xstrdup(directory);
        *strrchr(parent, '/') = '\0';
        for (size_t i = 0; i < ELEMENTS(files); i++) {
                auto_free char *own = NULL, *text = NULL;
                int r = cgroup_get(directory, files[i], &own, err);
                if (r == 0 && *own && *own != '\n')
                        continue;
                if (r == 0)
                        r = cgroup_get(parent, files[i], &text, err);
                if (r == 0)
                        r = cgroup_put(directory, files[i], text, err);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int make_one(struct cgroup_hierarchy *hierarchy, struct err *err)
{
        bool cpuset = hierarchy->controllers & CGROUP_BIT(CGROUP_CPUSET);
        int r = cgroup_make_directory(hierarchy->mount, hierarchy->directory,
                                      cpuset ? fresh_cpuset : NULL, NULL, err);
        /* Who made it may have been killed before it was fit for members. */
        return r == 0 && cpuset ? fresh_cpuset(hierarchy->directory, NULL, err) : r;
}

static int v1_create(struct cgroup *cgroup, struct err *err)
{
        for (size_t i = 0; i < cgroup->length; i++) {
                int r = make_one(&cgroup->hierarchies[i], err);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int v1_attach(struct cgroup *cgroup, pid_t pid, struct err *err)
{
        for (size_t i = 0; i < cgroup->length; i++) {
                int r = cgroup_put_number(cgroup->hierarchies[i].directory, "cgroup.procs", pid,
                                          err);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int v1_extend(struct cgroup *cgroup, uint32_t controllers, struct err *err)
{
        uint32_t have = 0;
        for (size_t i = 0; i < cgroup->length; i++)
                have |= cgroup->hierarchies[i].controllers;
        if (!(controllers & ~have) || cgroup->length == 0)
                return 0;
        /* The path below the mount is the same as where we are already, or, for a
         * relative one, at least its last part. */
        const struct cgroup_hierarchy *known = &cgroup->hierarchies[0];
        struct cgroup *added;
        int r = cgroup_prepare(known->directory + strlen(known->mount), controllers & ~have, &added,
                               err);
        if (r < 0)
                return r;
        for (size_t i = 0; i < added->length; i++) {
                struct cgroup_hierarchy *hierarchy = &added->hierarchies[i];
                if (hierarchy->controllers & controllers & ~have)
                        cgroup_add_hierarchy(cgroup, hierarchy->controllers,
                                             xstrdup(hierarchy->directory), hierarchy->mount);
        }
        cgroup_close(added);
        return 0;
}

static bool is_among(const pid_t *pids, size_t length, pid_t pid)
{
        for (size_t i = 0; i < length; i++)
                if (pids[i] == pid)
                        return true;
        return false;
}

static int join_one(struct cgroup *cgroup, struct cgroup_hierarchy *hierarchy, struct err *err)
{
        auto_free pid_t *all = NULL, *there = NULL;
        size_t all_length = 0, there_length = 0;
        int r = make_one(hierarchy, err);
        if (r == 0)
                r = cgroup_members(cgroup, &all, &all_length, err);
        if (r == 0)
                r = cgroup_members_at(hierarchy->directory, &there, &there_length, err);
        for (size_t i = 0; r == 0 && i < all_length; i++) {
                if (is_among(there, there_length, all[i]))
                        continue;
                r = cgroup_put_number(hierarchy->directory, "cgroup.procs", all[i], err);
                if (r == -ESRCH)
                        r = 0;
        }
        return r;
}

static int v1_join(struct cgroup *cgroup, uint32_t controllers, struct err *err)
{
        int r = 0;
        for (size_t i = 0; r == 0 && i < cgroup->length; i++)
                if (cgroup->hierarchies[i].controllers & controllers)
                        r = join_one(cgroup, &cgroup->hierarchies[i], err);
        return r;
}

static int put_if(const char *directory, const char *file, int64_t value, struct err *err)
{
        return value == CGROUP_UNSET ? 0 : cgroup_put_number(directory, file, value, err);
}

/* memory <= memory + swap must hold between the two writes: which goes first
 * depends on the direction. */
static int apply_memory_and_swap(const char *directory, const struct cgroup_limits *l,
                                 struct err *err)
{
        static const char memory[] = "memory.limit_in_bytes",
                          swap[] = "memory.memsw.limit_in_bytes";
        if (l->memory_bytes == CGROUP_UNSET || l->memory_swap_bytes == CGROUP_UNSET) {
                int r = put_if(directory, memory, l->memory_bytes, err);
                return r < 0 ? r : put_if(directory, swap, l->memory_swap_bytes, err);
        }
        uint64_t now = cgroup_get_number(directory, swap, UINT64_MAX);
        bool grows = l->memory_bytes < 0 || (uint64_t)l->memory_bytes > now;
        int r = cgroup_put_number(directory, grows ? swap : memory,
                                  grows ? l->memory_swap_bytes : l->memory_bytes, err);
        if (r < 0)
                return r;
        return cgroup_put_number(directory, grows ? memory : swap,
                                 grows ? l->memory_bytes : l->memory_swap_bytes, err);
}

static int apply_memory(const char *directory, const struct cgroup_limits *l, struct err *err)
{
        uint64_t usage = cgroup_get_number(directory, "memory.usage_in_bytes", 0);
        if (l->memory_check_before_update && l->memory_bytes > 0 &&
            usage > (uint64_t)l->memory_bytes)
                return err_plain(err, EBUSY,
                                 "unable to set memory limit to %lld (current usage: %llu)",
                                 (long long)l->memory_bytes, (unsigned long long)usage);
        int r = apply_memory_and_swap(directory, l, err);
        if (r == -EBUSY)
                r = err_plain(
                        err, EBUSY,
                        "unable to set memory limit to %lld (current usage: %llu, peak: %llu)",
                        (long long)l->memory_bytes, (unsigned long long)usage,
                        (unsigned long long)cgroup_get_number(directory,
                                                              "memory.max_usage_in_bytes", 0));
        if (r == 0)
                r = put_if(directory, "memory.soft_limit_in_bytes", l->memory_reservation_bytes,
                           err);
        if (r == 0 && l->memory_kernel_bytes != CGROUP_UNSET) {
                /* Newer kernels ignore or refuse it; the specification calls it obsolete. */
                (void)put_if(directory, "memory.kmem.limit_in_bytes", l->memory_kernel_bytes, NULL);
        }
        if (r == 0)
                r = put_if(directory, "memory.kmem.tcp.limit_in_bytes", l->memory_kernel_tcp_bytes,
                           err);
        if (r == 0)
                r = put_if(directory, "memory.swappiness", l->memory_swappiness, err);
        if (r == 0 && l->oom_kill_disable != CGROUP_UNSET)
                r = cgroup_put_number(directory, "memory.oom_control", l->oom_kill_disable, err);
        return r;
}

/* A share of a period may be invalid with the old period, and the period with the old share. */
static int apply_share(const char *directory, const char *period_file, int64_t period,
                       const char *share_file, int64_t share, struct err *err)
{
        int r = put_if(directory, period_file, period, err);
        if (r == -EINVAL && share != CGROUP_UNSET) {
                r = put_if(directory, share_file, share, err);
                return r < 0 ? r : put_if(directory, period_file, period, err);
        }
        return r < 0 ? r : put_if(directory, share_file, share, err);
}

static int apply_cpu(const char *directory, const struct cgroup_limits *l, struct err *err)
{
        int r = put_if(directory, "cpu.shares", l->cpu_shares, err);
        if (r == 0)
                r = apply_share(directory, "cpu.cfs_period_us", l->cpu_period_us,
                                "cpu.cfs_quota_us", l->cpu_quota_us, err);
        if (r == 0)
                r = put_if(directory, "cpu.cfs_burst_us", l->cpu_burst_us, err);
        if (r == 0)
                r = apply_share(directory, "cpu.rt_period_us", l->cpu_rt_period_us,
                                "cpu.rt_runtime_us", l->cpu_rt_runtime_us, err);
        if (r == 0)
                r = put_if(directory, "cpu.idle", l->cpu_idle, err);
        return r;
}

static int apply_cpuset(const char *directory, const struct cgroup_limits *l, struct err *err)
{
        int r = 0;
        if (!str_empty(l->cpuset_cpus))
                r = cgroup_put(directory, "cpuset.cpus", l->cpuset_cpus, err);
        if (r == 0 && !str_empty(l->cpuset_mems))
                r = cgroup_put(directory, "cpuset.mems", l->cpuset_mems, err);
        return r;
}

static int apply_pids(const char *directory, const struct cgroup_limits *l, struct err *err)
{
        if (l->pids_max == CGROUP_UNSET)
                return 0;
        if (l->pids_max <= 0)
                return cgroup_put(directory, "pids.max", "max", err);
        return cgroup_put_number(directory, "pids.max", l->pids_max, err);
}

static int put_io(const char *directory, const char *file, const struct cgroup_io_device *device,
                  int64_t value, struct err *err)
{
        char text[80];
        if (value == CGROUP_UNSET)
                return 0;
        snprintf(text, sizeof(text), "%llu:%llu %lld", (unsigned long long)device->major,
                 (unsigned long long)device->minor, (long long)value);
        return cgroup_put(directory, file, text, err);
}

/* The weight is of the CFQ or, since that is gone, of the BFQ scheduler. */
static int put_weight(const char *directory, const char *cfq, const char *bfq, int64_t value,
                      struct err *err)
{
        if (value == CGROUP_UNSET || value == 0)
                return 0;
        int r = cgroup_put_number(directory, cfq, value, err);
        return r == -ENOENT ? cgroup_put_number(directory, bfq, value, err) : r;
}

static int apply_io(const char *directory, const struct cgroup_limits *l, struct err *err)
{
        int r = put_weight(directory, "blkio.weight", "blkio.bfq.weight", l->io_weight, err);
        if (r == 0)
                r = put_weight(directory, "blkio.leaf_weight", "blkio.bfq.weight",
                               l->io_leaf_weight, err);
        for (size_t i = 0; r == 0 && i < l->io_devices_length; i++) {
                const struct cgroup_io_device *d = &l->io_devices[i];
                r = put_io(directory, "blkio.weight_device", d, d->weight, err);
                if (r == -ENOENT)
                        r = put_io(directory, "blkio.bfq.weight_device", d, d->weight, err);
                if (r == 0)
                        r = put_io(directory, "blkio.leaf_weight_device", d, d->leaf_weight, err);
                if (r == 0)
                        r = put_io(directory, "blkio.throttle.read_bps_device", d, d->read_bps,
                                   err);
                if (r == 0)
                        r = put_io(directory, "blkio.throttle.write_bps_device", d, d->write_bps,
                                   err);
                if (r == 0)
                        r = put_io(directory, "blkio.throttle.read_iops_device", d, d->read_iops,
                                   err);
                if (r == 0)
                        r = put_io(directory, "blkio.throttle.write_iops_device", d, d->write_iops,
                                   err);
        }
        return r;
}

static int apply_hugetlb(const char *directory, const struct cgroup_limits *l, struct err *err)
{
        int r = 0;
        for (size_t i = 0; r == 0 && i < l->hugetlb_length; i++) {
                char file[64], text[24];
                snprintf(file, sizeof(file), "hugetlb.%s.limit_in_bytes", l->hugetlb[i].page_size);
                snprintf(text, sizeof(text), "%llu", (unsigned long long)l->hugetlb[i].limit_bytes);
                r = cgroup_put(directory, file, text, err);
        }
        return r;
}

static int apply_rdma(const char *directory, const struct cgroup_limits *l, struct err *err)
{
        int r = 0;
        for (size_t i = 0; r == 0 && i < l->rdma_length; i++) {
                auto_buf text = { 0 };
                buf_puts(&text, l->rdma[i].name);
                if (l->rdma[i].a != CGROUP_UNSET)
                        buf_printf(&text, " hca_handle=%lld", (long long)l->rdma[i].a);
                if (l->rdma[i].b != CGROUP_UNSET)
                        buf_printf(&text, " hca_object=%lld", (long long)l->rdma[i].b);
                r = cgroup_put(directory, "rdma.max", buf_text(&text), err);
        }
        return r;
}

static int apply_net_cls(const char *directory, const struct cgroup_limits *l, struct err *err)
{
        return put_if(directory, "net_cls.classid", l->net_class_id, err);
}

static int apply_net_prio(const char *directory, const struct cgroup_limits *l, struct err *err)
{
        int r = 0;
        for (size_t i = 0; r == 0 && i < l->net_priorities_length; i++) {
                auto_free char *text = xasprintf("%s %lld", l->net_priorities[i].name,
                                                 (long long)l->net_priorities[i].a);
                r = cgroup_put(directory, "net_prio.ifpriomap", text, err);
        }
        return r;
}

static const struct {
        enum cgroup_controller controller;
        int (*apply)(const char *directory, const struct cgroup_limits *, struct err *);
} appliers[] = {
        { CGROUP_CPU, apply_cpu },         { CGROUP_CPUSET, apply_cpuset },
        { CGROUP_MEMORY, apply_memory },   { CGROUP_DEVICES, cgroup_v1_apply_devices },
        { CGROUP_PIDS, apply_pids },       { CGROUP_BLKIO, apply_io },
        { CGROUP_HUGETLB, apply_hugetlb }, { CGROUP_RDMA, apply_rdma },
        { CGROUP_NET_CLS, apply_net_cls }, { CGROUP_NET_PRIO, apply_net_prio },
};

static int v1_apply(struct cgroup *cgroup, const struct cgroup_limits *limits, struct err *err)
{
        if (limits->unified && *limits->unified)
                return err_plain(err, EOPNOTSUPP,
                                 "invalid configuration: unified cgroup settings ('%s') need "
                                 "cgroup version 2",
                                 *limits->unified);
        uint32_t wanted = cgroup_limits_controllers(limits);
        if (limits->devices_length)
                wanted |= CGROUP_BIT(CGROUP_DEVICES);
        for (size_t i = 0; i < ELEMENTS(appliers); i++) {
                if (!(wanted & CGROUP_BIT(appliers[i].controller)))
                        continue;
                struct cgroup_hierarchy *h = cgroup_hierarchy(cgroup, appliers[i].controller);
                if (!h)
                        return err_plain(err, EOPNOTSUPP, "this host has no cgroup controller '%s'",
                                         cgroup_controller_names[appliers[i].controller]);
                int r = appliers[i].apply(h->directory, limits, err);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int v1_is_frozen(struct cgroup *cgroup, struct err *err)
{
        struct cgroup_hierarchy *freezer = cgroup_hierarchy(cgroup, CGROUP_FREEZER);
        if (!freezer)
                return 0;
        auto_free char *text = NULL;
        int r = cgroup_get(freezer->directory, "freezer.state", &text, err);
        if (r == -ENOENT || r == -ENODEV)
                return 0;
        return r < 0 ? r : !str_starts(text, "THAWED");
}

/* A group stays FREEZING while members fork or sleep in the kernel; writing the
 * state again makes it look at them anew. */
static int v1_set_frozen(struct cgroup *cgroup, bool frozen, struct err *err)
{
        struct cgroup_hierarchy *freezer = cgroup_hierarchy(cgroup, CGROUP_FREEZER);
        if (!freezer)
                return frozen ? err_plain(err, EOPNOTSUPP,
                                          "this host has no cgroup controller 'freezer'")
                              : 0;
        if (!frozen) {
                int r = cgroup_put(freezer->directory, "freezer.state", "THAWED", err);
                return r == -ENOENT || r == -ENODEV ? 0 : r;
        }
        int64_t deadline = clock_monotonic_ns() + FREEZE_TIMEOUT_NS;
        for (int i = 0; clock_monotonic_ns() < deadline; i++) {
                auto_free char *text = NULL;
                int r = 0;
                if (i % FREEZE_AGAIN == 0)
                        r = cgroup_put(freezer->directory, "freezer.state", "FROZEN", err);
                if (r == 0)
                        r = cgroup_get(freezer->directory, "freezer.state", &text, err);
                if (r < 0)
                        return r;
                if (str_starts(text, "FROZEN"))
                        return 0;
                struct timespec pause = { .tv_nsec = FREEZE_POLL_NS };
                nanosleep(&pause, NULL);
        }
        (void)cgroup_put(freezer->directory, "freezer.state", "THAWED", NULL);
        return err_plain(err, EBUSY, "unable to freeze");
}

static int v1_kill_all(struct cgroup *cgroup, struct err *err)
{
        (void)cgroup;
        (void)err;
        return -EOPNOTSUPP; /* frozen, listed, killed: see cgroup.c */
}

static void read_cpu(struct cgroup *cgroup, struct cgroup_stats *stats)
{
        struct cgroup_hierarchy *h = cgroup_hierarchy(cgroup, CGROUP_CPUACCT);
        auto_free char *detail = NULL, *each = NULL, *throttling = NULL;
        if (h) {
                stats->cpu_total_ns = cgroup_get_number(h->directory, "cpuacct.usage", 0);
                if (cgroup_get(h->directory, "cpuacct.stat", &detail, NULL) == 0) {
                        stats->cpu_user_ns = cgroup_find_number(detail, "user", 0) *
                                             (uint64_t)USER_HZ_NS;
                        stats->cpu_kernel_ns = cgroup_find_number(detail, "system", 0) *
                                               (uint64_t)USER_HZ_NS;
                }
                if (cgroup_get(h->directory, "cpuacct.usage_percpu", &each, NULL) == 0) {
                        for (char *cursor = each, *end;; cursor = end) {
                                uint64_t ns = strtoull(cursor, &end, 10);
                                if (end == cursor)
                                        break;
                                stats->cpu_each_ns = xrealloc(stats->cpu_each_ns,
                                                              stats->cpu_each_length + 1,
                                                              sizeof(uint64_t));
                                stats->cpu_each_ns[stats->cpu_each_length++] = ns;
                        }
                }
        }
        h = cgroup_hierarchy(cgroup, CGROUP_CPU);
        if (h && cgroup_get(h->directory, "cpu.stat", &throttling, NULL) == 0) {
                stats->throttle_periods = cgroup_find_number(throttling, "nr_periods", 0);
                stats->throttled_periods = cgroup_find_number(throttling, "nr_throttled", 0);
                stats->throttled_ns = cgroup_find_number(throttling, "throttled_time", 0);
        }
}

static uint64_t limit_of(const char *directory, const char *file)
{
        uint64_t value = cgroup_get_number(directory, file, UINT64_MAX);
        return value >= (uint64_t)INT64_MAX - 65536 ? UINT64_MAX : value; /* none, in pages */
}

static void read_memory(struct cgroup *cgroup, struct cgroup_stats *stats)
{
        struct cgroup_hierarchy *h = cgroup_hierarchy(cgroup, CGROUP_MEMORY);
        if (!h)
                return;
        const char *d = h->directory;
        auto_free char *detail = NULL, *oom = NULL;
        stats->memory_bytes = cgroup_get_number(d, "memory.usage_in_bytes", 0);
        stats->memory_max_bytes = cgroup_get_number(d, "memory.max_usage_in_bytes", 0);
        stats->memory_limit_bytes = limit_of(d, "memory.limit_in_bytes");
        stats->memory_failures = cgroup_get_number(d, "memory.failcnt", 0);
        stats->swap_bytes = cgroup_get_number(d, "memory.memsw.usage_in_bytes", 0);
        stats->swap_limit_bytes = limit_of(d, "memory.memsw.limit_in_bytes");
        stats->kernel_bytes = cgroup_get_number(d, "memory.kmem.usage_in_bytes", 0);
        if (cgroup_get(d, "memory.stat", &detail, NULL) == 0)
                stats->memory_detail = cgroup_lines(detail);
        if (cgroup_get(d, "memory.oom_control", &oom, NULL) == 0) {
                stats->oom_kill = cgroup_find_number(oom, "oom_kill", 0);
                stats->oom = stats->oom_kill;
        }
}

/* Lines are "8:0 Read 4096"; the last is "Total 4096". */
static void read_io(struct cgroup *cgroup, const char *file, bool bytes, struct cgroup_stats *stats)
{
        struct cgroup_hierarchy *h = cgroup_hierarchy(cgroup, CGROUP_BLKIO);
        auto_free char *text = NULL;
        if (!h || cgroup_get(h->directory, file, &text, NULL) < 0)
                return;
        auto_strv lines = str_split(text, '\n');
        for (char **line = lines; *line; line++) {
                unsigned long long major, minor, value;
                char word[16];
                if (sscanf(*line, "%llu:%llu %15s %llu", &major, &minor, word, &value) != 4)
                        continue;
                struct cgroup_io_stat *io = cgroup_io_of(stats, major, minor);
                if (streq(word, "Read"))
                        *(bytes ? &io->read_bytes : &io->read_operations) = value;
                else if (streq(word, "Write"))
                        *(bytes ? &io->write_bytes : &io->write_operations) = value;
        }
}

static int v1_stats(struct cgroup *cgroup, struct cgroup_stats *stats, struct err *err)
{
        (void)err;
        read_cpu(cgroup, stats);
        read_memory(cgroup, stats);
        struct cgroup_hierarchy *h = cgroup_hierarchy(cgroup, CGROUP_PIDS);
        if (h) {
                stats->pids = cgroup_get_number(h->directory, "pids.current", 0);
                stats->pids_limit = cgroup_get_number(h->directory, "pids.max", UINT64_MAX);
        }
        read_io(cgroup, "blkio.throttle.io_service_bytes_recursive", true, stats);
        read_io(cgroup, "blkio.throttle.io_serviced_recursive", false, stats);
        return 0;
}

static int v1_oom_kills(struct cgroup *cgroup, uint64_t *ret, struct err *err)
{
        struct cgroup_hierarchy *h = cgroup_hierarchy(cgroup, CGROUP_MEMORY);
        auto_free char *text = NULL;
        if (!h) {
                *ret = 0;
                return 0;
        }
        int r = cgroup_get(h->directory, "memory.oom_control", &text, err);
        if (r < 0)
                return r;
        *ret = cgroup_find_number(text, "oom_kill", 0);
        return 0;
}

static int v1_oom_watch(struct cgroup *cgroup, int *ret_fd, struct err *err)
{
        struct cgroup_hierarchy *h = cgroup_hierarchy(cgroup, CGROUP_MEMORY);
        if (!h)
                return err_plain(err, EOPNOTSUPP, "this host has no cgroup controller 'memory'");
        auto_free char *path = xasprintf("%s/memory.oom_control", h->directory);
        auto_fd control = open(path, O_RDONLY | O_CLOEXEC);
        if (control < 0)
                return err_set(err, errno, "open '%s'", path);
        auto_fd event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (event < 0)
                return err_set(err, errno, "eventfd");
        char text[32];
        snprintf(text, sizeof(text), "%d %d", event, control);
        int r = cgroup_put(h->directory, "cgroup.event_control", text, err);
        if (r < 0)
                return r;
        *ret_fd = take_fd(event);
        return 0;
}

const struct cgroup_ops cgroup_v1_ops = {
        .create = v1_create,
        .apply = v1_apply,
        .attach = v1_attach,
        .extend = v1_extend,
        .join = v1_join,
        .set_frozen = v1_set_frozen,
        .is_frozen = v1_is_frozen,
        .kill_all = v1_kill_all,
        .stats = v1_stats,
        .oom_kills = v1_oom_kills,
        .oom_watch = v1_oom_watch,
};
