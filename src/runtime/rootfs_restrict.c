#include <errno.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/str.h"
#include "runtime/rootfs.h"
#include "sys/mounts.h"
#include "sys/resolve.h"

/* What hides things: a descriptor of the host's /dev/null for files, and one
 * empty read-only tmpfs, made when first needed, for all directories. */
struct mask {
        int null_fd;
        int tmpfs_fd;
};

/* The node is checked by what it is, never trusted by its name: with a link in
 * its place any file of the host could be bound. */
static int open_null(struct mask *mask, struct err *err)
{
        struct stat st;
        if (mask->null_fd >= 0)
                return 0;
        auto_fd fd = open("/dev/null", O_PATH | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0)
                return err_set(err, errno, "open /dev/null");
        if (fstat(fd, &st) < 0 || !S_ISCHR(st.st_mode) || st.st_rdev != makedev(1, 3))
                return err_plain(err, EINVAL, "/dev/null of the host is not the null device");
        mask->null_fd = take_fd(fd);
        return 0;
}

static int mask_directory(struct rootfs *rootfs, struct mask *mask, int target, struct err *err)
{
        static char *const always[] = { "nr_blocks=1", "nr_inodes=1", "mode=755", NULL };
        if (mask->tmpfs_fd < 0) {
                auto_strv options = strv_copy(always);
                rootfs_add_context(rootfs->plan, "tmpfs", &options);
                int r = mount_create("tmpfs", "tmpfs", options,
                                     MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV |
                                             MOUNT_ATTR_NOEXEC,
                                     &mask->tmpfs_fd, err);
                return r < 0 ? r : mount_attach(mask->tmpfs_fd, target, err);
        }
        auto_fd copy = -1;
        int r = mount_clone(mask->tmpfs_fd, "", false, &copy, err);
        return r < 0 ? r : mount_attach(copy, target, err);
}

static int mask_one(struct rootfs *rootfs, const char *path, struct mask *mask, struct err *err)
{
        auto_fd target = -1, copy = -1;
        struct stat st;
        int r = resolve_open(rootfs->root_fd, path, O_PATH, 0, &target, err);
        if (r == -ENOENT || r == -ENOTDIR)
                return 0;
        if (r < 0)
                return r;
        if (fstat(target, &st) < 0)
                return err_set(err, errno, "stat '%s'", path);
        if (S_ISDIR(st.st_mode))
                return mask_directory(rootfs, mask, target, err);
        r = open_null(mask, err);
        if (r == 0)
                r = mount_clone(mask->null_fd, "", false, &copy, err);
        return r < 0 ? r : mount_attach(copy, target, err);
}

static int make_read_only(struct rootfs *rootfs, const char *path, struct err *err)
{
        auto_fd target = -1, copy = -1;
        int r = resolve_open(rootfs->root_fd, path, O_PATH, 0, &target, err);
        if (r == -ENOENT || r == -ENOTDIR)
                return 0;
        if (r == 0)
                r = mount_clone(target, "", true, &copy, err);
        if (r < 0)
                return r;
        struct mount_change change = { .set = MOUNT_ATTR_RDONLY, .recursive = true };
        r = mount_set_attributes(copy, &change, err);
        return r < 0 ? r : mount_attach(copy, target, err);
}

int rootfs_late_read_only(struct rootfs *rootfs, struct err *err)
{
        struct mount_change change = { .set = MOUNT_ATTR_RDONLY };
        for (size_t i = 0; i < rootfs->plan->mounts_length; i++) {
                const struct plan_mount *mount = &rootfs->plan->mounts[i];
                if (!mount->late_read_only)
                        continue;
                auto_fd target = -1;
                int r = resolve_open(rootfs->root_fd, mount->oci->destination, O_PATH, 0, &target,
                                     err);
                if (r == 0)
                        r = mount_set_attributes(target, &change, err);
                if (r < 0)
                        return err_wrap(err, "make '%s' read-only", mount->oci->destination);
        }
        return 0;
}

static int make_root_read_only(struct rootfs *rootfs, struct err *err)
{
        struct mount_change change = { .set = MOUNT_ATTR_RDONLY };
        if (!rootfs->plan->spec->root->readonly)
                return 0;
        int r = mount_set_attributes(rootfs->root_fd, &change, err);
        return r < 0 ? err_wrap(err, "make the rootfs read-only") : 0;
}

int rootfs_restrict(struct rootfs *rootfs, struct err *err)
{
        const struct oci_linux *linux_ = rootfs->plan->spec->linux_;
        if (!rootfs->plan->private_mounts)
                return 0;
        struct mask mask = { .null_fd = -1, .tmpfs_fd = -1 };
        int r = 0;
        for (char **path = linux_->readonly_paths; r == 0 && path && *path; path++) {
                r = make_read_only(rootfs, *path, err);
                if (r < 0)
                        err_wrap(err, "make '%s' read-only", *path);
        }
        for (char **path = linux_->masked_paths; r == 0 && path && *path; path++) {
                r = mask_one(rootfs, *path, &mask, err);
                if (r < 0)
                        err_wrap(err, "mask '%s'", *path);
        }
        close_fd(&mask.null_fd);
        close_fd(&mask.tmpfs_fd);
        if (r == 0)
                r = rootfs_late_read_only(rootfs, err);
        return r < 0 ? r : make_root_read_only(rootfs, err);
}
