#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/str.h"
#include "runtime/rootfs.h"
#include "sys/cgroup.h"
#include "sys/mounts.h"
#include "sys/resolve.h"

/* Version 2: with a cgroup namespace a mount of its own shows the container's
 * group as root; without one the kernel would show the whole tree, as it does to
 * every process of the host. */
static int mount_v2(const struct plan_mount *mount, const char *directory, int target,
                    struct err *err)
{
        auto_fd fd = -1;
        int r = mount_create("cgroup2", "cgroup", NULL, mount->options.set, &fd, err);
        if (r == -EPERM || r == -EBUSY) {
                r = mount_clone(AT_FDCWD, directory, true, &fd, err);
                if (r == 0)
                        r = rootfs_set_options(fd, &mount->options, err);
        }
        return r < 0 ? r : mount_attach(fd, target, err);
}

/* The directory of a hierarchy under /sys/fs/cgroup, "cpu,cpuacct", is not told
 * by the controller's name: it is the first component below the common part. */
static const char *hierarchy_name(const char *directory)
{
        const char *below = str_after(directory, "/sys/fs/cgroup/");
        return below ? below : directory;
}

int rootfs_attach_hierarchy(int tmpfs, int writable, const char *name, int mount_fd,
                            struct err *err)
{
        if (mkdirat(writable, name, 0755) < 0 && errno != EEXIST)
                return err_set(err, errno, "make directory '%s'", name);
        auto_fd target = openat(tmpfs, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (target < 0)
                return err_set(err, errno, "open '%s'", name);
        int r = mount_attach(mount_fd, target, err);
        if (r < 0 || !strchr(name, ','))
                return r;
        auto_strv parts = str_split(name, ',');
        for (char **part = parts; *part; part++)
                if (symlinkat(name, writable, *part) < 0 && errno != EEXIST)
                        return err_set(err, errno, "make link '%s'", *part);
        return 0;
}

char *rootfs_hierarchy_name(const char *directory)
{
        const char *start = hierarchy_name(directory);
        return xstrndup(start, strcspn(start, "/"));
}

static int mount_hierarchy(const struct plan *plan, const struct plan_mount *mount, int tmpfs,
                           const char *directory, struct err *err)
{
        auto_fd fd = -1;
        auto_free char *name = rootfs_hierarchy_name(directory);
        int r;
        if (plan->new_namespaces & CLONE_NEWCGROUP) {
                static char none[] = "none", systemd[] = "name=systemd";
                char *controllers[] = { name, NULL }, *named[] = { none, systemd, NULL };
                r = mount_create("cgroup", name, streq(name, "systemd") ? named : controllers,
                                 mount->options.set, &fd, err);
        } else {
                r = mount_clone(AT_FDCWD, directory, false, &fd, err);
                if (r == 0)
                        r = rootfs_set_options(fd, &mount->options, err);
        }
        return r < 0 ? r : rootfs_attach_hierarchy(tmpfs, tmpfs, name, fd, err);
}

static int mount_v1(struct rootfs *rootfs, const struct plan_mount *mount, int target,
                    struct err *err)
{
        static char *const always[] = { "mode=755", NULL };
        auto_strv options = strv_copy(always);
        rootfs_add_context(rootfs->plan, "tmpfs", &options);
        uint64_t attributes = mount->options.set & ~(uint64_t)MOUNT_ATTR_RDONLY;
        auto_fd fd = -1;
        int r = mount_create("tmpfs", "tmpfs", options, attributes, &fd, err);
        if (r == 0)
                r = mount_attach(fd, target, err);
        for (char *const *entry = rootfs->cgroups; r == 0 && entry && *entry; entry++)
                if (**entry != '=') /* not the version 2 tree beside them */
                        r = mount_hierarchy(rootfs->plan, mount, fd, strchr(*entry, '=') + 1, err);
        if (r == 0 && mount->options.read_only) {
                struct mount_change change = { .set = MOUNT_ATTR_RDONLY };
                r = mount_set_attributes(fd, &change, err);
        }
        return r;
}

int rootfs_mount_cgroup(struct rootfs *rootfs, const struct plan_mount *mount, struct err *err)
{
        auto_fd target = -1;
        int r = resolve_make_dir(rootfs->root_fd, mount->oci->destination, 0755, &target, err);
        if (r < 0)
                return r;
        const char *first = rootfs->cgroups && *rootfs->cgroups ? *rootfs->cgroups : NULL;
        if (first && *first == '=')
                return mount_v2(mount, first + 1, target, err);
        if (!first && cgroup_mode() == CGROUP_MODE_V2)
                return mount_v2(mount, "/sys/fs/cgroup", target, err);
        return mount_v1(rootfs, mount, target, err);
}
