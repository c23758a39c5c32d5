#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
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

static bool map_id(const struct namespace_map *maps, size_t length, uint32_t id, uint32_t *ret)
{
        for (size_t i = 0; i < length; i++)
                if (id >= maps[i].inside && id - maps[i].inside < maps[i].count) {
                        *ret = maps[i].outside + (id - maps[i].inside);
                        return true;
                }
        return false;
}

/* Whether the host's node at the same path would do in a user namespace. */
static bool host_has(const struct plan_device *device)
{
        struct stat st;
        return stat(device->path, &st) == 0 && st.st_mode == device->mode &&
               st.st_rdev == device->number && device->uid == 0 && device->gid == 0;
}

static int prepare_node(const struct plan *plan, const struct plan_device *device, int tmpfs_fd,
                        const char *name, int *ret_fd, struct err *err)
{
        uint32_t uid, gid;
        if (!map_id(plan->uid_maps, plan->uid_maps_length, device->uid, &uid) ||
            !map_id(plan->gid_maps, plan->gid_maps_length, device->gid, &gid))
                return err_plain(err, EINVAL, "its owner %u:%u is not mapped", device->uid,
                                 device->gid);
        if (mknodat(tmpfs_fd, name, device->mode, device->number) < 0)
                return errno == EPERM ? 0 : err_set(err, errno, "make node"); /* bound, then */
        if (fchownat(tmpfs_fd, name, uid, gid, AT_SYMLINK_NOFOLLOW) < 0)
                return err_set(err, errno, "set its owner");
        return mount_clone(tmpfs_fd, name, false, ret_fd, err);
}

int rootfs_prepare_devices(const struct plan *plan, int *fds, struct err *err)
{
        static char *options[] = { "mode=0700", "size=64k", NULL };
        auto_fd tmpfs = -1;
        mode_t saved = umask(0);
        int r = 0;
        for (size_t i = 0; r == 0 && i < plan->devices_length; i++) {
                const struct plan_device *device = &plan->devices[i];
                char name[24];
                if (S_ISFIFO(device->mode) || host_has(device))
                        continue;
                if (tmpfs < 0)
                        r = mount_create("tmpfs", "devices", options, 0, &tmpfs, err);
                snprintf(name, sizeof(name), "%zu", i);
                if (r == 0)
                        r = prepare_node(plan, device, tmpfs, name, &fds[i], err);
                if (r < 0)
                        err_wrap(err, "device %s", device->path);
        }
        umask(saved);
        return r;
}

/* Nodes cannot be made in a user namespace: those made before are taken, or the host's. */
static int bind_node(struct rootfs *rootfs, const struct plan_device *device, struct err *err)
{
        size_t index = (size_t)(device - rootfs->plan->devices);
        auto_fd source = -1, target = -1;
        if (rootfs->device_fds)
                source = take_fd(rootfs->device_fds[index]);
        int r = source >= 0 ? 0 : mount_clone(AT_FDCWD, device->path, false, &source, err);
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
