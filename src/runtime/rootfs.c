#include "runtime/rootfs.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"
#include "sys/mountinfo.h"
#include "sys/mounts.h"
#include "sys/resolve.h"

/* pivot_root refuses a new root whose parent mount is shared, and a bind under a
 * shared one would appear on the host. Only with rootfsPropagation "shared" is
 * that so; the mount that holds the rootfs is then made private. */
static int make_parent_private(const char *path, struct err *err)
{
        auto_strv lines = NULL;
        int r = mountinfo_read(MOUNTINFO_SELF, &lines, err);
        if (r < 0)
                return r;
        auto_free char *best = NULL;
        for (char **line = lines; *line; line++) {
                auto_strv fields = str_split(*line, ' ');
                if (strv_length(fields) < MOUNTINFO_FIELDS_MIN)
                        continue;
                auto_free char *point = mountinfo_unescape(fields[4]);
                const char *rest = str_after(path, point);
                bool holds = rest && (*rest == '/' || *rest == '\0' || streq(point, "/"));
                if (holds && (!best || strlen(point) >= strlen(best))) {
                        free(best);
                        best = take_ptr(point);
                }
        }
        struct mount_attr attr = { .propagation = MS_PRIVATE };
        if (best && mount_setattr(AT_FDCWD, best, 0, &attr, sizeof(attr)) < 0)
                return err_set(err, errno, "make '%s' private", best);
        return 0;
}

static int cut_propagation(const struct plan *plan, struct err *err)
{
        if (plan->propagation == MS_SHARED)
                return make_parent_private(plan->rootfs, err);
        bool private = plan->propagation == MS_PRIVATE || plan->propagation == MS_UNBINDABLE;
        struct mount_attr attr = { .propagation = private ? MS_PRIVATE : MS_SLAVE };
        if (mount_setattr(AT_FDCWD, "/", AT_RECURSIVE, &attr, sizeof(attr)) < 0)
                return err_set(err, errno, "cut mount propagation");
        return 0;
}

int rootfs_open(struct rootfs *rootfs, struct err *err)
{
        const struct plan *plan = rootfs->plan;
        if (!plan->private_mounts) { /* nothing will be mounted: chroot */
                rootfs->root_fd = open(plan->rootfs, O_PATH | O_DIRECTORY | O_CLOEXEC);
                if (rootfs->root_fd < 0)
                        return err_set(err, errno, "rootfs '%s'", plan->rootfs);
                return 0;
        }
        int r = cut_propagation(plan, err);
        if (r < 0)
                return r;
        auto_fd fd = take_fd(rootfs->root_source_fd);
        if (fd < 0) {
                r = mount_clone(AT_FDCWD, plan->rootfs, true, &fd, err);
                if (r < 0)
                        return err_wrap(err, "rootfs");
        }
        auto_fd target = open(plan->rootfs, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (target < 0) /* not ours to see in a user namespace: anywhere will do */
                target = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
        r = mount_attach(fd, target, err);
        if (r < 0)
                return err_wrap(err, "rootfs '%s'", plan->rootfs);
        rootfs->root_fd = take_fd(fd);
        return 0;
}

int rootfs_set_options(int mount_fd, const struct mount_options *options, struct err *err)
{
        struct mount_change own = { .set = options->set,
                                    .clear = options->clear,
                                    .propagation = options->propagation_recursive
                                                           ? 0
                                                           : options->propagation };
        struct mount_change tree = { .set = options->tree_set,
                                     .clear = options->tree_clear,
                                     .propagation = options->propagation_recursive
                                                            ? options->propagation
                                                            : 0,
                                     .recursive = true };
        int r = 0;
        if (tree.set || tree.clear || tree.propagation)
                r = mount_set_attributes(mount_fd, &tree, err);
        if (r == 0 && (own.set || own.clear || own.propagation)) {
                r = mount_set_attributes(mount_fd, &own, err);
                if (r == -EPERM && own.clear) {
                        /* In a user namespace what the host set stays set. */
                        own.clear &= MOUNT_ATTR__ATIME;
                        r = mount_set_attributes(mount_fd, &own, err);
                        if (r == -EPERM && !own.set) {
                                err_clear(err);
                                r = 0;
                        }
                }
        }
        return r;
}

/* Maps ids of a bind by a user namespace made for it; the mappings default to the
 * container's own. */
static int map_ids(const struct plan *plan, const struct plan_mount *mount, int mount_fd,
                   struct err *err)
{
        const struct oci_mount *oci = mount->oci;
        struct namespace_map uids[16], gids[16];
        size_t uids_length = 0, gids_length = 0;
        if (oci->uid_mappings_length > ELEMENTS(uids) || oci->gid_mappings_length > ELEMENTS(gids))
                return err_plain(err, E2BIG, "too many id mappings of one mount");
        for (; uids_length < oci->uid_mappings_length; uids_length++)
                uids[uids_length] = (struct namespace_map){
                        oci->uid_mappings[uids_length].container_id,
                        oci->uid_mappings[uids_length].host_id, oci->uid_mappings[uids_length].size
                };
        for (; gids_length < oci->gid_mappings_length; gids_length++)
                gids[gids_length] = (struct namespace_map){
                        oci->gid_mappings[gids_length].container_id,
                        oci->gid_mappings[gids_length].host_id, oci->gid_mappings[gids_length].size
                };
        bool own = uids_length == 0;
        if (own && plan->uid_maps_length == 0)
                return err_plain(err, EINVAL,
                                 "idmap needs mappings: of the mount or of the container");
        auto_fd userns = -1;
        int r = namespace_user_create(own ? plan->uid_maps : uids,
                                      own ? plan->uid_maps_length : uids_length,
                                      own ? plan->gid_maps : gids,
                                      own ? plan->gid_maps_length : gids_length, &userns, err);
        if (r < 0)
                return r;
        struct mount_change change = { .set = MOUNT_ATTR_IDMAP,
                                       .userns_fd = userns,
                                       .recursive = mount->options.idmap_recursive };
        return mount_set_attributes(mount_fd, &change, err);
}

static bool wants_map(const struct plan_mount *mount)
{
        return mount->options.idmap || mount->oci->uid_mappings_length;
}

int rootfs_bind_source(const struct plan_mount *mount, int *ret_fd, struct err *err)
{
        if (!mount->options.source_nofollow)
                return mount_clone(AT_FDCWD, mount->source, mount->options.recursive, ret_fd, err);
        auto_fd fd = open(mount->source, O_PATH | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0)
                return err_set(err, errno, "open '%s'", mount->source);
        return mount_clone(fd, "", mount->options.recursive, ret_fd, err);
}

int rootfs_prepare_source(const struct plan *plan, const struct plan_mount *mount, int *ret_fd,
                          struct err *err)
{
        *ret_fd = -1;
        if (mount->kind != PLAN_MOUNT_BIND)
                return wants_map(mount)
                               ? err_plain(err, EINVAL, "mount at '%s': only binds can be idmapped",
                                           mount->oci->destination)
                               : 0;
        if (!wants_map(mount) && !plan_opens_sources(plan))
                return 0;
        auto_fd fd = -1;
        int r = rootfs_bind_source(mount, &fd, err);
        if (r == 0 && wants_map(mount))
                r = map_ids(plan, mount, fd, err);
        if (r < 0)
                return r;
        *ret_fd = take_fd(fd);
        return 0;
}

/* Files of procfs that tools like lxcfs may replace; no other mount may land in a
 * procfs, or the runtime and the container could be lied to. */
static const char *const proc_allowed[] = {
        "/proc/cpuinfo",
        "/proc/diskstats",
        "/proc/meminfo",
        "/proc/stat",
        "/proc/swaps",
        "/proc/uptime",
        "/proc/loadavg",
        "/proc/slabinfo",
        "/proc/sys/kernel/ns_last_pid",
        "/proc/net/dev",
        "/proc/sys/crypto/fips_enabled",
};

static int check_target(const struct plan_mount *mount, int target_fd, struct err *err)
{
        const char *at = mount->oci->destination;
        if (streq(mount->oci->type, "proc") || !resolve_is_on(target_fd, PROC_SUPER_MAGIC))
                return 0;
        for (size_t i = 0; i < ELEMENTS(proc_allowed); i++)
                if (streq(at, proc_allowed[i]))
                        return 0;
        if (streq(at, "/proc") && mount->kind == PLAN_MOUNT_BIND)
                return 0;
        return err_plain(err, EINVAL, "'%s' cannot be mounted because it is inside /proc", at);
}

/* proc and sysfs decide what is masked later: they must be where they seem to be. */
static int open_plain_directory(struct rootfs *rootfs, const char *path, int *ret_fd,
                                struct err *err)
{
        int r = resolve_open(rootfs->root_fd, path, O_PATH | O_NOFOLLOW, 0, ret_fd, NULL);
        if (r == -ENOENT)
                return resolve_make_dir(rootfs->root_fd, path, 0755, ret_fd, err);
        if (r < 0)
                return err_set(err, -r, "open '%s'", path);
        struct stat st;
        if (fstat(*ret_fd, &st) == 0 && S_ISDIR(st.st_mode))
                return 0;
        close_fd(ret_fd);
        return err_plain(err, ENOTDIR, "'%s' must be mounted on ordinary directory", path);
}

/* "mode" of a tmpfs that the spec leaves open is the directory's it covers. */
static char **tmpfs_data(const struct plan_mount *mount, int target_fd)
{
        char **data = strv_copy(mount->options.data);
        for (char **word = data; word && *word; word++)
                if (str_starts(*word, "mode="))
                        return data;
        struct stat st;
        if (fstat(target_fd, &st) == 0)
                strv_push_take(&data, xasprintf("mode=%o", st.st_mode & 07777u));
        return data;
}

static int mount_new(struct rootfs *rootfs, const struct plan_mount *mount, struct err *err)
{
        const struct oci_mount *oci = mount->oci;
        bool plain = streq(oci->type, "proc") || streq(oci->type, "sysfs");
        bool tmpfs = streq(oci->type, "tmpfs");
        auto_fd target = -1, fd = -1;
        int r = plain ? open_plain_directory(rootfs, oci->destination, &target, err)
                      : resolve_make_dir(rootfs->root_fd, oci->destination, 0755, &target, err);
        if (r == 0)
                r = check_target(mount, target, err);
        if (r < 0)
                return r;
        auto_strv data = tmpfs ? tmpfs_data(mount, target) : strv_copy(mount->options.data);
        rootfs_add_context(rootfs->plan, oci->type, &data);
        r = mount_create(oci->type, oci->source, data, mount->options.set, &fd, err);
        if (r == -EPERM && streq(oci->type, "sysfs")) {
                /* Not the owner of the network namespace: the host's, as it is. */
                r = mount_clone(AT_FDCWD, "/sys", true, &fd, err);
                if (r == 0)
                        r = rootfs_set_options(fd, &mount->options, err);
        }
        if (r == 0)
                r = rootfs_label_late(rootfs->plan, oci->type, fd, err);
        if (r < 0)
                return r;
        if (mount->options.propagation) {
                struct mount_options only = {
                        .propagation = mount->options.propagation,
                        .propagation_recursive = mount->options.propagation_recursive
                };
                r = rootfs_set_options(fd, &only, err);
        }
        if (r == 0 && mount->options.copy_up && tmpfs)
                r = rootfs_copy_up(target, fd, err);
        return r < 0 ? r : mount_attach(fd, target, err);
}

static int mount_bind(struct rootfs *rootfs, const struct plan_mount *mount, int prepared_fd,
                      struct err *err)
{
        const char *at = mount->oci->destination;
        auto_fd fd = prepared_fd, target = -1;
        int r = fd < 0 ? rootfs_bind_source(mount, &fd, err) : 0;
        if (r < 0)
                return r;
        struct stat st;
        if (fstat(fd, &st) < 0)
                return err_set(err, errno, "stat '%s'", mount->source);
        r = S_ISDIR(st.st_mode) ? resolve_make_dir(rootfs->root_fd, at, 0755, &target, err)
                                : resolve_make_file(rootfs->root_fd, at, 0755, &target, err);
        if (r == 0)
                r = check_target(mount, target, err);
        if (r == 0)
                r = rootfs_set_options(fd, &mount->options, err);
        return r < 0 ? r : mount_attach(fd, target, err);
}

static int remount(struct rootfs *rootfs, const struct plan_mount *mount, struct err *err)
{
        auto_fd target = -1;
        int r = resolve_open(rootfs->root_fd, mount->oci->destination, O_PATH, 0, &target, err);
        return r < 0 ? r : rootfs_set_options(target, &mount->options, err);
}

static int mount_one(struct rootfs *rootfs, size_t index, struct err *err)
{
        const struct plan_mount *mount = &rootfs->plan->mounts[index];
        switch (mount->kind) {
        case PLAN_MOUNT_NEW:
                return mount_new(rootfs, mount, err);
        case PLAN_MOUNT_BIND:
                return mount_bind(rootfs, mount,
                                  rootfs->source_fds ? rootfs->source_fds[index] : -1, err);
        case PLAN_MOUNT_CGROUP:
                return rootfs_mount_cgroup(rootfs, mount, err);
        case PLAN_MOUNT_REMOUNT:
                return remount(rootfs, mount, err);
        }
        return -EINVAL;
}

int rootfs_mount(struct rootfs *rootfs, struct err *err)
{
        const struct plan *plan = rootfs->plan;
        for (size_t i = 0; i < plan->mounts_length; i++) {
                const struct oci_mount *oci = plan->mounts[i].oci;
                int r = mount_one(rootfs, i, err);
                if (r < 0) {
                        err_wrap(err, "error mounting \"%s\" to rootfs at \"%s\"",
                                 oci->source ? oci->source : oci->type, oci->destination);
                        return r;
                }
        }
        if (!plan->populate_dev || !plan->private_mounts)
                return 0;
        return rootfs_make_devices(rootfs, err);
}

static int set_root_propagation(const struct plan *plan, struct err *err)
{
        struct mount_attr attr = { .propagation = plan->propagation };
        if (plan->propagation &&
            mount_setattr(AT_FDCWD, "/", plan->propagation_recursive ? AT_RECURSIVE : 0, &attr,
                          sizeof(attr)) < 0)
                return err_set(err, errno, "set the propagation of the root");
        return 0;
}

static int pivot(struct rootfs *rootfs, struct err *err)
{
        auto_fd old = -1;
        if (rootfs->plan->propagation == MS_SHARED) {
                old = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
                if (old < 0)
                        return err_set(err, errno, "open '/'");
        }
        if (syscall(SYS_pivot_root, ".", ".") < 0)
                return err_set(err, errno, "pivot_root");
        if (old >= 0) { /* the unmount below must not reach the host */
                struct mount_attr attr = { .propagation = MS_SLAVE };
                if (fchdir(old) < 0 ||
                    mount_setattr(AT_FDCWD, ".", AT_RECURSIVE, &attr, sizeof(attr)) < 0)
                        return err_set(err, errno, "cut the old root's propagation");
        }
        if (umount2(".", MNT_DETACH) < 0)
                return err_set(err, errno, "unmount the old root");
        if (chdir("/") < 0)
                return err_set(err, errno, "change to the root");
        return 0;
}

/* The host's procfs and sysfs stay in the mount namespace when the root is moved
 * rather than pivoted; a process that gets a new one mounted could not be held from
 * what is masked in ours, as the kernel asks only whether some instance is bare. */
static int hide_host_proc(const char *path, struct err *err)
{
        auto_strv lines = NULL;
        int r = mountinfo_read(MOUNTINFO_SELF, &lines, err);
        if (r < 0)
                return r;
        for (size_t i = strv_length(lines); i-- > 0;) { /* what was mounted last goes first */
                auto_strv fields = str_split(lines[i], ' ');
                const char *type = strstr(lines[i], " - ");
                if (strv_length(fields) < MOUNTINFO_FIELDS_MIN || !type ||
                    (!str_starts(type, " - proc ") && !str_starts(type, " - sysfs ")))
                        continue;
                auto_free char *point = mountinfo_unescape(fields[4]);
                const char *inside = str_after(point, path);
                if (inside && (*inside == '/' || *inside == '\0'))
                        continue;
                if (umount2(point, MNT_DETACH) < 0 &&
                    mount("tmpfs", point, "tmpfs", MS_RDONLY, "size=4k") < 0)
                        return err_set(err, errno, "hide '%s' of the host", point);
        }
        return 0;
}

int rootfs_enter(struct rootfs *rootfs, struct err *err)
{
        if (fchdir(rootfs->root_fd) < 0)
                return err_set(err, errno, "change to the rootfs");
        int r = 0;
        if (rootfs->plan->private_mounts && !rootfs->no_pivot) {
                r = pivot(rootfs, err);
        } else {
                if (rootfs->plan->private_mounts)
                        r = hide_host_proc(rootfs->plan->rootfs, err);
                if (r < 0)
                        return r;
                if (rootfs->plan->private_mounts &&
                    move_mount(rootfs->root_fd, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH) < 0)
                        return err_set(err, errno, "move the rootfs to '/'");
                if (chroot(".") < 0 || chdir("/") < 0)
                        return err_set(err, errno, "change root");
        }
        if (r == 0 && rootfs->plan->private_mounts)
                r = set_root_propagation(rootfs->plan, err);
        return r;
}
