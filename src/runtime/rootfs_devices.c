#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/str.h"
#include "runtime/rootfs.h"
#include "sys/mounts.h"
#include "sys/resolve.h"

/* A node that is there already is taken if it is the same, and replaced if not. */
static int make_node(int dirfd, const char *name, const struct plan_device *device)
{
        for (int attempt = 0; attempt < 2; attempt++) {
                if (mknodat(dirfd, name, device->mode, device->number) == 0)
                        break;
                struct stat st;
                if (errno != EEXIST)
                        return -errno;
                if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
                        return -errno;
                if ((st.st_mode & S_IFMT) == (device->mode & S_IFMT) &&
                    st.st_rdev == device->number)
                        return 0;
                if (unlinkat(dirfd, name, 0) < 0)
                        return -errno;
        }
        if ((device->uid || device->gid) &&
            fchownat(dirfd, name, device->uid, device->gid, AT_SYMLINK_NOFOLLOW) < 0)
                return -errno;
        return 0;
}

/* Nodes cannot be made in a user namespace: the host's are bound. */
static int bind_node(struct rootfs *rootfs, const struct plan_device *device, struct err *err)
{
        auto_fd source = -1, target = -1;
        int r = mount_clone(AT_FDCWD, device->path, false, &source, err);
        if (r == 0)
                r = resolve_make_file(rootfs->root_fd, device->path, 0666, &target, err);
        return r < 0 ? r : mount_attach(source, target, err);
}

static int make_device(struct rootfs *rootfs, int dev_fd, const struct plan_device *device,
                       struct err *err)
{
        if (rootfs->plan->in_user_namespace && !S_ISFIFO(device->mode))
                return bind_node(rootfs, device, err);
        const char *name = str_after(device->path, "/dev/");
        auto_fd dirfd = -1;
        auto_free char *last = NULL;
        if (!name || strchr(name, '/')) {
                int r = resolve_parent(rootfs->root_fd, device->path, &dirfd, &last, err);
                if (r < 0)
                        return r;
                name = last;
        }
        int r = make_node(dirfd >= 0 ? dirfd : dev_fd, name, device);
        if (r == -EPERM && !S_ISFIFO(device->mode))
                return bind_node(rootfs, device, err);
        return r < 0 ? err_set(err, -r, "make node") : 0;
}

static const struct {
        const char *target, *name;
        bool if_target; /* only where the host has the target */
} links[] = {
        { "/proc/self/fd", "fd", false },       { "/proc/self/fd/0", "stdin", false },
        { "/proc/self/fd/1", "stdout", false }, { "/proc/self/fd/2", "stderr", false },
        { "/proc/kcore", "core", true },
};

static int make_links(int dev_fd, struct err *err)
{
        for (size_t i = 0; i < ELEMENTS(links); i++) {
                if (links[i].if_target && access(links[i].target, F_OK) < 0)
                        continue;
                if (symlinkat(links[i].target, dev_fd, links[i].name) < 0 && errno != EEXIST)
                        return err_set(err, errno, "make link /dev/%s", links[i].name);
        }
        /* Always the container's own instance, whatever an image brought along. */
        if (symlinkat("pts/ptmx", dev_fd, "ptmx") == 0)
                return 0;
        if (errno != EEXIST || unlinkat(dev_fd, "ptmx", 0) < 0 ||
            symlinkat("pts/ptmx", dev_fd, "ptmx") < 0)
                return err_set(err, errno, "make link /dev/ptmx");
        return 0;
}

int rootfs_make_devices(struct rootfs *rootfs, struct err *err)
{
        const struct plan *plan = rootfs->plan;
        auto_fd dev_fd = -1;
        int r = resolve_make_dir(rootfs->root_fd, "/dev", 0755, &dev_fd, err);
        if (r < 0)
                return r;
        mode_t saved = umask(0);
        for (size_t i = 0; r == 0 && i < plan->devices_length; i++) {
                r = make_device(rootfs, dev_fd, &plan->devices[i], err);
                if (r < 0)
                        err_wrap(err, "device %s", plan->devices[i].path);
        }
        umask(saved);
        return r < 0 ? r : make_links(dev_fd, err);
}
