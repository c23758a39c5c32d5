#include "engine/rootfs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/str.h"
#include "sys/mounts.h"
#include "sys/overlay.h"

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
        if (snapshot->upper) {
                strv_push_take(&options, xasprintf("upperdir=%s", snapshot->upper));
                strv_push_take(&options, xasprintf("workdir=%s", snapshot->work));
        }
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
        auto_strv options = options_of(snapshot, false, is_volatile);
        auto_free char *data = strv_join(options, ",");
        if (mkdir(target, 0700) < 0 && errno != EEXIST)
                return err_set(err, errno, "make '%s'", target);
        if (mount("overlay", target, "overlay", 0, data) < 0)
                return err_set(err, errno, "mount the root file system");
        int r = mount_clone(AT_FDCWD, target, false, ret_fd, err);
        umount2(target, MNT_DETACH);
        rmdir(target);
        return r;
}

/* -- with ids mapped ----------------------------------------------------------- */

struct mapped { /* descriptors that end with it */
        struct mount_fd *fds;
        size_t length;
        int above; /* the mount that upper and work lie on; it is gone with its descriptor */
};

static void mapped_finish(struct mapped *mapped)
{
        for (size_t i = 0; i < mapped->length; i++)
                close(mapped->fds[i].fd);
        free(mapped->fds);
        close_fd(&mapped->above);
}

static void mapped_add(struct mapped *mapped, const char *key, int fd)
{
        mapped->fds = xrealloc(mapped->fds, mapped->length + 1, sizeof(*mapped->fds));
        mapped->fds[mapped->length++] = (struct mount_fd){ key, fd };
}

static int clone_mapped(const char *path, int userns_fd, int *ret_fd, struct err *err)
{
        auto_fd fd = -1;
        const struct mount_change change = { .set = MOUNT_ATTR_IDMAP, .userns_fd = userns_fd };
        int r = mount_clone(AT_FDCWD, path, false, &fd, err);
        if (r == 0)
                r = mount_set_attributes(fd, &change, err);
        if (r == 0)
                *ret_fd = take_fd(fd);
        return r;
}

/* upper and work have to be on one mount: that of their directory. */
static int add_writable(struct mapped *mapped, const struct snapshot *snapshot, int userns_fd,
                        struct err *err)
{
        auto_free char *parent = xstrndup(
                snapshot->upper, (size_t)(strrchr(snapshot->upper, '/') - snapshot->upper));
        int r = clone_mapped(parent, userns_fd, &mapped->above, err);
        if (r < 0)
                return r;
        const struct {
                const char *key, *path;
        } parts[] = { { "upperdir", snapshot->upper }, { "workdir", snapshot->work } };
        for (size_t i = 0; i < ELEMENTS(parts); i++) {
                int fd = openat(mapped->above, strrchr(parts[i].path, '/') + 1,
                                O_PATH | O_DIRECTORY | O_CLOEXEC);
                if (fd < 0)
                        return err_set(err, errno, "open '%s'", parts[i].path);
                mapped_add(mapped, parts[i].key, fd);
        }
        return 0;
}

static int add_lowers(struct mapped *mapped, const struct snapshot *snapshot, int userns_fd,
                      struct err *err)
{
        for (char **lower = snapshot->lower_paths; *lower; lower++) {
                int fd = -1;
                int r = clone_mapped(*lower, userns_fd, &fd, err);
                if (r < 0)
                        return r;
                mapped_add(mapped, "lowerdir+", fd);
        }
        return 0;
}

static int mount_mapped(const struct snapshot *snapshot, const struct id_remap *remap,
                        bool is_volatile, int *ret_fd, struct err *err)
{
        CLEANUP(mapped_finish) struct mapped mapped = { .above = -1 };
        char *options[] = { is_volatile ? "volatile" : NULL, NULL };
        auto_fd userns = -1;
        int r = remap_namespace(remap, &userns, err);
        if (r == 0)
                r = add_lowers(&mapped, snapshot, userns, err);
        if (r == 0)
                r = add_writable(&mapped, snapshot, userns, err);
        /* Overlayfs works with the credentials of who mounts it: they need ids that the
         * mounts beneath know. */
        if (r == 0)
                r = remap_enter(remap, err);
        if (r == 0)
                r = mount_create_with("overlay", "overlay", options, mapped.fds, mapped.length, 0,
                                      ret_fd, err);
        remap_leave(remap);
        if (r == -EINVAL)
                err_advise(err, "--userns-remap needs Linux 6.15 or newer, and a file system with "
                                "idmapped mounts");
        return r;
}

static int mount_plain(const struct snapshot *snapshot, bool is_volatile, int *ret_fd,
                       struct err *err)
{
        auto_strv modern = options_of(snapshot, true, is_volatile);
        int r = mount_create("overlay", "overlay", modern, 0, ret_fd, err);
        if (r != -EINVAL)
                return r;
        err_clear(err);
        return mount_by_path(snapshot, is_volatile, ret_fd, err);
}

int rootfs_mount(const struct snapshot *snapshot, const struct id_remap *remap, bool is_volatile,
                 int *ret_fd, struct err *err)
{
        forget_volatile(snapshot);
        return remap && remap->on ? mount_mapped(snapshot, remap, is_volatile, ret_fd, err)
                                  : mount_plain(snapshot, is_volatile, ret_fd, err);
}

/* Who broke out of a machine's file server may have left a link, which a mount would follow. */
static int check_directory(const char *path, struct err *err)
{
        struct stat st;
        if (lstat(path, &st) < 0)
                return err_set(err, errno, "writable layer '%s'", path);
        return S_ISDIR(st.st_mode)
                       ? 0
                       : err_plain(err, EUCLEAN, "writable layer '%s' is not a directory any more",
                                   path);
}

int rootfs_share_marks(const struct snapshot *snapshot, const struct host_config *host,
                       const char *within, struct err *err)
{
        if (!host_config_wants_layers(host))
                return 0;
        int r = check_directory(snapshot->upper, err);
        if (r == 0)
                r = check_directory(snapshot->work, err);
        if (r < 0 || !within)
                return r < 0 ? r : overlay_share_marks(snapshot->upper, err);
        auto_free char *directory = xasprintf("%s/%s", snapshot->upper, within);
        struct stat st;
        return lstat(directory, &st) == 0 && S_ISDIR(st.st_mode)
                       ? overlay_share_marks(directory, err)
                       : 0;
}

int rootfs_look(const struct snapshot *snapshot, int *ret_fd, struct err *err)
{
        auto_strv layers = NULL;
        strv_push(&layers, snapshot->upper);
        for (char **lower = snapshot->lower_paths; *lower; lower++)
                strv_push(&layers, *lower);
        auto_free char *joined = strv_join(layers, ":");
        const struct snapshot look = { .lower = joined,
                                       .lower_paths = layers,
                                       .work = snapshot->work };
        return mount_plain(&look, false, ret_fd, err);
}
