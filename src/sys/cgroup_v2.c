#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/str.h"
#include "sys/cgroup_convert.h"
#include "sys/cgroup_provider.h"
#include "sys/namespace.h"

#define FREEZE_TIMEOUT_MS 10000

static const char *directory_of(const struct cgroup *cgroup)
{
        return cgroup->hierarchies[0].directory;
}

/* Turns every controller that `parent` has on for its children. One that cannot
 * be (a real-time process is there, threads are) is left out: a limit that needs
 * it fails then by name. */
static int enable_controllers(const char *parent, struct err *err)
{
        auto_free char *text = NULL;
        int r = cgroup_get(parent, "cgroup.controllers", &text, err);
        if (r < 0)
                return r;
        text[strcspn(text, "\n")] = '\0';
        auto_strv names = str_split(text, ' ');
        auto_buf all = { 0 };
        for (char **name = names; *name; name++)
                if (**name)
                        buf_printf(&all, "%s+%s", all.size ? " " : "", *name);
        if (all.size == 0 ||
            cgroup_put(parent, "cgroup.subtree_control", buf_text(&all), NULL) == 0)
                return 0;
        for (char **name = names; *name; name++) {
                auto_free char *one = xasprintf("+%s", *name);
                if (**name)
                        (void)cgroup_put(parent, "cgroup.subtree_control", one, NULL);
        }
        return 0;
}

/* Makes the path from the mount down, with controllers on at every level above
 * the group itself. */
static int v2_create(struct cgroup *cgroup, struct err *err)
{
        const struct cgroup_hierarchy *h = &cgroup->hierarchies[0];
        if (!h->mount || strlen(h->directory) <= strlen(h->mount))
                return err_plain(err, EINVAL, "cgroup '%s' is not below a mount", h->directory);
        auto_free char *path = xstrdup(h->directory);
        for (char *slash = path + strlen(h->mount); slash; slash = strchr(slash + 1, '/')) {
                *slash = '\0';
                int r = streq(path, h->mount)
                                ? 0
                                : cgroup_make_directory(h->mount, path, NULL, NULL, err);
                if (r == 0)
                        r = enable_controllers(path, err);
                if (r < 0)
                        return r;
                *slash = '/';
        }
        return cgroup_make_directory(h->mount, h->directory, NULL, NULL, err);
}

static int v2_attach(struct cgroup *cgroup, pid_t pid, struct err *err)
{
        return cgroup_put_number(directory_of(cgroup), "cgroup.procs", pid, err);
}

/* To extend by or to join: all controllers that there are were enabled at creation. */
static int v2_nothing(struct cgroup *cgroup, uint32_t controllers, struct err *err)
{
        (void)cgroup;
        (void)controllers;
        (void)err;
        return 0;
}

/* "max" for none; 0 is a real limit. */
static int put_max(const char *directory, const char *file, int64_t value, struct err *err)
{
        if (value == CGROUP_UNSET)
                return 0;
        if (value < 0)
                return cgroup_put(directory, file, "max", err);
        return cgroup_put_number(directory, file, value, err);
}

/* What is used after what can be had back (caches) was, on kernels that can be asked to. */
static uint64_t reclaim_down_to(const char *d, uint64_t bytes)
{
        uint64_t usage = cgroup_get_number(d, "memory.current", 0);
        if (usage <= bytes)
                return usage;
        auto_free char *path = xasprintf("%s/memory.reclaim", d);
        auto_free char *amount = xasprintf("%ju", (uintmax_t)(usage - bytes));
        (void)file_put(AT_FDCWD, path, amount, NULL); /* says EAGAIN where it was less */
        return cgroup_get_number(d, "memory.current", 0);
}

static int apply_memory(const char *d, const struct cgroup_limits *l, struct err *err)
{
        int64_t swap = CGROUP_UNSET;
        if (l->memory_swap_bytes != CGROUP_UNSET && l->memory_swap_bytes != 0) {
                int64_t memory = l->memory_bytes;
                if (memory == CGROUP_UNSET) {
                        uint64_t now = cgroup_get_number(d, "memory.max", UINT64_MAX);
                        memory = now == UINT64_MAX ? -1 : (int64_t)now;
                }
                if (cgroup_swap_to_v2(l->memory_swap_bytes, memory, &swap) < 0)
                        return err_plain(err, EINVAL,
                                         "memory+swap limit %lld must not be less than the memory "
                                         "limit, which must be set too",
                                         (long long)l->memory_swap_bytes);
        }
        if (l->memory_check_before_update && l->memory_bytes >= 0) {
                uint64_t usage = reclaim_down_to(d, (uint64_t)l->memory_bytes);
                if (usage > (uint64_t)l->memory_bytes)
                        return err_plain(err, EBUSY,
                                         "unable to set memory limit to %lld (current usage: %llu)",
                                         (long long)l->memory_bytes, (unsigned long long)usage);
        }
        /* Where there is no swap there is no file, and "none" or "all" are true anyway. */
        int r = put_max(d, "memory.swap.max", swap, err);
        if (r == -ENOENT && swap <= 0)
                r = 0;
        if (r == 0)
                r = put_max(d, "memory.max", l->memory_bytes, err);
        if (r == 0)
                r = put_max(d, "memory.low", l->memory_reservation_bytes, err);
        return r;
}

static int apply_cpu(const char *d, const struct cgroup_limits *l, struct err *err)
{
        int r = 0;
        if (l->cpu_idle != CGROUP_UNSET)
                r = cgroup_put_number(d, "cpu.idle", l->cpu_idle, err);
        /* A group that is idle has no weight. */
        if (r == 0 && l->cpu_shares > 0 && l->cpu_idle != 1)
                r = cgroup_put_number(d, "cpu.weight",
                                      (int64_t)cgroup_shares_to_weight((uint64_t)l->cpu_shares),
                                      err);
        if (r == 0 && (l->cpu_quota_us != CGROUP_UNSET || l->cpu_period_us != CGROUP_UNSET)) {
                auto_buf text = { 0 };
                if (l->cpu_quota_us > 0)
                        buf_printf(&text, "%lld", (long long)l->cpu_quota_us);
                else
                        buf_puts(&text, "max");
                if (l->cpu_period_us > 0)
                        buf_printf(&text, " %lld", (long long)l->cpu_period_us);
                r = cgroup_put(d, "cpu.max", buf_text(&text), err);
        }
        if (r == 0 && l->cpu_burst_us != CGROUP_UNSET)
                r = cgroup_put_number(d, "cpu.max.burst", l->cpu_burst_us, err);
        if (r == 0 && !str_empty(l->cpuset_cpus))
                r = cgroup_put(d, "cpuset.cpus", l->cpuset_cpus, err);
        if (r == 0 && !str_empty(l->cpuset_mems))
                r = cgroup_put(d, "cpuset.mems", l->cpuset_mems, err);
        return r;
}

static int put_io_max(const char *d, const struct cgroup_io_device *device, const char *key,
                      int64_t value, struct err *err)
{
        if (value == CGROUP_UNSET)
                return 0;
        auto_free char *text = value == 0 ? xasprintf("%llu:%llu %s=max",
                                                      (unsigned long long)device->major,
                                                      (unsigned long long)device->minor, key)
                                          : xasprintf("%llu:%llu %s=%lld",
                                                      (unsigned long long)device->major,
                                                      (unsigned long long)device->minor, key,
                                                      (long long)value);
        return cgroup_put(d, "io.max", text, err);
}

static int apply_io(const char *d, const struct cgroup_limits *l, struct err *err)
{
        int r = 0;
        if (l->io_weight > 0) {
                /* BFQ takes the old range; the kernel's own io.weight the new one. */
                r = cgroup_put_number(d, "io.bfq.weight", l->io_weight, err);
                if (r == -ENOENT) {
                        uint64_t weight = cgroup_blkio_to_io_weight((uint64_t)l->io_weight);
                        r = cgroup_put_number(d, "io.weight", (int64_t)weight, err);
                }
        }
        for (size_t i = 0; r == 0 && i < l->io_devices_length; i++) {
                const struct cgroup_io_device *device = &l->io_devices[i];
                if (device->weight > 0) {
                        auto_free char *text = xasprintf(
                                "%llu:%llu %lld", (unsigned long long)device->major,
                                (unsigned long long)device->minor, (long long)device->weight);
                        r = cgroup_put(d, "io.bfq.weight", text, err);
                }
                if (r == 0)
                        r = put_io_max(d, device, "rbps", device->read_bps, err);
                if (r == 0)
                        r = put_io_max(d, device, "wbps", device->write_bps, err);
                if (r == 0)
                        r = put_io_max(d, device, "riops", device->read_iops, err);
                if (r == 0)
                        r = put_io_max(d, device, "wiops", device->write_iops, err);
        }
        return r;
}

static int apply_rest(const char *d, const struct cgroup_limits *l, struct err *err)
{
        int r = 0;
        if (l->pids_max != CGROUP_UNSET)
                r = put_max(d, "pids.max", l->pids_max > 0 ? l->pids_max : CGROUP_MAX, err);
        for (size_t i = 0; r == 0 && i < l->hugetlb_length; i++) {
                char file[64], text[24];
                snprintf(text, sizeof(text), "%llu", (unsigned long long)l->hugetlb[i].limit_bytes);
                snprintf(file, sizeof(file), "hugetlb.%s.max", l->hugetlb[i].page_size);
                r = cgroup_put(d, file, text, err);
        }
        for (size_t i = 0; r == 0 && i < l->rdma_length; i++) {
                auto_buf text = { 0 };
                buf_puts(&text, l->rdma[i].name);
                if (l->rdma[i].a != CGROUP_UNSET)
                        buf_printf(&text, " hca_handle=%lld", (long long)l->rdma[i].a);
                if (l->rdma[i].b != CGROUP_UNSET)
                        buf_printf(&text, " hca_object=%lld", (long long)l->rdma[i].b);
                r = cgroup_put(d, "rdma.max", buf_text(&text), err);
        }
        return r;
}

/* Lines of a value are written one by one: the kernel takes one per write. */
static int apply_unified(const char *d, char *const *unified, struct err *err)
{
        for (; unified && *unified; unified++) {
                const char *equals = strchr(*unified, '=');
                if (!equals || memchr(*unified, '/', (size_t)(equals - *unified)))
                        return err_plain(err, EINVAL, "unified cgroup setting '%s' is not usable",
                                         *unified);
                auto_free char *file = xstrndup(*unified, (size_t)(equals - *unified));
                auto_strv lines = str_split(equals + 1, '\n');
                for (char **line = lines; *line; line++) {
                        int r = cgroup_put(d, file, *line, err);
                        if (r < 0)
                                return r;
                }
        }
        return 0;
}

/* Who has no right to load a program has none to make nodes either. */
static int apply_devices(struct cgroup *cgroup, const struct cgroup_limits *l, struct err *err)
{
        int r = cgroup_bpf_devices(cgroup, l->devices, l->devices_length, err);
        if (r != -EPERM || !namespace_is_rootless())
                return r;
        err_clear(err);
        return 0;
}

static int v2_apply(struct cgroup *cgroup, const struct cgroup_limits *limits, struct err *err)
{
        const char *d = directory_of(cgroup);
        int r = apply_memory(d, limits, err);
        if (r == 0)
                r = apply_cpu(d, limits, err);
        if (r == 0)
                r = apply_io(d, limits, err);
        if (r == 0)
                r = apply_rest(d, limits, err);
        if (r == 0 && limits->devices)
                r = apply_devices(cgroup, limits, err);
        if (r == 0)
                r = apply_unified(d, limits->unified, err);
        return r;
}

static int frozen_now(const char *d, struct err *err)
{
        auto_free char *text = NULL;
        int r = cgroup_get(d, "cgroup.events", &text, err);
        if (r == -ENOENT || r == -ENODEV)
                return 0;
        return r < 0 ? r : cgroup_find_number(text, "frozen", 0) == 1;
}

static int v2_is_frozen(struct cgroup *cgroup, struct err *err)
{
        return frozen_now(directory_of(cgroup), err);
}

/* cgroup.events polls POLLPRI when "frozen" changes. */
static int v2_set_frozen(struct cgroup *cgroup, bool frozen, struct err *err)
{
        const char *d = directory_of(cgroup);
        auto_free char *path = xasprintf("%s/cgroup.events", d);
        auto_fd events = open(path, O_RDONLY | O_CLOEXEC);
        int r = cgroup_put(d, "cgroup.freeze", frozen ? "1" : "0", err);
        if (!frozen)
                return r == -ENOENT || r == -ENODEV ? 0 : r;
        if (r < 0)
                return r;
        int64_t deadline = clock_monotonic_ns() + FREEZE_TIMEOUT_MS * NS_PER_MS;
        while ((r = frozen_now(d, err)) == 0) {
                int64_t left = deadline - clock_monotonic_ns();
                if (left <= 0 || events < 0) {
                        (void)cgroup_put(d, "cgroup.freeze", "0", NULL);
                        return err_plain(err, EBUSY, "unable to freeze");
                }
                char state[256];
                struct pollfd entry = { .fd = events, .events = POLLPRI };
                (void)poll(&entry, 1, (int)(left / NS_PER_MS) + 1);
                (void)!pread(events, state, sizeof(state), 0); /* arms it again */
        }
        return r < 0 ? r : 0;
}

/* cgroup.kill (Linux 5.14) reaches everybody below and frozen members too. */
static int v2_kill_all(struct cgroup *cgroup, struct err *err)
{
        int r = cgroup_put(directory_of(cgroup), "cgroup.kill", "1", err);
        if (r == -ENOENT)
                return access(directory_of(cgroup), F_OK) < 0 ? 0 : -EOPNOTSUPP;
        (void)cgroup_put(directory_of(cgroup), "cgroup.freeze", "0", NULL);
        return r == -ENODEV ? 0 : r;
}

static void read_io(const char *d, struct cgroup_stats *stats)
{
        auto_free char *text = NULL;
        if (cgroup_get(d, "io.stat", &text, NULL) < 0)
                return;
        auto_strv lines = str_split(text, '\n');
        for (char **line = lines; *line; line++) {
                unsigned long long major, minor;
                if (sscanf(*line, "%llu:%llu", &major, &minor) != 2)
                        continue;
                struct cgroup_io_stat *io = cgroup_io_of(stats, major, minor);
                auto_strv words = str_split(*line, ' ');
                for (char **word = words; *word; word++) {
                        char *equals = strchr(*word, '=');
                        if (!equals)
                                continue;
                        uint64_t value = strtoull(equals + 1, NULL, 10);
                        if (str_starts(*word, "rbytes="))
                                io->read_bytes = value;
                        else if (str_starts(*word, "wbytes="))
                                io->write_bytes = value;
                        else if (str_starts(*word, "rios="))
                                io->read_operations = value;
                        else if (str_starts(*word, "wios="))
                                io->write_operations = value;
                }
        }
}

static int v2_stats(struct cgroup *cgroup, struct cgroup_stats *stats, struct err *err)
{
        const char *d = directory_of(cgroup);
        auto_free char *cpu = NULL, *memory = NULL, *events = NULL;
        stats->v2 = true;
        int r = cgroup_get(d, "cpu.stat", &cpu, err);
        if (r < 0)
                return r;
        stats->cpu_total_ns = cgroup_find_number(cpu, "usage_usec", 0) * NS_PER_US;
        stats->cpu_user_ns = cgroup_find_number(cpu, "user_usec", 0) * NS_PER_US;
        stats->cpu_kernel_ns = cgroup_find_number(cpu, "system_usec", 0) * NS_PER_US;
        stats->throttle_periods = cgroup_find_number(cpu, "nr_periods", 0);
        stats->throttled_periods = cgroup_find_number(cpu, "nr_throttled", 0);
        stats->throttled_ns = cgroup_find_number(cpu, "throttled_usec", 0) * NS_PER_US;

        stats->memory_bytes = cgroup_get_number(d, "memory.current", 0);
        stats->memory_max_bytes = cgroup_get_number(d, "memory.peak", 0);
        stats->memory_limit_bytes = cgroup_get_number(d, "memory.max", UINT64_MAX);
        stats->swap_bytes = cgroup_get_number(d, "memory.swap.current", 0);
        stats->swap_limit_bytes = cgroup_get_number(d, "memory.swap.max", UINT64_MAX);
        if (cgroup_get(d, "memory.stat", &memory, NULL) == 0) {
                stats->memory_detail = cgroup_lines(memory);
                stats->kernel_bytes = cgroup_find_number(memory, "kernel", 0);
        }
        if (cgroup_get(d, "memory.events", &events, NULL) == 0) {
                stats->memory_failures = cgroup_find_number(events, "max", 0);
                stats->oom = cgroup_find_number(events, "oom", 0);
                stats->oom_kill = cgroup_find_number(events, "oom_kill", 0);
        }
        stats->pids = cgroup_get_number(d, "pids.current", 0);
        stats->pids_limit = cgroup_get_number(d, "pids.max", UINT64_MAX);
        read_io(d, stats);
        return 0;
}

static int v2_oom_kills(struct cgroup *cgroup, uint64_t *ret, struct err *err)
{
        auto_free char *text = NULL;
        int r = cgroup_get(directory_of(cgroup), "memory.events", &text, err);
        if (r < 0)
                return r;
        *ret = cgroup_find_number(text, "oom_kill", 0);
        return 0;
}

static int v2_oom_watch(struct cgroup *cgroup, int *ret_fd, struct err *err)
{
        auto_free char *path = xasprintf("%s/memory.events", directory_of(cgroup));
        auto_fd fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
        if (fd < 0)
                return err_set(err, errno, "inotify");
        if (inotify_add_watch(fd, path, IN_MODIFY) < 0)
                return err_set(err, errno, "watch '%s'", path);
        *ret_fd = take_fd(fd);
        return 0;
}

const struct cgroup_ops cgroup_v2_ops = {
        .create = v2_create,
        .apply = v2_apply,
        .attach = v2_attach,
        .extend = v2_nothing,
        .join = v2_nothing,
        .set_frozen = v2_set_frozen,
        .is_frozen = v2_is_frozen,
        .kill_all = v2_kill_all,
        .stats = v2_stats,
        .oom_kills = v2_oom_kills,
        .oom_watch = v2_oom_watch,
};
