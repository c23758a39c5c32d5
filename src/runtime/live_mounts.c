/* Mounts of a running container: added and removed; and the cgroup hierarchies that it joins late.
 *
 * What is mounted is opened by us, as detached mounts, where the caller sees it; a process in the
 * container's mount namespace then attaches it on a target that is walked to inside the
 * container's tree. That process is not in the container's pid namespace, where it could be looked
 * at; so a proc, which would show the host's, cannot be added. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"
#include "runtime/container.h"
#include "runtime/rootfs.h"
#include "runtime/sync.h"
#include "sys/mounts.h"
#include "sys/process.h"
#include "sys/resolve.h"

struct list { /* what the file holds, as the value of "mounts" */
        struct oci_mount *mounts;
        size_t length;
};

static const struct json_field list_fields[] = {
        JSON_FIELD_ARRAY(struct list, "mounts", mounts, length, &oci_mount_shape, JSON_REQUIRED),
};
static const struct json_shape list_shape = JSON_SHAPE("mounts", struct list, list_fields);

static int read_list(const char *file, struct list *ret, struct err *err)
{
        auto_free char *array = NULL;
        int r = file_read(AT_FDCWD, file, OCI_CONFIG_SIZE_MAX, &array, NULL, err);
        if (r < 0)
                return r;
        auto_free char *text = xasprintf("{\"mounts\":%s}", array);
        r = json_decode_text(&list_shape, text, strlen(text), ret, err);
        return r < 0 ? err_wrap(err, "'%s', which is to be an array of mounts", file) : 0;
}

/* What a process in the container's mount namespace does. */
struct visit {
        int (*perform)(void *arg, struct err *err);
        void *arg;
        int parent_fd, child_fd; /* of sync.h */
};

struct change {
        const struct list *list;
        const struct plan *plan; /* of the list, when it is added */
        int *source_fds;         /* per mount; -1 */
        bool add;
        int proc_fd;
};

static int check_kind(const struct plan_mount *mount, struct err *err)
{
        const char *type = mount->oci->type ? mount->oci->type : "";
        if (mount->kind == PLAN_MOUNT_REMOUNT || mount->kind == PLAN_MOUNT_CGROUP ||
            streq(type, "proc"))
                return err_plain(err, EOPNOTSUPP,
                                 "mount at '%s': a %s cannot be added to a running container",
                                 mount->oci->destination,
                                 mount->kind == PLAN_MOUNT_REMOUNT ? "remount" : type);
        return 0;
}

/* Without a wish to the contrary it is private: what is mounted inside stays inside. */
static int open_source(const struct plan *plan, const struct plan_mount *mount, int *ret_fd,
                       struct err *err)
{
        int r = check_kind(mount, err);
        if (r == 0)
                r = rootfs_prepare_source(plan, mount, ret_fd, err);
        if (r == 0 && *ret_fd < 0 && mount->kind == PLAN_MOUNT_BIND)
                r = rootfs_bind_source(mount, ret_fd, err);
        if (r < 0)
                return err_wrap(err, "mount at '%s'", mount->oci->destination);
        if (*ret_fd < 0 || mount->options.propagation)
                return 0;
        struct mount_change private = { .propagation = MS_PRIVATE, .recursive = true };
        return mount_set_attributes(*ret_fd, &private, err);
}

/* By its name in a directory that was walked to: whoever exchanges it meanwhile has something of
 * the container's own unmounted. */
static int detach(int root_fd, const char *at, struct err *err)
{
        struct statx st;
        auto_fd fd = -1, dirfd = -1;
        auto_free char *name = NULL;
        int r = resolve_open(root_fd, at, O_PATH, 0, &fd, err);
        if (r < 0)
                return r;
        if (statx(fd, "", AT_EMPTY_PATH, STATX_TYPE, &st) < 0 ||
            !(st.stx_attributes & STATX_ATTR_MOUNT_ROOT))
                return err_plain(err, EINVAL, "nothing is mounted at '%s'", at);
        r = resolve_parent(root_fd, at, &dirfd, &name, err);
        if (r < 0)
                return r;
        if (fchdir(dirfd) < 0 || umount2(name, MNT_DETACH | UMOUNT_NOFOLLOW) < 0)
                return err_set(err, errno, "unmount '%s'", at);
        return 0;
}

static int attach(struct change *change, size_t index, int root_fd, struct err *err)
{
        struct plan one = *change->plan;
        one.mounts = &change->plan->mounts[index];
        one.mounts_length = 1;
        one.populate_dev = false;
        struct rootfs rootfs = {
                .plan = &one,
                .root_fd = root_fd,
                .proc_fd = change->proc_fd,
                .root_source_fd = -1,
                .source_fds = &change->source_fds[index],
        };
        int r = rootfs_mount(&rootfs, err);
        return r == 0 ? rootfs_late_read_only(&rootfs, err) : r;
}

/* In the container's namespaces. All or nothing is added. */
static int change_all(void *arg, struct err *err)
{
        struct change *change = arg;
        auto_fd root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (root < 0)
                return err_set(err, errno, "open the root");
        const struct oci_mount *mounts = change->list->mounts;
        size_t length = change->list->length;
        for (size_t i = 0; i < length; i++) {
                size_t index = change->add ? i : length - 1 - i;
                int r = change->add ? attach(change, index, root, err)
                                    : detach(root, mounts[index].destination, err);
                if (r == 0)
                        continue;
                while (change->add && i-- > 0)
                        (void)detach(root, mounts[i].destination, NULL);
                return r;
        }
        return 0;
}

static void child_main(void *arg)
{
        struct visit *visit = arg;
        struct err err = { 0 };
        close_fd(&visit->parent_fd);
        process_reset_signals();
        if (visit->perform(visit->arg, &err) < 0)
                (void)sync_send_error(visit->child_fd, &err);
        _exit(0);
}

static int run_child(struct visit *visit, const struct record *record, struct err *err)
{
        auto_fd target = -1, pidfd = -1;
        int pair[2];
        pid_t pid;
        int r = process_open((pid_t)record->pid, record->start_time, &target, err);
        if (r == 0)
                r = sync_pair(pair, err);
        if (r < 0)
                return r;
        visit->parent_fd = pair[0];
        visit->child_fd = pair[1];
        struct clone_request request = {
                .target_pidfd = target,
                .target_flags = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC,
                .cgroup_fd = -1,
                .child = child_main,
                .arg = visit,
        };
        r = clone_child(&request, &pid, &pidfd, err);
        close_fd(&visit->child_fd);
        if (r == 0) {
                r = sync_receive(visit->parent_fd, err);
                while (waitpid(pid, NULL, __WALL) < 0 && errno == EINTR)
                        ;
        }
        close_fd(&visit->parent_fd);
        return r;
}

static int perform(const struct list *list, const struct plan *plan, const struct record *record,
                   bool add, struct err *err)
{
        auto_free int *fds = xcalloc(plan->mounts_length + 1, sizeof(*fds));
        auto_fd proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
        struct change change = {
                .list = list, .plan = plan, .source_fds = fds, .add = add, .proc_fd = proc
        };
        int r = proc < 0 ? err_set(err, errno, "open /proc") : 0;
        for (size_t i = 0; i < plan->mounts_length; i++)
                fds[i] = -1;
        for (size_t i = 0; r == 0 && add && i < plan->mounts_length; i++)
                r = open_source(plan, &plan->mounts[i], &fds[i], err);
        struct visit visit = { .perform = change_all, .arg = &change };
        if (r == 0)
                r = run_child(&visit, record, err);
        for (size_t i = 0; i < plan->mounts_length; i++)
                close_fd(&fds[i]);
        return r;
}

/* The record's config has them too, or not any more: a checkpoint asks it. Takes what is added. */
static void change_config(struct oci_spec *config, struct list *list, bool add)
{
        if (add) {
                config->mounts = xrealloc(config->mounts, config->mounts_length + list->length,
                                          sizeof(*config->mounts));
                for (size_t i = 0; i < list->length; i++)
                        config->mounts[config->mounts_length++] = list->mounts[i];
                free(list->mounts);
                *list = (struct list){ 0 };
                return;
        }
        for (size_t i = 0; i < list->length; i++)
                for (size_t j = config->mounts_length; j-- > 0;) {
                        if (!streq(config->mounts[j].destination, list->mounts[i].destination))
                                continue;
                        json_free(&oci_mount_shape, &config->mounts[j]);
                        config->mounts_length--;
                        for (size_t k = j; k < config->mounts_length; k++)
                                config->mounts[k] = config->mounts[k + 1];
                        break;
                }
}

static int change_mounts(struct state *state, struct record *record, struct list *list, bool add,
                         struct err *err)
{
        struct oci_spec only = *record->config;
        struct plan plan = { 0 };
        only.mounts = add ? list->mounts : NULL; /* what is removed need only have a destination */
        only.mounts_length = add ? list->length : 0;
        int r = oci_spec_validate(&only, err);
        if (r == 0)
                r = plan_create(&only, record->bundle, record->id, &plan, err);
        if (r == 0)
                rootfs_find_label(&plan);
        if (r == 0 && !plan.private_mounts)
                r = err_plain(err, EOPNOTSUPP, "the container has no mount namespace of its own");
        if (r == 0)
                r = perform(list, &plan, record, add, err);
        plan_finish(&plan);
        if (r < 0)
                return r;
        change_config(record->config, list, add);
        auto_free char *text = json_encode_text(&oci_spec_shape, record->config, false);
        return state_write(state, record, text, err);
}

int container_mounts(const char *root, const char *id, bool add, const char *file, struct err *err)
{
        auto_state state = { .fd = -1 };
        auto_record record = { 0 };
        enum state_status status;
        struct list list = { 0 };
        int r = read_list(file, &list, err);
        if (r == 0)
                r = state_open(root, id, true, &state, err);
        if (r == 0)
                r = state_read(&state, true, &record, err);
        if (r == 0)
                r = state_status(&state, &record, &status, err);
        if (r == 0 && (status == STATE_STOPPED || status == STATE_CREATING))
                r = err_plain(err, EINVAL, "container %s is %s", id, state_status_name(status));
        if (r == 0)
                r = change_mounts(&state, &record, &list, add, err);
        json_free(&list_shape, &list);
        return r;
}

/* One version 1 hierarchy for one cgroup mount of the container. */
struct arrival {
        const char *destination; /* of the cgroup mount */
        char *name;
        int fd; /* the detached mount of the group's directory */
};

/* In the container's namespaces. The directory of the hierarchies may be mounted read-only, which
 * is no attribute of the tmpfs itself. */
static int arrive(void *arg, struct err *err)
{
        struct arrival *arrival = arg;
        auto_fd root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC), tmpfs = -1, writable = -1;
        struct statfs fs;
        struct stat st;
        if (root < 0)
                return err_set(err, errno, "open the root");
        int r = resolve_open(root, arrival->destination, O_RDONLY | O_DIRECTORY, 0, &tmpfs, err);
        if (r < 0)
                return r;
        if (fstatfs(tmpfs, &fs) < 0 || fs.f_type != TMPFS_MAGIC || fstat(tmpfs, &st) < 0)
                return err_plain(err, EINVAL, "'%s' is not as it was mounted",
                                 arrival->destination);
        /* A user namespace's file system knows only its own users. */
        (void)setfsgid(st.st_gid);
        (void)setfsuid(st.st_uid);
        r = mount_clone(tmpfs, "", false, &writable, err);
        if (r == 0)
                r = mount_set_attributes(writable,
                                         &(struct mount_change){ .clear = MOUNT_ATTR_RDONLY }, err);
        return r < 0 ? r
                     : rootfs_attach_hierarchy(tmpfs, writable, arrival->name, arrival->fd, err);
}

static int show_one(const struct record *record, const struct plan_mount *mount,
                    const char *directory, struct err *err)
{
        auto_fd fd = -1;
        auto_free char *name = rootfs_hierarchy_name(directory);
        int r = mount_clone(AT_FDCWD, directory, false, &fd, err);
        if (r == 0)
                r = rootfs_set_options(fd, &mount->options, err);
        if (r < 0)
                return r;
        struct arrival arrival = { mount->oci->destination, name, fd };
        struct visit visit = { .perform = arrive, .arg = &arrival };
        return run_child(&visit, record, err);
}

int container_show_hierarchies(const struct record *record, char *const *cgroups, struct err *err)
{
        struct plan plan = { 0 };
        int r = plan_create(record->config, record->bundle, record->id, &plan, err);
        for (size_t i = 0; r == 0 && plan.private_mounts && i < plan.mounts_length; i++)
                for (char *const *entry = cgroups; r == 0 && *entry; entry++)
                        if (plan.mounts[i].kind == PLAN_MOUNT_CGROUP && **entry != '=')
                                r = show_one(record, &plan.mounts[i], strchr(*entry, '=') + 1, err);
        plan_finish(&plan);
        return r;
}
