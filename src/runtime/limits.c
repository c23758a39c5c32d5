#include "runtime/limits.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"

/* What every container may use besides its own rules: make any node, and use the
 * default devices, terminals and the tun-free set of the specification. */
static const struct cgroup_device_rule always[] = {
        { true, 'c', -1, -1, "m" },    { true, 'b', -1, -1, "m" }, { true, 'c', 1, 3, "rwm" },
        { true, 'c', 1, 5, "rwm" },    { true, 'c', 1, 7, "rwm" }, { true, 'c', 1, 8, "rwm" },
        { true, 'c', 1, 9, "rwm" },    { true, 'c', 5, 0, "rwm" }, { true, 'c', 5, 2, "rwm" },
        { true, 'c', 136, -1, "rwm" },
};

static void set_memory(const struct oci_memory *m, struct cgroup_limits *l)
{
        if (m->has_limit && m->limit != 0)
                l->memory_bytes = m->limit;
        if (m->has_reservation && m->reservation != 0)
                l->memory_reservation_bytes = m->reservation;
        if (m->has_swap && m->swap != 0)
                l->memory_swap_bytes = m->swap;
        if (m->has_kernel && m->kernel != 0)
                l->memory_kernel_bytes = m->kernel;
        if (m->has_kernel_tcp && m->kernel_tcp != 0)
                l->memory_kernel_tcp_bytes = m->kernel_tcp;
        if (m->has_swappiness && m->swappiness <= INT64_MAX)
                l->memory_swappiness = (int64_t)m->swappiness;
        if (m->has_disable_oom_killer)
                l->oom_kill_disable = m->disable_oom_killer;
        l->memory_check_before_update = m->check_before_update;
        /* An unlimited memory with no word on swap lifts the swap limit too, or it
         * would be less than the memory limit. */
        if (l->memory_bytes == CGROUP_MAX && l->memory_swap_bytes == CGROUP_UNSET)
                l->memory_swap_bytes = CGROUP_MAX;
}

static int64_t positive(bool has, uint64_t value)
{
        return has && value != 0 && value <= INT64_MAX ? (int64_t)value : CGROUP_UNSET;
}

static void set_cpu(const struct oci_cpu *c, struct cgroup_limits *l)
{
        l->cpu_shares = positive(c->has_shares, c->shares);
        l->cpu_period_us = positive(c->has_period_us, c->period_us);
        if (c->has_quota_us && c->quota_us != 0)
                l->cpu_quota_us = c->quota_us;
        if (c->has_burst_us && c->burst_us <= INT64_MAX)
                l->cpu_burst_us = (int64_t)c->burst_us;
        l->cpu_rt_period_us = positive(c->has_realtime_period_us, c->realtime_period_us);
        if (c->has_realtime_runtime_us && c->realtime_runtime_us != 0)
                l->cpu_rt_runtime_us = c->realtime_runtime_us;
        if (c->has_idle)
                l->cpu_idle = c->idle;
        l->cpuset_cpus = c->cpus;
        l->cpuset_mems = c->mems;
}

static struct cgroup_io_device *io_device(struct limits *limits, int64_t major, int64_t minor)
{
        struct cgroup_limits *l = &limits->values;
        for (size_t i = 0; i < l->io_devices_length; i++)
                if (limits->io_devices[i].major == (uint64_t)major &&
                    limits->io_devices[i].minor == (uint64_t)minor)
                        return &limits->io_devices[i];
        limits->io_devices = xrealloc(limits->io_devices, l->io_devices_length + 1,
                                      sizeof(*limits->io_devices));
        l->io_devices = limits->io_devices;
        struct cgroup_io_device *added = &limits->io_devices[l->io_devices_length++];
        *added = (struct cgroup_io_device){
                .major = (uint64_t)major,
                .minor = (uint64_t)minor,
                .weight = CGROUP_UNSET,
                .leaf_weight = CGROUP_UNSET,
                .read_bps = CGROUP_UNSET,
                .write_bps = CGROUP_UNSET,
                .read_iops = CGROUP_UNSET,
                .write_iops = CGROUP_UNSET,
        };
        return added;
}

static void set_throttle(struct limits *limits, const struct oci_throttle_device *list,
                         size_t length, size_t member)
{
        for (size_t i = 0; i < length; i++) {
                struct cgroup_io_device *d = io_device(limits, list[i].major, list[i].minor);
                int64_t rate = list[i].rate > INT64_MAX ? INT64_MAX : (int64_t)list[i].rate;
                memcpy((char *)d + member, &rate, sizeof(rate));
        }
}

static void set_io(const struct oci_block_io *b, struct limits *limits)
{
        struct cgroup_limits *l = &limits->values;
        l->io_wanted = true;
        l->io_weight = positive(b->has_weight, b->weight);
        l->io_leaf_weight = positive(b->has_leaf_weight, b->leaf_weight);
        for (size_t i = 0; i < b->weight_device_length; i++) {
                const struct oci_weight_device *from = &b->weight_device[i];
                struct cgroup_io_device *d = io_device(limits, from->major, from->minor);
                d->weight = positive(from->has_weight, from->weight);
                d->leaf_weight = positive(from->has_leaf_weight, from->leaf_weight);
        }
        set_throttle(limits, b->throttle_read_bps, b->throttle_read_bps_length,
                     offsetof(struct cgroup_io_device, read_bps));
        set_throttle(limits, b->throttle_write_bps, b->throttle_write_bps_length,
                     offsetof(struct cgroup_io_device, write_bps));
        set_throttle(limits, b->throttle_read_iops, b->throttle_read_iops_length,
                     offsetof(struct cgroup_io_device, read_iops));
        set_throttle(limits, b->throttle_write_iops, b->throttle_write_iops_length,
                     offsetof(struct cgroup_io_device, write_iops));
}

static void set_lists(const struct oci_resources *r, struct limits *limits)
{
        struct cgroup_limits *l = &limits->values;
        limits->hugetlb = xcalloc(r->hugepage_limits_length + 1, sizeof(*limits->hugetlb));
        for (size_t i = 0; i < r->hugepage_limits_length; i++)
                limits->hugetlb[i] = (struct cgroup_hugetlb_limit){
                        r->hugepage_limits[i].page_size, r->hugepage_limits[i].limit_bytes
                };
        l->hugetlb = limits->hugetlb;
        l->hugetlb_length = r->hugepage_limits_length;

        limits->rdma = xcalloc(r->rdma_length + 1, sizeof(*limits->rdma));
        for (size_t i = 0; i < r->rdma_length; i++)
                limits->rdma[i] = (struct cgroup_named_limit){
                        r->rdma[i].device,
                        r->rdma[i].has_hca_handles ? (int64_t)r->rdma[i].hca_handles : CGROUP_UNSET,
                        r->rdma[i].has_hca_objects ? (int64_t)r->rdma[i].hca_objects : CGROUP_UNSET,
                };
        l->rdma = limits->rdma;
        l->rdma_length = r->rdma_length;
        if (!r->network)
                return;
        if (r->network->has_class_id)
                l->net_class_id = r->network->class_id;
        limits->net_priorities = xcalloc(r->network->priorities_length + 1,
                                         sizeof(*limits->net_priorities));
        for (size_t i = 0; i < r->network->priorities_length; i++)
                limits->net_priorities[i] = (struct cgroup_named_limit){
                        r->network->priorities[i].name, r->network->priorities[i].priority, 0
                };
        l->net_priorities = limits->net_priorities;
        l->net_priorities_length = r->network->priorities_length;
}

static int device_rule(const struct oci_device_rule *from, struct cgroup_device_rule *to,
                       struct err *err)
{
        const char *type = str_empty(from->type) ? "a" : from->type;
        /* "a" is a type; where it stands for an access, all are meant. */
        const char *access = str_empty(from->access) || strchr(from->access, 'a') ? "rwm"
                                                                                  : from->access;
        if (strlen(type) != 1 || !strchr("abcu", *type))
                return err_plain(err, EINVAL, "device rule type '%s' is not a, b or c", type);
        if (strlen(access) > 3 || strspn(access, "rwm") != strlen(access))
                return err_plain(err, EINVAL, "device rule access '%s' is not of 'rwm'", access);
        *to = (struct cgroup_device_rule){
                .allow = from->allow,
                .type = *type == 'u' ? 'c' : *type,
                .major = from->has_major ? from->major : -1,
                .minor = from->has_minor ? from->minor : -1,
        };
        strcpy(to->access, access);
        if (to->type != 'a' || (to->major < 0 && to->minor < 0))
                return 0;
        return err_plain(err, EINVAL, "device rule of type 'a' cannot name a device");
}

static bool is_allow_all(const struct cgroup_device_rule *rule)
{
        return rule->allow && rule->type == 'a' && strlen(rule->access) == 3;
}

/* Engines write the defaults into their bundles too; a denial after the rule makes it count again.
 */
static bool has_rule(const struct cgroup_device_rule *rules, size_t length,
                     const struct cgroup_device_rule *rule)
{
        for (size_t i = length; i-- > 0 && rules[i].allow;)
                if (rules[i].type == rule->type && rules[i].major == rule->major &&
                    rules[i].minor == rule->minor && streq(rules[i].access, rule->access))
                        return true;
        return false;
}

/* Deny everything, then the rules in order, then what is always allowed. That a
 * node is made says nothing of its use: only rules do. */
static int set_devices(const struct oci_resources *r, struct limits *limits, struct err *err)
{
        size_t rules_length = r ? r->devices_length : 0;
        size_t n = 0;
        struct cgroup_device_rule *rules = xcalloc(1 + rules_length + ELEMENTS(always),
                                                   sizeof(*rules));
        limits->devices = rules;
        rules[n++] = (struct cgroup_device_rule){ false, 'a', -1, -1, "rwm" };
        bool all = false;
        for (size_t i = 0; i < rules_length; i++) {
                int r2 = device_rule(&r->devices[i], &rules[n], err);
                if (r2 < 0)
                        return r2;
                if (rules[n].type == 'a' && !rules[n].allow && strlen(rules[n].access) == 3) {
                        n = 0; /* nothing before it matters */
                        rules[n] = (struct cgroup_device_rule){ false, 'a', -1, -1, "rwm" };
                        all = false;
                } else if (is_allow_all(&rules[n])) {
                        all = true;
                }
                n++;
        }
        for (size_t i = 0; !all && i < ELEMENTS(always); i++)
                if (!has_rule(rules, n, &always[i]))
                        rules[n++] = always[i];
        limits->values.devices = rules;
        limits->values.devices_length = n;
        return 0;
}

int limits_create(const struct oci_resources *resources, bool for_update, struct limits *ret,
                  struct err *err)
{
        struct limits limits = { 0 };
        cgroup_limits_init(&limits.values);
        if (resources) {
                if (resources->memory)
                        set_memory(resources->memory, &limits.values);
                if (resources->cpu)
                        set_cpu(resources->cpu, &limits.values);
                if (resources->pids && resources->pids->has_limit)
                        limits.values.pids_max = resources->pids->limit;
                if (resources->block_io)
                        set_io(resources->block_io, &limits);
                set_lists(resources, &limits);
                limits.values.unified = resources->unified;
        }
        if (!for_update || (resources && resources->devices_length)) {
                int r = set_devices(resources, &limits, err);
                if (r < 0) {
                        limits_finish(&limits);
                        return r;
                }
        }
        *ret = limits;
        return 0;
}

void limits_finish(struct limits *limits)
{
        free(limits->devices);
        free(limits->io_devices);
        free(limits->hugetlb);
        free(limits->rdma);
        free(limits->net_priorities);
        *limits = (struct limits){ 0 };
}
