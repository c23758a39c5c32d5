#include "engine/rootfs.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/str.h"
#include "sys/mounts.h"

/* What a volatile mount leaves behind; the kernel refuses the next one until it is gone. */
static void forget_volatile(const struct snapshot *snapshot)
{
        static const char *const marks[] = { "work/incompat/volatile/dirty",
                                             "work/incompat/volatile", "work/incompat" };
        for (size_t i = 0; i < ELEMENTS(marks); i++) {
                auto_free char *path = xasprintf("%s/%s", snapshot->work, marks[i]);
                if (unlink(path) < 0 && errno == EISDIR)
                        rmdir(path);
        }
}

static char **options_of(const struct snapshot *snapshot, bool one_by_one, bool is_volatile)
{
        char **options = NULL;
        if (one_by_one)
                for (char **lower = snapshot->lower_paths; *lower; lower++)
                        strv_push_take(&options, xasprintf("lowerdir+=%s", *lower));
        else
                strv_push_take(&options, xasprintf("lowerdir=%s", snapshot->lower));
        strv_push_take(&options, xasprintf("upperdir=%s", snapshot->upper));
        strv_push_take(&options, xasprintf("workdir=%s", snapshot->work));
        if (is_volatile)
                strv_push(&options, "volatile");
        return options;
}

/* For kernels before 6.5, whose fsconfig() takes at most 255 bytes of lowerdir: an
 * ordinary mount beside the snapshot, cloned and detached at once. */
static int mount_by_path(const struct snapshot *snapshot, bool is_volatile, int *ret_fd,
                         struct err *err)
{
        auto_free char *target = xasprintf("%s/merged", snapshot->work);
        auto_free char *data = xasprintf("lowerdir=%s,upperdir=%s,workdir=%s%s", snapshot->lower,
                                         snapshot->upper, snapshot->work,
                                         is_volatile ? ",volatile" : "");
        if (mkdir(target, 0700) < 0 && errno != EEXIST)
                return err_set(err, errno, "make '%s'", target);
        if (mount("overlay", target, "overlay", 0, data) < 0)
                return err_set(err, errno, "mount the root file system");
        int r = mount_clone(AT_FDCWD, target, false, ret_fd, err);
        umount2(target, MNT_DETACH);
        rmdir(target);
        return r;
}

int rootfs_mount(const struct snapshot *snapshot, bool is_volatile, int *ret_fd, struct err *err)
{
        forget_volatile(snapshot);
        auto_strv modern = options_of(snapshot, true, is_volatile);
        int r = mount_create("overlay", "overlay", modern, 0, ret_fd, err);
        if (r != -EINVAL)
                return r;
        err_clear(err);
        return mount_by_path(snapshot, is_volatile, ret_fd, err);
}
