/* Limits and devices of a bundle. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/auto.h"
#include "base/str.h"
#include "engine/bundle.h"

#define DEFAULT_PERIOD_US 100000
#define DEVICES_MAX       4096
#define DEVICE_DEPTH_MAX  4

static void add_memory(const struct host_config *h, bool swap_limit, struct oci_resources *out)
{
        struct oci_memory m = { 0 };
        m.has_limit = h->memory > 0;
        m.limit = h->memory;
        m.has_reservation = h->memory_reservation > 0;
        m.reservation = h->memory_reservation;
        /* docker: as much swap again as memory, unless told otherwise */
        int64_t swap = h->memory_swap ? h->memory_swap : h->memory > 0 ? 2 * h->memory : 0;
        m.has_swap = swap_limit && swap != 0;
        m.swap = swap;
        m.has_swappiness = h->has_memory_swappiness && h->memory_swappiness >= 0;
        m.swappiness = (uint64_t)h->memory_swappiness;
        m.has_disable_oom_killer = h->has_oom_kill_disable && h->oom_kill_disable;
        m.disable_oom_killer = m.has_disable_oom_killer;
        if (m.has_limit || m.has_reservation || m.has_swap || m.has_swappiness ||
            m.has_disable_oom_killer)
                out->memory = xmemdup(&m, sizeof(m));
}

static void add_cpu(const struct host_config *h, struct oci_resources *out)
{
        struct oci_cpu c = { 0 };
        c.has_shares = h->cpu_shares > 0;
        c.shares = h->cpu_shares;
        c.has_quota_us = h->cpu_quota != 0;
        c.quota_us = h->cpu_quota;
        c.has_period_us = h->cpu_period > 0;
        c.period_us = (uint64_t)h->cpu_period;
        if (h->nano_cpus > 0) {
                c.has_quota_us = c.has_period_us = true;
                c.period_us = DEFAULT_PERIOD_US;
                c.quota_us = h->nano_cpus * DEFAULT_PERIOD_US / 1000000000LL;
        }
        c.cpus = str_empty(h->cpuset_cpus) ? NULL : xstrdup(h->cpuset_cpus);
        c.mems = str_empty(h->cpuset_mems) ? NULL : xstrdup(h->cpuset_mems);
        if (c.has_shares || c.has_quota_us || c.has_period_us || c.cpus || c.mems)
                out->cpu = xmemdup(&c, sizeof(c));
}

static bool device_number(const char *path, int64_t *ret_major, int64_t *ret_minor)
{
        struct stat st;
        if (stat(path, &st) < 0 || !S_ISBLK(st.st_mode))
                return false;
        *ret_major = major(st.st_rdev);
        *ret_minor = minor(st.st_rdev);
        return true;
}

static void add_throttles(const struct throttle_device *in, size_t length,
                          struct oci_throttle_device **out, size_t *out_length)
{
        for (size_t i = 0; i < length; i++) {
                struct oci_throttle_device device = { .rate = in[i].rate };
                if (device_number(in[i].path, &device.major, &device.minor))
                        ARRAY_PUSH(*out, *out_length, device);
        }
}

static void add_block_io(const struct host_config *h, struct oci_resources *out)
{
        struct oci_block_io b = { .weight = h->blkio_weight, .has_weight = h->blkio_weight > 0 };
        for (size_t i = 0; i < h->blkio_weight_device_length; i++) {
                const struct weight_device *in = &h->blkio_weight_device[i];
                struct oci_weight_device device = { .weight = in->weight, .has_weight = true };
                if (device_number(in->path, &device.major, &device.minor))
                        ARRAY_PUSH(b.weight_device, b.weight_device_length, device);
        }
        add_throttles(h->blkio_device_read_bps, h->blkio_device_read_bps_length,
                      &b.throttle_read_bps, &b.throttle_read_bps_length);
        add_throttles(h->blkio_device_write_bps, h->blkio_device_write_bps_length,
                      &b.throttle_write_bps, &b.throttle_write_bps_length);
        add_throttles(h->blkio_device_read_iops, h->blkio_device_read_iops_length,
                      &b.throttle_read_iops, &b.throttle_read_iops_length);
        add_throttles(h->blkio_device_write_iops, h->blkio_device_write_iops_length,
                      &b.throttle_write_iops, &b.throttle_write_iops_length);
        if (b.has_weight || b.weight_device_length || b.throttle_read_bps_length ||
            b.throttle_write_bps_length || b.throttle_read_iops_length ||
            b.throttle_write_iops_length)
                out->block_io = xmemdup(&b, sizeof(b));
}

struct oci_resources *bundle_resources(const struct host_config *host, bool swap_limit)
{
        struct oci_resources *resources = new0(struct oci_resources);
        add_memory(host, swap_limit, resources);
        add_cpu(host, resources);
        add_block_io(host, resources);
        if (host->has_pids_limit && host->pids_limit != 0) {
                resources->pids = new0(struct oci_pids);
                resources->pids->limit = host->pids_limit > 0 ? host->pids_limit : -1;
                resources->pids->has_limit = true;
        }
        return resources;
}

/* -- devices ------------------------------------------------------------------- */

static void add_rule(struct oci_resources *resources, bool allow, char type, int64_t major,
                     int64_t minor, const char *access)
{
        struct oci_device_rule rule = {
                .allow = allow,
                .type = xstrndup(&type, 1),
                .major = major,
                .has_major = major >= 0,
                .minor = minor,
                .has_minor = minor >= 0,
                .access = xstrdup(access),
        };
        ARRAY_PUSH(resources->devices, resources->devices_length, rule);
}

/* What every instance may use: making any node, and the harmless ones. */
static const struct {
        char type;
        int major, minor;
        const char *access;
} default_rules[] = {
        { 'c', -1, -1, "m" }, { 'b', -1, -1, "m" }, { 'c', 1, 3, "rwm" },    { 'c', 1, 5, "rwm" },
        { 'c', 1, 7, "rwm" }, { 'c', 1, 8, "rwm" }, { 'c', 1, 9, "rwm" },    { 'c', 5, 0, "rwm" },
        { 'c', 5, 1, "rwm" }, { 'c', 5, 2, "rwm" }, { 'c', 136, -1, "rwm" },
};

/* One node; -ENODEV where the path is not a device. */
static int add_node(struct oci_linux *l, const char *host_path, const char *path,
                    const char *access, bool rule, struct err *err)
{
        struct stat st;
        if (stat(host_path, &st) < 0)
                return err_set(err, errno,
                               "error gathering device information while adding custom "
                               "device \"%s\"",
                               host_path);
        if (!S_ISCHR(st.st_mode) && !S_ISBLK(st.st_mode))
                return err_plain(err, ENODEV,
                                 "error gathering device information while adding custom device "
                                 "\"%s\": not a device node",
                                 host_path);
        struct oci_device device = {
                .path = xstrdup(path),
                .type = xstrdup(S_ISCHR(st.st_mode) ? "c" : "b"),
                .major = major(st.st_rdev),
                .minor = minor(st.st_rdev),
                .file_mode = st.st_mode & 0777,
                .has_file_mode = true,
                .uid = st.st_uid,
                .gid = st.st_gid,
                .has_uid = true,
                .has_gid = true,
        };
        ARRAY_PUSH(l->devices, l->devices_length, device);
        if (rule)
                add_rule(l->resources, true, S_ISCHR(st.st_mode) ? 'c' : 'b', device.major,
                         device.minor, access);
        return 0;
}

static bool is_own_device(const char *path)
{
        static const char *const skipped[] = { "/dev/pts",    "/dev/shm",     "/dev/fd",
                                               "/dev/mqueue", "/dev/.lxc",    "/dev/.lxd-mounts",
                                               "/dev/.udev",  "/dev/console", "/dev/tty",
                                               "/dev/ptmx",   "/dev/null",    "/dev/zero",
                                               "/dev/full",   "/dev/random",  "/dev/urandom" };
        for (size_t i = 0; i < ELEMENTS(skipped); i++)
                if (streq(path, skipped[i]))
                        return true;
        return false;
}

/* Every device node below `host_path`, at the same place below `path`. */
static void add_tree(struct oci_linux *l, const char *host_path, const char *path,
                     const char *access, bool rule, unsigned level)
{
        auto_dir dir = opendir(host_path);
        struct dirent *entry;
        while (dir && level < DEVICE_DEPTH_MAX && l->devices_length < DEVICES_MAX &&
               (entry = readdir(dir))) {
                if (entry->d_name[0] == '.' && (!entry->d_name[1] || streq(entry->d_name, "..")))
                        continue;
                auto_free char *from = xasprintf("%s/%s", host_path, entry->d_name);
                auto_free char *to = xasprintf("%s/%s", path, entry->d_name);
                struct stat st;
                if (is_own_device(from) || lstat(from, &st) < 0)
                        continue;
                if (S_ISDIR(st.st_mode))
                        add_tree(l, from, to, access, rule, level + 1);
                else if (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode))
                        add_node(l, from, to, access, rule, NULL);
        }
}

static int add_mapping(const struct device_mapping *m, struct oci_linux *l, struct err *err)
{
        const char *path = str_empty(m->path_in_container) ? m->path_on_host : m->path_in_container;
        const char *access = str_empty(m->cgroup_permissions) ? "rwm" : m->cgroup_permissions;
        if (strspn(access, "rwm") != strlen(access))
                return err_plain(err, EINVAL, "invalid device mode: %s", access);
        struct stat st;
        if (stat(m->path_on_host, &st) == 0 && S_ISDIR(st.st_mode)) {
                size_t before = l->devices_length;
                add_tree(l, m->path_on_host, path, access, true, 0);
                if (l->devices_length == before)
                        return err_plain(err, ENODEV, "there is no device in '%s'",
                                         m->path_on_host);
                return 0;
        }
        return add_node(l, m->path_on_host, path, access, true, err);
}

/* "c 1:3 rwm", "a *:* rwm" */
static int add_rule_text(const char *text, struct oci_resources *resources, struct err *err)
{
        char type, major_text[12], minor_text[12], access[4];
        uint32_t number;
        int end = 0;
        if (sscanf(text, "%c %11[0-9*]:%11[0-9*] %3[rwm]%n", &type, major_text, minor_text, access,
                   &end) != 4 ||
            text[end] || !strchr("abc", type))
                return err_plain(err, EINVAL, "invalid device cgroup rule format: '%s'", text);
        int64_t major = -1, minor = -1;
        if (!streq(major_text, "*")) {
                if (str_to_u32(major_text, &number) < 0)
                        return err_plain(err, EINVAL, "invalid device cgroup rule format: '%s'",
                                         text);
                major = number;
        }
        if (!streq(minor_text, "*")) {
                if (str_to_u32(minor_text, &number) < 0)
                        return err_plain(err, EINVAL, "invalid device cgroup rule format: '%s'",
                                         text);
                minor = number;
        }
        add_rule(resources, true, type, major, minor, access);
        return 0;
}

int bundle_devices(const struct host_config *host, struct oci_linux *l, struct err *err)
{
        if (host->privileged) {
                add_rule(l->resources, true, 'a', -1, -1, "rwm");
                add_tree(l, "/dev", "/dev", "rwm", false, 0);
                return 0;
        }
        add_rule(l->resources, false, 'a', -1, -1, "rwm");
        for (size_t i = 0; i < ELEMENTS(default_rules); i++)
                add_rule(l->resources, true, default_rules[i].type, default_rules[i].major,
                         default_rules[i].minor, default_rules[i].access);
        int r = 0;
        for (size_t i = 0; r == 0 && i < host->devices_length; i++)
                r = add_mapping(&host->devices[i], l, err);
        for (char **rule = host->device_cgroup_rules; r == 0 && rule && *rule; rule++)
                r = add_rule_text(*rule, l->resources, err);
        return r;
}
