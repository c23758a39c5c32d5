/* linux.resources of the specification -> struct cgroup_limits. Pure.
 * The result borrows strings from `resources`, which must outlive it. */
#pragma once

#include "oci/runtime_spec.h"
#include "sys/cgroup.h"

struct limits {
        struct cgroup_limits values;
        struct cgroup_device_rule *devices;
        struct cgroup_io_device *io_devices;
        struct cgroup_hugetlb_limit *hugetlb;
        struct cgroup_named_limit *rdma, *net_priorities;
};

/* With `for_update` nothing is said about devices unless rules are given.
 * `resources` may be NULL. */
int limits_create(const struct oci_resources *resources, bool for_update, struct limits *ret,
                  struct err *err);
void limits_finish(struct limits *limits);
