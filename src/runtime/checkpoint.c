#include "runtime/checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"
#include "runtime/criu.h"
#include "runtime/criu_mounts.h"
#include "runtime/notify.h"

#define LOG_FILE         "dump.log"
#define CONFIG_FILE      "/etc/criu/runc.conf" /* where users of containers have it */
#define CRUN_CONFIG_FILE "/etc/criu/crun.conf"
/* Whoever is root in a user namespace has to find the images, each of which is 0600. */
#define DIRECTORY_MODE 0711
#define MEM_MAJOR      1 /* /dev/null and its like, which CRIU takes for files */

char *checkpoint_descriptor(int fd)
{
        struct statx st;
        if (statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_MNT_ID, &st) < 0)
                return xstrdup("");
        char link[32], text[64];
        snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
        ssize_t n = readlink(link, text, sizeof(text) - 1);
        text[n < 0 ? 0 : n] = '\0';
        if (str_starts(text, "pipe:["))
                return xstrdup(text);
        bool file = S_ISREG(st.stx_mode) || S_ISDIR(st.stx_mode) || S_ISFIFO(st.stx_mode) ||
                    (S_ISCHR(st.stx_mode) && st.stx_rdev_major == MEM_MAJOR);
        if (!file || !(st.stx_mask & STATX_MNT_ID))
                return xstrdup("");
        return xasprintf("file[%llx:%llx]", (unsigned long long)st.stx_mnt_id,
                         (unsigned long long)st.stx_ino);
}

char **checkpoint_descriptors(void)
{
        char **names = NULL;
        for (int fd = 0; fd < 3; fd++)
                strv_push_take(&names, checkpoint_descriptor(fd));
        return names;
}

static int open_directory(const char *path, bool make, int *ret_fd, struct err *err)
{
        if (make) {
                int r = file_make_dirs(AT_FDCWD, path, DIRECTORY_MODE, err);
                if (r < 0)
                        return r;
        }
        int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
                return err_set(err, errno, "open directory '%s'", path);
        *ret_fd = fd;
        return 0;
}

int checkpoint_open_directories(const struct checkpoint_options *options, bool make,
                                int *ret_images, int *ret_work, struct err *err)
{
        auto_fd images = -1, work = -1;
        int r = open_directory(options->image_path, make, &images, err);
        if (r < 0)
                return err_wrap(err, "images of the checkpoint");
        if (options->work_path)
                r = open_directory(options->work_path, true, &work, err);
        if (r < 0)
                return err_wrap(err, "work directory");
        *ret_images = take_fd(images);
        *ret_work = take_fd(work);
        return 0;
}

int checkpoint_check(const struct plan *plan, struct err *err)
{
        if (geteuid() != 0)
                return err_plain(err, EPERM, "checkpoint and restore need root");
        if (!plan->private_mounts)
                return err_plain(err, EOPNOTSUPP,
                                 "a container without a mount namespace of its own cannot be "
                                 "checkpointed or restored");
        for (size_t i = 0; i < plan->joins_length; i++)
                if (plan->joins[i].kind == NAMESPACE_USER || plan->joins[i].kind == NAMESPACE_MOUNT)
                        return err_plain(err, EOPNOTSUPP,
                                         "a container that joins the namespace '%s' cannot be "
                                         "checkpointed or restored; give it a new one",
                                         plan->joins[i].path);
        for (size_t i = 0; i < plan->mounts_length; i++) {
                const struct plan_mount *mount = &plan->mounts[i];
                if (mount->options.idmap || mount->oci->uid_mappings_length)
                        return err_plain(err, EOPNOTSUPP,
                                         "the mount at '%s' is idmapped, which criu cannot restore",
                                         mount->oci->destination);
        }
        return 0;
}

const char *checkpoint_config_file(char *const *annotations, bool as_crun)
{
        const char *named = json_map_get(annotations, "org.criu.config");
        if (named)
                return named;
        if (as_crun && access(CRUN_CONFIG_FILE, R_OK) == 0)
                return CRUN_CONFIG_FILE;
        return access(CONFIG_FILE, R_OK) == 0 ? CONFIG_FILE : NULL;
}

/* Namespaces that were there before the container and will be there after it. */
static char **external_namespaces(const struct plan *plan, pid_t pid)
{
        char **externals = NULL;
        for (size_t i = 0; i < plan->joins_length; i++) {
                enum namespace_kind kind = plan->joins[i].kind;
                if (kind != NAMESPACE_NETWORK && kind != NAMESPACE_PID)
                        continue;
                struct stat st;
                const char *file = namespace_table[kind].file;
                auto_free char *path = xasprintf("/proc/%d/ns/%s", (int)pid, file);
                if (stat(path, &st) == 0)
                        strv_push_take(
                                &externals,
                                xasprintf("%s[%llu]:%s", file, (unsigned long long)st.st_ino,
                                          kind == NAMESPACE_PID ? "extRootPidNS" : "extRootNetNS"));
        }
        return externals;
}

char *checkpoint_descriptors_text(char *const *descriptors)
{
        bool known = descriptors && strv_length(descriptors) == 3;
        /* Nothing in these names needs escaping. */
        return xasprintf("[\"%s\",\"%s\",\"%s\"]", known ? descriptors[0] : "",
                         known ? descriptors[1] : "", known ? descriptors[2] : "");
}

static int write_descriptors(int images_fd, char *const *descriptors, struct err *err)
{
        auto_free char *array = checkpoint_descriptors_text(descriptors);
        auto_free char *text = xasprintf("%s\n", array);
        int r = file_replace(images_fd, CHECKPOINT_DESCRIPTORS, text, strlen(text), 0600, false,
                             err);
        return r < 0 ? err_wrap(err, "descriptors of the checkpoint") : 0;
}

struct dump {
        const struct checkpoint_options *options;
        const struct record *record;
        struct plan plan;
        struct criu_mounts mounts;
        char **externals;
        char *freezer;
        int images_fd, work_fd;
};

static void finish_dump(struct dump *dump)
{
        plan_finish(&dump->plan);
        criu_mounts_finish(&dump->mounts);
        strv_free(dump->externals);
        free(dump->freezer);
        close_fd(&dump->images_fd);
        close_fd(&dump->work_fd);
}

#define auto_dump __attribute__((cleanup(finish_dump))) struct dump

/* Its directory, so that no process is missed that is being born meanwhile. */
static char *find_freezer(char *const *cgroups)
{
        for (char *const *entry = cgroups; entry && *entry; entry++) {
                const char *path = strchr(*entry, '=');
                auto_free char *names = xstrndup(*entry, (size_t)(path - *entry));
                auto_strv controllers = str_split(names, ',');
                if (path == *entry || strv_contains(controllers, "freezer"))
                        return xstrdup(path + 1);
        }
        return NULL;
}

static int check_parent(const struct dump *dump, struct err *err)
{
        const char *parent = dump->options->parent_path;
        struct stat st;
        if (!parent)
                return 0;
        if (*parent == '/')
                return err_plain(err, EINVAL, "--parent-path '%s' must be relative to --image-path",
                                 parent);
        if (fstatat(dump->images_fd, parent, &st, 0) < 0)
                return err_set(err, errno, "--parent-path '%s'", parent);
        return S_ISDIR(st.st_mode)
                       ? 0
                       : err_plain(err, ENOTDIR, "--parent-path '%s' is no directory", parent);
}

/* A mount that config.json has not. */
static int write_notify(const struct dump *dump, struct err *err)
{
        const char *place = dump->record->notify_place;
        int r = 0;
        if (place)
                r = file_replace(dump->images_fd, CHECKPOINT_NOTIFY, place, strlen(place), 0600,
                                 false, err);
        else if (unlinkat(dump->images_fd, CHECKPOINT_NOTIFY, 0) < 0 && errno != ENOENT)
                r = err_set(err, errno, "remove '%s'", CHECKPOINT_NOTIFY);
        return r < 0 ? err_wrap(err, "place of the socket to notify") : 0;
}

static int prepare(struct dump *dump, struct err *err)
{
        const struct record *record = dump->record;
        if (record->notify_place) /* of its source nothing is asked */
                notify_mount("", record->id, record->notify_place, record->config);
        int r = plan_create(record->config, record->bundle, record->id, &dump->plan, err);
        if (r == 0)
                r = checkpoint_check(&dump->plan, err);
        if (r == 0)
                r = checkpoint_open_directories(dump->options, true, &dump->images_fd,
                                                &dump->work_fd, err);
        if (r == 0)
                r = check_parent(dump, err);
        if (r < 0 || dump->options->pre_dump)
                return r;
        r = criu_mounts_find(&dump->plan, (pid_t)record->pid, &dump->mounts, err);
        if (r == 0)
                r = write_descriptors(dump->images_fd, record->descriptors, err);
        if (r == 0)
                r = write_notify(dump, err);
        dump->externals = external_namespaces(&dump->plan, (pid_t)record->pid);
        for (char **name = record->descriptors; name && *name; name++)
                if (str_starts(*name, "file["))
                        strv_push(&dump->externals, *name);
        return r;
}

static int perform(struct dump *dump, struct err *err)
{
        const struct checkpoint_options *options = dump->options;
        struct criu_options request = {
                .images_fd = dump->images_fd,
                .work_fd = dump->work_fd,
                .pid = (int)dump->record->pid,
                .log_file = LOG_FILE,
                .root = dump->plan.rootfs,
                .parent = options->parent_path,
                .freeze_cgroup = dump->freezer,
                .config_file = checkpoint_config_file(dump->record->annotations, options->as_crun),
                .cgroups = options->cgroups,
                .leave_running = options->leave_running,
                .ext_unix_sk = options->ext_unix_sk,
                .tcp_established = options->tcp_established,
                .shell_job = options->shell_job,
                .file_locks = options->file_locks,
                .link_remap = options->link_remap,
                .auto_dedup = options->auto_dedup,
                .track_memory = options->pre_dump || options->parent_path,
                .mounts = dump->mounts.pairs,
                .mounts_length = dump->mounts.length,
                .externals = dump->externals,
        };
        auto_criu criu = { .fd = -1 };
        int r = criu_open(options->criu, NULL, 0, &criu, err);
        if (r == 0 && request.track_memory) {
                r = criu_tracks_memory(&criu, err);
                if (r == 0)
                        return err_plain(err, EOPNOTSUPP,
                                         "this kernel does not tell which memory was written to, "
                                         "which --pre-dump and --parent-path need");
        }
        return r < 0 ? r
                     : criu_perform(&criu, options->pre_dump ? CRIU_PRE_DUMP : CRIU_DUMP, &request,
                                    NULL, NULL, err);
}

/* After a failure the container must go on. CRIU sees to that unless it was killed itself; a
 * container that was paused before stays so. */
static void let_go(const struct record *record, bool paused)
{
        auto_cgroup cgroup = NULL;
        if (!paused && record->cgroups && cgroup_open(record->cgroups, &cgroup, NULL) == 0)
                (void)cgroup_thaw(cgroup, NULL);
}

int checkpoint_dump(const struct record *record, bool paused,
                    const struct checkpoint_options *options, struct err *err)
{
        auto_dump dump = { .options = options, .record = record, .images_fd = -1, .work_fd = -1 };
        dump.freezer = find_freezer(record->cgroups);
        int r = prepare(&dump, err);
        if (r < 0)
                return r;
        r = perform(&dump, err);
        if (r < 0) {
                let_go(record, paused);
                return r;
        }
        if (options->status_fd >= 0 && write(options->status_fd, "", 1) != 1)
                return err_set(err, errno, "tell --status-fd %d", options->status_fd);
        return 0;
}
