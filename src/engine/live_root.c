#include <errno.h>
#include <fcntl.h>

#include "base/auto.h"
#include "base/str.h"
#include "engine/core.h"
#include "engine/rootfs.h"

/* In the root of the machine's own container: src/guest/guest.h. */
#define MACHINE_ROOTFS "/share/rootfs"

static int look_at_layers(const struct instance *instance, const char *within, int *ret_fd,
                          struct err *err)
{
        auto_snapshot snapshot = { 0 };
        int r = snapshot_open(instance_engine(instance)->images, instance->id, &snapshot, err);
        if (r == 0)
                r = rootfs_share_marks(&snapshot, &instance->spec.host, within, err);
        return r == 0 ? rootfs_look(&snapshot, ret_fd, err) : r;
}

int instance_open_live_root(const struct instance *instance, pid_t pid, const char *within,
                            int *ret_fd, struct err *err)
{
        if (host_config_wants_layers(&instance->spec.host))
                return look_at_layers(instance, within, ret_fd, err);
        bool vm = host_config_wants_vm(&instance->spec.host);
        auto_free char *path = xasprintf("/proc/%d/root%s", (int)pid, vm ? MACHINE_ROOTFS : "");
        *ret_fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
        return *ret_fd < 0 ? err_plain(err, EBUSY, "container %s has just ended", instance->name)
                           : 0;
}
