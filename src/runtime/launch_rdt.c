#include <errno.h>
#include <stdlib.h>

#include "base/auto.h"
#include "runtime/launch.h"
#include "sys/rdt.h"

static struct rdt_request rdt_request(const struct oci_intel_rdt *from)
{
        return (struct rdt_request){ .clos_id = from->clos_id,
                                     .l3_cache = from->l3_cache_schema,
                                     .memory_bandwidth = from->mem_bw_schema,
                                     .schemata = from->schemata,
                                     .monitor = from->enable_monitoring || from->enable_cmt ||
                                                from->enable_mbm };
}

int launch_name_rdt(struct launch *launch, struct err *err)
{
        const struct oci_intel_rdt *from = launch->spec.linux_->intel_rdt;
        auto_free char *mount = NULL;
        struct rdt_group group;
        if (!from)
                return 0;
        const struct launch_variant *variant = launch->options->variant;
        if (variant && variant->make)
                return err_plain(err, EOPNOTSUPP,
                                 "a container with intelRdt cannot be restored: images do not "
                                 "have it");
        struct rdt_request request = rdt_request(from);
        int r = rdt_mount(&mount, err);
        if (r == 0)
                r = rdt_name(mount, &request, launch->options->id, &group, err);
        if (r < 0)
                return r;
        launch->record.rdt_clos = group.clos;
        launch->record.rdt_monitor = group.monitor;
        launch->record.rdt_own = group.own;
        return 0;
}

int launch_make_rdt(struct launch *launch, struct err *err)
{
        const struct oci_intel_rdt *from = launch->spec.linux_->intel_rdt;
        if (!from)
                return 0;
        struct rdt_request request = rdt_request(from);
        struct rdt_group group = record_rdt(&launch->record);
        int r = rdt_make(&group, &request, err);
        launch->rdt_made = r == 0;
        return r;
}
