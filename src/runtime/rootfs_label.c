#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/log.h"
#include "base/str.h"
#include "runtime/rootfs.h"

void rootfs_find_label(struct plan *plan)
{
        const char *label = plan->spec->linux_->mount_label;
        if (str_empty(label))
                return;
        if (access("/sys/fs/selinux/enforce", F_OK) == 0)
                plan->mount_label = label;
        else
                log_warning("SELinux is not enabled on this host: linux.mountLabel '%s' labels "
                            "nothing",
                            label);
}

/* The labels of what is in procfs and sysfs are the policy's. */
void rootfs_add_context(const struct plan *plan, const char *type, char ***data)
{
        const char *label = plan->mount_label;
        if (!label || streq(type, "proc") || streq(type, "sysfs") || streq(type, "mqueue"))
                return;
        strv_push_take(data, xasprintf("context=%s", label));
}

int rootfs_label_late(const struct plan *plan, const char *type, int mount_fd, struct err *err)
{
        const char *label = plan->mount_label;
        char path[32];
        if (!label || !streq(type, "mqueue"))
                return 0;
        snprintf(path, sizeof(path), "/proc/self/fd/%d", mount_fd);
        if (setxattr(path, "security.selinux", label, strlen(label) + 1, 0) < 0)
                return err_set(err, errno, "label it '%s'", label);
        return 0;
}
