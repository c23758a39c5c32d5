#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"
#include "codec/json.h"
#include "runtime/checkpoint.h"
#include "runtime/criu.h"
#include "runtime/criu_mounts.h"
#include "runtime/notify.h"
#include "sys/mounts.h"
#include "sys/process.h"
#include "sys/pty.h"

#define LOG_FILE             "restore.log"
#define DESCRIPTORS_SIZE_MAX 65536
#define CGROUP_SIZE_MAX      ((size_t)1 << 20)

struct restore {
        struct launch *launch;
        const struct checkpoint_options *options;
        int images_fd, work_fd;
        struct criu_mounts mounts;
        struct criu_pair *roots; /* of cgroups; texts on the heap */
        size_t roots_length;
        struct criu_pair joins[NAMESPACE_KINDS];
        size_t joins_length;
        struct criu_inherit inherits[3 + NAMESPACE_KINDS]; /* keys on the heap */
        size_t inherits_length;
        struct spawn_fd fds[NAMESPACE_KINDS + 3]; /* for criu, beside the standard ones */
        size_t fds_length;
        int null_fd; /* for descriptors that cannot be ours; -1 */
};

static void finish_restore(struct restore *restore)
{
        for (size_t i = 0; i < restore->roots_length; i++) {
                free(restore->roots[i].key);
                free(restore->roots[i].value);
        }
        for (size_t i = 0; i < restore->inherits_length; i++)
                free(restore->inherits[i].key);
        free(restore->roots);
        criu_mounts_finish(&restore->mounts);
        close_fd(&restore->null_fd);
        close_fd(&restore->images_fd);
        close_fd(&restore->work_fd);
}

#define auto_restore __attribute__((cleanup(finish_restore))) struct restore

/* The number of one more descriptor in CRIU. */
static int add_fd(struct restore *restore, int fd)
{
        int to = CRIU_FIRST_FD + (int)restore->fds_length;
        restore->fds[restore->fds_length++] = (struct spawn_fd){ fd, to };
        return to;
}

/* What becomes descriptor `fd`, which `name` was. CRIU restores the position in a file and compares
 * its kind, so a pipe or a terminal can be none; the null device stays what it was then. */
static int successor(struct restore *restore, const char *name, int fd, int *ret_fd,
                     struct err *err)
{
        *ret_fd = fd;
        if (!str_starts(name, "file[") || lseek(fd, 0, SEEK_CUR) >= 0 || errno != ESPIPE)
                return 0;
        if (restore->null_fd < 0)
                restore->null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
        if (restore->null_fd < 0)
                return err_set(err, errno, "open /dev/null");
        /* Mounts may have other numbers now, the device's inode has not. */
        auto_free char *null_name = checkpoint_descriptor(restore->null_fd);
        const char *inode = strchr(null_name, ':');
        if (!inode || !str_ends(name, inode))
                return err_plain(err, EINVAL,
                                 "descriptor %d was a file, which cannot become a pipe or a "
                                 "terminal; call restore with a file there",
                                 fd);
        *ret_fd = add_fd(restore, restore->null_fd); /* CRIU closes each that it was given */
        return 0;
}

/* Standard descriptors that were the caller's of old become those of ours. */
static int inherit_descriptors(struct restore *restore, struct err *err)
{
        auto_free char *text = NULL;
        size_t size;
        struct json_object *list = NULL;
        int r = file_read(restore->images_fd, CHECKPOINT_DESCRIPTORS, DESCRIPTORS_SIZE_MAX, &text,
                          &size, err);
        if (r == -ENOENT)
                return err_plain(err, ENOENT, "'%s' holds no checkpoint: it has no %s",
                                 restore->options->image_path, CHECKPOINT_DESCRIPTORS);
        if (r == 0)
                r = json_parse(text, size, &list, err);
        if (r < 0)
                return err_wrap(err, CHECKPOINT_DESCRIPTORS);
        size_t length = json_object_is_type(list, json_type_array) ? json_object_array_length(list)
                                                                   : 0;
        for (size_t i = 0; r == 0 && i < length && i < 3; i++) {
                const char *name = json_object_get_string(json_object_array_get_idx(list, i));
                if (!name || !(str_starts(name, "pipe:[") || str_starts(name, "file[")))
                        continue;
                int fd;
                r = successor(restore, name, (int)i, &fd, err);
                if (r == 0)
                        restore->inherits[restore->inherits_length++] = (struct criu_inherit){
                                .key = xstrdup(name), .fd = fd
                        };
        }
        json_object_put(list);
        return r;
}

int checkpoint_restore_mounts(struct launch *launch, void *arg, struct err *err)
{
        auto_fd images = -1, work = -1;
        auto_free char *place = NULL;
        int r = checkpoint_open_directories(arg, false, &images, &work, err);
        if (r == 0)
                r = file_read(images, CHECKPOINT_NOTIFY, PATH_MAX, &place, NULL, err);
        if (r == -ENOENT && images >= 0)
                return 0;
        if (r == 0 && *place != '/')
                r = err_plain(err, EINVAL, "%s: '%s' is not an absolute path", CHECKPOINT_NOTIFY,
                              place);
        if (r < 0)
                return r;
        notify_mount(launch->options->root, launch->options->id, place, &launch->spec);
        launch->notify_place = take_ptr(place);
        return 0;
}

/* Network and pid namespaces are handed over, our own ones, too, if they were named; others CRIU
 * joins by itself. */
static int join_namespaces(struct restore *restore, struct err *err)
{
        const struct plan *plan = &restore->launch->plan;
        for (size_t i = 0; i < plan->joins_length; i++) {
                const struct plan_join *join = &plan->joins[i];
                int *fd = &restore->launch->join_fds[i];
                bool handed = join->kind == NAMESPACE_NETWORK || join->kind == NAMESPACE_PID;
                int r = handed && *fd < 0 ? namespace_open(join->path, join->kind, fd, err) : 0;
                if (r < 0)
                        return r;
                if (*fd < 0)
                        continue;
                if (!handed) {
                        restore->joins[restore->joins_length++] = (struct criu_pair){
                                (char *)namespace_table[join->kind].file, (char *)join->path
                        };
                        continue;
                }
                int to = add_fd(restore, *fd);
                const char *key = join->kind == NAMESPACE_PID ? "extRootPidNS" : "extRootNetNS";
                restore->inherits[restore->inherits_length++] = (struct criu_inherit){ xstrdup(key),
                                                                                       to };
        }
        return 0;
}

/* The restored tree opens images by itself, as somebody else than root of the host. */
static int check_searchable(const struct restore *restore, struct err *err)
{
        struct stat st;
        if (!restore->launch->plan.in_user_namespace)
                return 0;
        if (fstat(restore->images_fd, &st) < 0)
                return err_set(err, errno, "stat '%s'", restore->options->image_path);
        if (st.st_mode & S_IXOTH)
                return 0;
        return err_plain(err, EACCES,
                         "'%s' is closed to the root of the user namespace; chmod o+x it",
                         restore->options->image_path);
}

/* Where our own process finds itself again. */
struct place {
        int mounts_fd, root_fd, cwd_fd;
};

static void close_place(struct place *place)
{
        close_fd(&place->mounts_fd);
        close_fd(&place->root_fd);
        close_fd(&place->cwd_fd);
}

#define auto_place __attribute__((cleanup(close_place))) struct place

/* CRIU wants the root to be a mount; whoever started it in this namespace has left it, so the
 * mount ends with CRIU. */
static int leave_for_own_mounts(struct restore *restore, struct place *place, struct err *err)
{
        const char *rootfs = restore->launch->plan.rootfs;
        place->mounts_fd = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
        place->root_fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
        place->cwd_fd = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (place->mounts_fd < 0 || place->root_fd < 0 || place->cwd_fd < 0)
                return err_set(err, errno, "open our mount namespace, root and directory");
        if (unshare(CLONE_NEWNS) < 0)
                return err_set(err, errno, "make a mount namespace");
        struct mount_attr attr = { .propagation = MS_SLAVE };
        if (mount_setattr(AT_FDCWD, "/", AT_RECURSIVE, &attr, sizeof(attr)) < 0)
                return err_set(err, errno, "cut mount propagation");
        auto_fd fd = -1, target = open(rootfs, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (target < 0)
                return err_set(err, errno, "rootfs '%s'", rootfs);
        int r = mount_clone(AT_FDCWD, rootfs, true, &fd, err);
        if (r == 0)
                r = mount_attach(fd, target, err);
        return r < 0 ? err_wrap(err, "rootfs '%s'", rootfs) : 0;
}

static int come_back(const struct place *place, int r, struct err *err)
{
        if (place->mounts_fd < 0)
                return r;
        if (setns(place->mounts_fd, CLONE_NEWNS) < 0 || fchdir(place->root_fd) < 0 ||
            chroot(".") < 0 || fchdir(place->cwd_fd) < 0)
                return r < 0 ? r : err_set(err, errno, "return to our mount namespace");
        return r;
}

static int start_criu(struct restore *restore, struct criu *ret, struct err *err)
{
        auto_place place = { -1, -1, -1 };
        int r = leave_for_own_mounts(restore, &place, err);
        /* CRIU mounts in its directory, so that must be one of its namespace. */
        if (r == 0)
                r = checkpoint_open_directories(restore->options, false, &restore->images_fd,
                                                &restore->work_fd, err);
        if (r == 0)
                r = check_searchable(restore, err);
        if (r == 0)
                r = inherit_descriptors(restore, err);
        if (r == 0)
                r = criu_open(restore->options->criu, restore->fds, restore->fds_length, ret, err);
        r = come_back(&place, r, err);
        if (r < 0 && ret->pid > 0)
                criu_close(ret);
        return r;
}

/* The groups that were dumped stand for those in which CRIU now is, also where a hierarchy is
 * the caller's. */
static int read_roots(struct restore *restore, pid_t pid, struct err *err)
{
        char path[32];
        auto_free char *text = NULL;
        snprintf(path, sizeof(path), "/proc/%d/cgroup", (int)pid);
        int r = file_read(AT_FDCWD, path, CGROUP_SIZE_MAX, &text, NULL, err);
        if (r < 0)
                return r;
        auto_strv lines = str_split(text, '\n');
        for (char **line = lines; *line; line++) {
                const char *names = strchr(*line, ':');
                const char *group = names ? strchr(names + 1, ':') : NULL;
                if (!group)
                        continue;
                auto_free char *list = xstrndup(names + 1, (size_t)(group - names - 1));
                auto_strv controllers = str_split(list, ',');
                for (char **name = controllers; *name; name++) {
                        restore->roots = xrealloc(restore->roots, restore->roots_length + 1,
                                                  sizeof(*restore->roots));
                        restore->roots[restore->roots_length++] = (struct criu_pair){
                                xstrdup(*name), xstrdup(group + 1)
                        };
                }
        }
        return 0;
}

static int enter_cgroup(struct restore *restore, const struct criu *criu, struct err *err)
{
        struct cgroup *cgroup = restore->launch->cgroup;
        int r = cgroup ? cgroup_attach(cgroup, criu->pid, err) : 0;
        return r == 0 ? read_roots(restore, criu->pid, err) : r;
}

/* In the container's mount namespace, which a process of its own has to enter: errno. */
static int make_root_read_only(int mounts_fd)
{
        struct mount_attr attr = { .attr_set = MOUNT_ATTR_RDONLY };
        if (setns(mounts_fd, CLONE_NEWNS) < 0 ||
            mount_setattr(AT_FDCWD, "/", 0, &attr, sizeof(attr)) < 0)
                return errno;
        return 0;
}

/* CRIU takes the root as it finds it, and could not restore into one that is read-only. */
static int restrict_root(struct launch *launch, pid_t pid, struct err *err)
{
        if (!launch->spec.root->readonly)
                return 0;
        char path[32];
        int status = 0;
        snprintf(path, sizeof(path), "%d/ns/mnt", (int)pid);
        auto_fd mounts = openat(launch->proc_fd, path, O_RDONLY | O_CLOEXEC);
        if (mounts < 0)
                return err_set(err, errno, "open the mount namespace");
        pid_t child = fork();
        if (child < 0)
                return err_set(err, errno, "fork");
        if (child == 0)
                _exit(make_root_read_only(mounts));
        while (waitpid(child, &status, 0) < 0 && errno == EINTR)
                ;
        if (!WIFEXITED(status))
                return err_plain(err, EIO, "make the rootfs read-only: the process was killed");
        return WEXITSTATUS(status) ? err_set(err, WEXITSTATUS(status), "make the rootfs read-only")
                                   : 0;
}

static int finish_tree(struct launch *launch, pid_t pid, struct err *err)
{
        launch->pid = pid;
        int r = process_open(pid, 0, &launch->pidfd, err);
        if (r == 0)
                r = restrict_root(launch, pid, err);
        if (r == 0)
                r = launch_start_scope(launch, err);
        if (r == 0)
                r = launch_apply_limits(launch, err);
        return r == 0 ? launch_finish_record(launch, err) : r;
}

static int notify(void *arg, const char *script, pid_t pid, int fd, struct err *err)
{
        static const char name[] = "/dev/ptmx";
        struct restore *restore = arg;
        struct launch *launch = restore->launch;
        if (streq(script, "setup-namespaces")) {
                launch->pid = pid; /* what the hooks are told */
                return launch_run_hooks(launch, err);
        }
        if (streq(script, "post-restore"))
                return finish_tree(launch, pid, err);
        if (!streq(script, "orphan-pts-master"))
                return 0;
        if (launch->console_fd < 0 || fd < 0)
                return err_plain(err, EINVAL,
                                 "the checkpoint has a terminal, but config.json has none");
        return pty_send_fd(launch->console_fd, fd, name, strlen(name), err);
}

static int perform(struct restore *restore, struct criu *criu, struct err *err)
{
        const struct checkpoint_options *options = restore->options;
        struct launch *launch = restore->launch;
        struct criu_options request = {
                .images_fd = restore->images_fd,
                .work_fd = restore->work_fd,
                .log_file = LOG_FILE,
                .root = launch->plan.rootfs,
                .config_file = checkpoint_config_file(launch->record.annotations, options->as_crun),
                .lsm_profile = options->lsm_profile,
                .lsm_mount_context = options->lsm_mount_context,
                .cgroups = options->cgroups,
                .ext_unix_sk = options->ext_unix_sk,
                .tcp_established = options->tcp_established,
                .tcp_close = options->tcp_close,
                .shell_job = options->shell_job,
                .file_locks = options->file_locks,
                .link_remap = options->link_remap,
                .auto_dedup = options->auto_dedup,
                .evasive_devices = true,
                .restore_sibling = true,
                .mounts = restore->mounts.pairs,
                .mounts_length = restore->mounts.length,
                .cgroup_roots = restore->roots,
                .cgroup_roots_length = restore->roots_length,
                .joins = restore->joins,
                .joins_length = restore->joins_length,
                .inherits = restore->inherits,
                .inherits_length = restore->inherits_length,
        };
        struct criu_listener listener = { notify, restore };
        pid_t pid;
        int r = criu_perform(criu, CRIU_RESTORE, &request, &listener, &pid, err);
        if (r == 0 && pid != launch->pid)
                return err_plain(err, EPROTO, "criu restored process %d, but spoke of %d before",
                                 (int)pid, (int)launch->pid);
        return r;
}

int checkpoint_restore(struct launch *launch, void *arg, struct err *err)
{
        auto_restore restore = {
                .launch = launch,
                .options = arg,
                .images_fd = -1,
                .work_fd = -1,
                .null_fd = -1,
        };
        auto_criu criu = { .fd = -1 };
        int r = checkpoint_check(&launch->plan, err);
        if (r == 0)
                r = criu_mounts_make_targets(&launch->plan, err);
        if (r == 0)
                r = criu_mounts_prepare(&launch->plan,
                                        launch->cgroup ? cgroup_paths(launch->cgroup) : NULL,
                                        &restore.mounts, err);
        if (r == 0)
                r = join_namespaces(&restore, err);
        if (r == 0)
                r = start_criu(&restore, &criu, err);
        if (r == 0)
                r = enter_cgroup(&restore, &criu, err);
        if (r == 0)
                r = perform(&restore, &criu, err);
        close_fd(&launch->console_fd);
        return r;
}
