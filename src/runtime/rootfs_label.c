#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/str.h"
#include "runtime/rootfs.h"

int rootfs_check_label(const struct plan *plan, struct err *err)
{
        const char *label = plan->spec->linux_->mount_label;
        if (str_empty(label) || access("/sys/fs/selinux/enforce", F_OK) == 0)
                return 0;
        return err_plain(err, EOPNOTSUPP,
                         "SELinux is not enabled on this host, which linux.mountLabel '%s' needs",
                         label);
}

/* The labels of what is in procfs and sysfs are the policy's. */
void rootfs_add_context(const struct plan *plan, const char *type, char ***data)
{
        const char *label = plan->spec->linux_->mount_label;
        if (str_empty(label) || streq(type, "proc") || streq(type, "sysfs") ||
            streq(type, "mqueue"))
                return;
        strv_push_take(data, xasprintf("context=%s", label));
}

int rootfs_label_late(const struct plan *plan, const char *type, int mount_fd, struct err *err)
{
        const char *label = plan->spec->linux_->mount_label;
        char path[32];
        if (str_empty(label) || !streq(type, "mqueue"))
                return 0;
        snprintf(path, sizeof(path), "/proc/self/fd/%d", mount_fd);
        if (setxattr(path, "security.selinux", label, strlen(label) + 1, 0) < 0)
                return err_set(err, errno, "label it '%s'", label);
        return 0;
}
