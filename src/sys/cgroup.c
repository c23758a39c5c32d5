#include "sys/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/str.h"
#include "sys/cgroup_provider.h"

#define SUPERVISION                                                                                \
        (CGROUP_BIT(CGROUP_DEVICES) | CGROUP_BIT(CGROUP_FREEZER) | CGROUP_BIT(CGROUP_MEMORY) |     \
         CGROUP_BIT(CGROUP_PIDS) | CGROUP_BIT(CGROUP_CPUACCT))

#define RETRY_FIRST_NS 200000L   /* 0.2 ms, doubled up to */
#define RETRY_LAST_NS  10000000L /* 10 ms */
#define KILL_ROUNDS    100

void cgroup_limits_init(struct cgroup_limits *limits)
{
        *limits = (struct cgroup_limits){
                .memory_bytes = CGROUP_UNSET,
                .memory_reservation_bytes = CGROUP_UNSET,
                .memory_swap_bytes = CGROUP_UNSET,
                .memory_kernel_bytes = CGROUP_UNSET,
                .memory_kernel_tcp_bytes = CGROUP_UNSET,
                .memory_swappiness = CGROUP_UNSET,
                .oom_kill_disable = CGROUP_UNSET,
                .cpu_shares = CGROUP_UNSET,
                .cpu_quota_us = CGROUP_UNSET,
                .cpu_period_us = CGROUP_UNSET,
                .cpu_burst_us = CGROUP_UNSET,
                .cpu_rt_runtime_us = CGROUP_UNSET,
                .cpu_rt_period_us = CGROUP_UNSET,
                .cpu_idle = CGROUP_UNSET,
                .pids_max = CGROUP_UNSET,
                .io_weight = CGROUP_UNSET,
                .io_leaf_weight = CGROUP_UNSET,
                .net_class_id = CGROUP_UNSET,
        };
}

uint32_t cgroup_limits_controllers(const struct cgroup_limits *l)
{
        uint32_t bits = 0;
        if (l->memory_bytes != CGROUP_UNSET || l->memory_reservation_bytes != CGROUP_UNSET ||
            l->memory_swap_bytes != CGROUP_UNSET || l->memory_kernel_bytes != CGROUP_UNSET ||
            l->memory_kernel_tcp_bytes != CGROUP_UNSET || l->memory_swappiness != CGROUP_UNSET ||
            l->oom_kill_disable == 1)
                bits |= CGROUP_BIT(CGROUP_MEMORY);
        if (l->cpu_shares != CGROUP_UNSET || l->cpu_quota_us != CGROUP_UNSET ||
            l->cpu_period_us != CGROUP_UNSET || l->cpu_burst_us != CGROUP_UNSET ||
            l->cpu_rt_runtime_us != CGROUP_UNSET || l->cpu_rt_period_us != CGROUP_UNSET ||
            l->cpu_idle != CGROUP_UNSET)
                bits |= CGROUP_BIT(CGROUP_CPU);
        if (!str_empty(l->cpuset_cpus) || !str_empty(l->cpuset_mems))
                bits |= CGROUP_BIT(CGROUP_CPUSET);
        if (l->pids_max != CGROUP_UNSET)
                bits |= CGROUP_BIT(CGROUP_PIDS);
        if (l->io_wanted || l->io_weight != CGROUP_UNSET || l->io_leaf_weight != CGROUP_UNSET ||
            l->io_devices_length)
                bits |= CGROUP_BIT(CGROUP_BLKIO);
        if (l->hugetlb_length)
                bits |= CGROUP_BIT(CGROUP_HUGETLB);
        if (l->rdma_length)
                bits |= CGROUP_BIT(CGROUP_RDMA);
        if (l->net_class_id != CGROUP_UNSET)
                bits |= CGROUP_BIT(CGROUP_NET_CLS);
        if (l->net_priorities_length)
                bits |= CGROUP_BIT(CGROUP_NET_PRIO);
        return bits;
}

struct cgroup_hierarchy *cgroup_hierarchy(struct cgroup *cgroup, enum cgroup_controller controller)
{
        for (size_t i = 0; i < cgroup->length; i++)
                if (cgroup->hierarchies[i].controllers & CGROUP_BIT(controller))
                        return &cgroup->hierarchies[i];
        return NULL;
}

void cgroup_add_hierarchy(struct cgroup *cgroup, uint32_t controllers, char *directory,
                          const char *mount)
{
        const char *name = "";
        for (unsigned c = 0; c < CGROUP_CONTROLLERS; c++)
                if (controllers & CGROUP_BIT(c)) {
                        name = cgroup_controller_names[c];
                        break;
                }
        strv_push_take(&cgroup->paths, xasprintf("%s=%s", name, directory));
        cgroup->hierarchies[cgroup->length++] = (struct cgroup_hierarchy){
                .controllers = controllers,
                .directory = directory,
                .mount = mount ? xstrdup(mount) : NULL,
        };
}

static struct cgroup *allocate(enum cgroup_mode mode)
{
        struct cgroup *cgroup = new0(struct cgroup);
        cgroup->ops = mode == CGROUP_MODE_V2 ? &cgroup_v2_ops : &cgroup_v1_ops;
        return cgroup;
}

static bool has_dot_dot(const char *path)
{
        auto_strv parts = str_split(path, '/');
        return strv_contains(parts, "..");
}

/* "/a//b/" -> "/a/b"; a relative path is put below the caller's group. */
static char *directory_of(const struct cgroup_place *place, const char *path)
{
        auto_free char *base = NULL;
        if (*path != '/') {
                base = xstrdup(place->own);
                if (place->controllers == 0) { /* version 2: beside the caller's group */
                        char *slash = strrchr(base, '/');
                        if (slash)
                                *slash = '\0';
                }
        }
        auto_buf text = { 0 };
        buf_puts(&text, place->mount);
        auto_free char *whole = xasprintf("%s/%s", base ? base : "", path);
        auto_strv parts = str_split(whole, '/');
        for (char **part = parts; *part; part++)
                if (**part && !streq(*part, "."))
                        buf_printf(&text, "/%s", *part);
        return buf_take(&text);
}

static int missing_controllers(uint32_t wanted, struct err *err)
{
        for (unsigned c = 0; c < CGROUP_CONTROLLERS; c++)
                if (wanted & CGROUP_BIT(c))
                        return err_plain(err, EOPNOTSUPP, "this host has no cgroup controller '%s'",
                                         cgroup_controller_names[c]);
        return 0;
}

int cgroup_prepare(const char *path, uint32_t controllers, struct cgroup **ret, struct err *err)
{
        struct cgroup_host host;
        uint32_t wanted = controllers | SUPERVISION;
        if (has_dot_dot(path) || str_empty(path) || streq(path, "/"))
                return err_plain(err, EINVAL, "cgroup path '%s' is not usable", path);
        int r = cgroup_host_read(&host, wanted, err);
        if (r < 0)
                return r;
        struct cgroup *cgroup = allocate(host.mode);
        uint32_t found = 0;
        for (size_t i = 0; i < host.length; i++) {
                const struct cgroup_place *place = &host.places[i];
                bool v2 = host.mode == CGROUP_MODE_V2 && place->controllers == 0;
                /* systemd moves its units' processes in this tree too. */
                bool beside = host.mode == CGROUP_MODE_HYBRID && place->controllers == 0 &&
                              (wanted & CGROUP_BIT(CGROUP_SYSTEMD));
                if (!v2 && !beside &&
                    (host.mode == CGROUP_MODE_V2 || !(place->controllers & wanted)))
                        continue;
                found |= place->controllers;
                cgroup_add_hierarchy(cgroup, place->controllers, directory_of(place, path),
                                     place->mount);
        }
        if (host.mode != CGROUP_MODE_V2)
                r = missing_controllers(controllers & ~found, err);
        else if (cgroup->length == 0)
                r = err_plain(err, ENOENT, "no cgroup version 2 tree is mounted");
        cgroup_host_finish(&host);
        if (r < 0) {
                cgroup_close(cgroup);
                return r;
        }
        *ret = cgroup;
        return 0;
}

int cgroup_open(char *const *paths, struct cgroup **ret, struct err *err)
{
        struct cgroup_host host;
        int r = cgroup_host_read(&host, CGROUP_ALL, err);
        if (r < 0)
                return r;
        bool v2 = paths && *paths && **paths == '=';
        struct cgroup *cgroup = allocate(v2 ? CGROUP_MODE_V2 : CGROUP_MODE_V1);
        for (; paths && *paths && cgroup->length < CGROUP_HIERARCHIES_MAX; paths++) {
                const char *directory = strchr(*paths, '=');
                if (!directory || directory[1] != '/') {
                        r = err_plain(err, EINVAL, "recorded cgroup '%s' is not understood",
                                      *paths);
                        break;
                }
                auto_free char *name = xstrndup(*paths, (size_t)(directory - *paths));
                for (size_t i = 0; i < host.length; i++) {
                        const struct cgroup_place *place = &host.places[i];
                        if (!str_starts(directory + 1, place->mount) ||
                            directory[1 + strlen(place->mount)] != '/' ||
                            (place->controllers == 0) != (*name == '\0'))
                                continue;
                        cgroup_add_hierarchy(cgroup, place->controllers, xstrdup(directory + 1),
                                             place->mount);
                        break;
                }
        }
        cgroup_host_finish(&host);
        if (r < 0) {
                cgroup_close(cgroup);
                return r;
        }
        *ret = cgroup;
        return 0;
}

void cgroup_close(struct cgroup *cgroup)
{
        if (!cgroup)
                return;
        for (size_t i = 0; i < cgroup->length; i++) {
                free(cgroup->hierarchies[i].directory);
                free(cgroup->hierarchies[i].mount);
        }
        strv_free(cgroup->paths);
        free(cgroup);
}

char *const *cgroup_paths(const struct cgroup *cgroup)
{
        return cgroup->paths;
}

int cgroup_has_members(struct cgroup *cgroup, bool *ret, struct err *err)
{
        pid_t *pids;
        size_t length;
        int r = cgroup_members(cgroup, &pids, &length, err);
        if (r < 0)
                return r;
        free(pids);
        *ret = length > 0;
        return 0;
}

int cgroup_create(struct cgroup *cgroup, bool *ret_existed, struct err *err)
{
        if (ret_existed) {
                int r = cgroup_has_members(cgroup, ret_existed, err);
                if (r < 0 || *ret_existed)
                        return r;
        }
        return cgroup->ops->create(cgroup, err);
}

int cgroup_apply(struct cgroup *cgroup, const struct cgroup_limits *limits, struct err *err)
{
        return cgroup->ops->apply(cgroup, limits, err);
}

static int append_below(struct cgroup_hierarchy *hierarchy, const char *path, struct err *err)
{
        auto_free char *directory = xasprintf("%s/%s", hierarchy->directory, path);
        if (access(directory, F_OK) < 0) /* runc's words */
                return err_plain(err, ENOENT,
                                 "adding pid of the new process to %s/cgroup.procs: no such file "
                                 "or directory",
                                 directory);
        free(hierarchy->directory);
        hierarchy->directory = take_ptr(directory);
        return 0;
}

static int check_below(const char *path, struct err *err)
{
        auto_strv parts = str_split(path, '/');
        if (strv_contains(parts, ".."))
                return err_plain(err, EINVAL, "bad cgroup: %s is not a sub cgroup path", path);
        return 0;
}

/* Not only systemd's, in which its units have no groups below. */
static bool has_controller(const struct cgroup *cgroup, size_t hierarchy)
{
        return cgroup->hierarchies[hierarchy].controllers & ~CGROUP_BIT(CGROUP_SYSTEMD);
}

int cgroup_descend(struct cgroup *cgroup, const char *where, struct err *err)
{
        const char *colon = strchr(where, ':');
        const char *path = colon ? colon + 1 : where;
        int r = check_below(path, err);
        if (r < 0)
                return r;
        if (!colon) {
                for (size_t i = 0; r == 0 && i < cgroup->length; i++)
                        if (cgroup->ops == &cgroup_v2_ops || has_controller(cgroup, i))
                                r = append_below(&cgroup->hierarchies[i], path, err);
                return r;
        }
        uint32_t wanted = 0;
        auto_free char *list = xstrndup(where, (size_t)(colon - where));
        auto_strv names = str_split(list, ',');
        for (char **name = names; r == 0 && *name; name++) {
                struct cgroup_hierarchy *hierarchy = NULL;
                for (int c = 0; c < CGROUP_CONTROLLERS && !hierarchy; c++)
                        if (streq(*name, cgroup_controller_names[c]))
                                hierarchy = cgroup_hierarchy(cgroup, (enum cgroup_controller)c);
                if (!hierarchy)
                        return err_plain(err, ENOENT, "unknown controller %s in '%s'", *name,
                                         where);
                /* Controllers that are mounted together go together. */
                if (!(wanted & hierarchy->controllers))
                        r = append_below(hierarchy, path, err);
                wanted |= hierarchy->controllers;
        }
        return r;
}

int cgroup_attach(struct cgroup *cgroup, pid_t pid, struct err *err)
{
        return cgroup->ops->attach(cgroup, pid, err);
}

int cgroup_door_open(struct cgroup *cgroup, struct cgroup_door *ret, struct err *err)
{
        struct cgroup_door door = { 0 };
        _Static_assert(ELEMENTS(door.fds) >= CGROUP_HIERARCHIES_MAX, "a descriptor each");
        for (size_t i = 0; cgroup->ops == &cgroup_v1_ops && i < cgroup->length; i++) {
                const struct cgroup_hierarchy *h = &cgroup->hierarchies[i];
                auto_free char *path = xasprintf("%s/%s", h->directory,
                                                 h->controllers ? "tasks" : "cgroup.procs");
                int fd = open(path, O_WRONLY | O_CLOEXEC);
                if (fd < 0) {
                        int error = errno;
                        cgroup_door_close(&door);
                        return err_set(err, error, "open '%s'", path);
                }
                door.fds[door.length++] = fd;
        }
        *ret = door;
        return 0;
}

int cgroup_door_enter(struct cgroup_door *door, struct err *err)
{
        for (size_t i = 0; i < door->length; i++)
                if (write(door->fds[i], "0", 1) < 0)
                        return err_set(err, errno, "join the cgroup");
        cgroup_door_close(door);
        return 0;
}

void cgroup_door_close(struct cgroup_door *door)
{
        for (size_t i = 0; i < door->length; i++)
                close(door->fds[i]);
        door->length = 0;
}

int cgroup_extend(struct cgroup *cgroup, uint32_t controllers, struct err *err)
{
        return cgroup->ops->extend(cgroup, controllers, err);
}

int cgroup_join(struct cgroup *cgroup, uint32_t controllers, struct err *err)
{
        return cgroup->ops->join(cgroup, controllers, err);
}

int cgroup_directory(struct cgroup *cgroup, int *ret_fd, struct err *err)
{
        if (cgroup->ops != &cgroup_v2_ops || cgroup->length == 0)
                return err_set(err, EOPNOTSUPP, "cgroup directory");
        const char *directory = cgroup->hierarchies[0].directory;
        int fd = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
                return err_set(err, errno, "open '%s'", directory);
        *ret_fd = fd;
        return 0;
}

int cgroup_freeze(struct cgroup *cgroup, struct err *err)
{
        return cgroup->ops->set_frozen(cgroup, true, err);
}

int cgroup_thaw(struct cgroup *cgroup, struct err *err)
{
        return cgroup->ops->set_frozen(cgroup, false, err);
}

void cgroup_thaw_process(pid_t pid)
{
        auto_free char *path = xasprintf("/proc/%d/cgroup", (int)pid);
        auto_free char *text = NULL;
        struct cgroup_host host = { 0 };
        if (file_read(AT_FDCWD, path, CGROUP_FILE_SIZE_MAX, &text, NULL, NULL) < 0)
                return;
        cgroup_host_parse(&host, text, "/sys/fs/cgroup");
        for (size_t i = 0; i < host.length; i++) {
                const struct cgroup_place *place = &host.places[i];
                auto_free char *directory = xasprintf("%s%s", place->mount, place->own);
                if (place->controllers & CGROUP_BIT(CGROUP_FREEZER))
                        (void)cgroup_put(directory, "freezer.state", "THAWED", NULL);
                else if (place->controllers == 0)
                        (void)cgroup_put(directory, "cgroup.freeze", "0", NULL);
        }
        cgroup_host_finish(&host);
}

int cgroup_is_frozen(struct cgroup *cgroup, struct err *err)
{
        return cgroup->ops->is_frozen(cgroup, err);
}

int cgroup_stats(struct cgroup *cgroup, struct cgroup_stats *ret, struct err *err)
{
        *ret = (struct cgroup_stats){ .memory_limit_bytes = UINT64_MAX,
                                      .swap_limit_bytes = UINT64_MAX,
                                      .pids_limit = UINT64_MAX };
        int r = cgroup->ops->stats(cgroup, ret, err);
        if (r < 0)
                cgroup_stats_finish(ret);
        return r;
}

void cgroup_stats_finish(struct cgroup_stats *stats)
{
        free(stats->cpu_each_ns);
        free(stats->io);
        strv_free(stats->memory_detail);
        *stats = (struct cgroup_stats){ 0 };
}

int cgroup_oom_kills(struct cgroup *cgroup, uint64_t *ret, struct err *err)
{
        return cgroup->ops->oom_kills(cgroup, ret, err);
}

int cgroup_oom_watch(struct cgroup *cgroup, int *ret_fd, struct err *err)
{
        return cgroup->ops->oom_watch(cgroup, ret_fd, err);
}

struct pid_list {
        pid_t *pids;
        size_t length, capacity;
};

/* Adds the pids of cgroup.procs in `directory` and below. */
static int collect(const char *directory, struct pid_list *list, unsigned depth, struct err *err)
{
        auto_free char *text = NULL;
        int r = cgroup_get(directory, "cgroup.procs", &text, NULL);
        if (r == -ENOENT || r == -ENODEV)
                return 0;
        if (r == -EOPNOTSUPP) /* a threaded group: its processes are listed above it */
                return 0;
        if (r < 0)
                return err_set(err, -r, "read '%s/cgroup.procs'", directory);
        for (char *cursor = text; *cursor;) {
                char *end;
                long pid = strtol(cursor, &end, 10);
                if (end == cursor)
                        break;
                if (list->length == list->capacity) {
                        list->capacity = list->capacity ? 2 * list->capacity : 16;
                        list->pids = xrealloc(list->pids, list->capacity, sizeof(pid_t));
                }
                if (pid > 0) /* 0: in a pid namespace we cannot see */
                        list->pids[list->length++] = (pid_t)pid;
                cursor = *end ? end + 1 : end;
        }
        auto_dir dir = opendir(directory);
        if (!dir || depth >= CGROUP_DEPTH_MAX)
                return 0;
        for (struct dirent *entry; (entry = readdir(dir));) {
                if (entry->d_type != DT_DIR || entry->d_name[0] == '.')
                        continue;
                auto_free char *below = xasprintf("%s/%s", directory, entry->d_name);
                r = collect(below, list, depth + 1, err);
                if (r < 0)
                        return r;
        }
        return 0;
}

int cgroup_members_at(const char *directory, pid_t **ret_pids, size_t *ret_length, struct err *err)
{
        struct pid_list list = { 0 };
        int r = collect(directory, &list, 0, err);
        if (r < 0) {
                free(list.pids);
                return r;
        }
        *ret_pids = list.pids;
        *ret_length = list.length;
        return 0;
}

int cgroup_members(struct cgroup *cgroup, pid_t **ret_pids, size_t *ret_length, struct err *err)
{
        *ret_pids = NULL;
        *ret_length = 0;
        if (!cgroup->length)
                return 0;
        /* Any hierarchy will do; the freezer is the one we kill by. */
        struct cgroup_hierarchy *from = cgroup_hierarchy(cgroup, CGROUP_FREEZER);
        return cgroup_members_at((from ? from : cgroup->hierarchies)->directory, ret_pids,
                                 ret_length, err);
}

static int signal_members(struct cgroup *cgroup, int signo, size_t *ret_length, struct err *err)
{
        auto_free pid_t *pids = NULL;
        int r = cgroup_members(cgroup, &pids, ret_length, err);
        if (r < 0)
                return r;
        for (size_t i = 0; i < *ret_length; i++)
                if (kill(pids[i], signo) < 0 && errno != ESRCH)
                        return err_set(err, errno, "signal process %d", pids[i]);
        return 0;
}

static void rest(long *ns)
{
        struct timespec pause = { .tv_nsec = *ns };
        nanosleep(&pause, NULL);
        *ns = *ns * 2 < RETRY_LAST_NS ? *ns * 2 : RETRY_LAST_NS;
}

/* Frozen members cannot fork while they are listed; killed frozen ones die when
 * thawed. Repeated, in case the group could not be frozen. */
static int kill_frozen(struct cgroup *cgroup, struct err *err)
{
        long pause_ns = RETRY_FIRST_NS;
        for (int round = 0; round < KILL_ROUNDS; round++) {
                size_t length;
                bool frozen = cgroup_freeze(cgroup, NULL) == 0;
                int r = signal_members(cgroup, SIGKILL, &length, err);
                int thawed = cgroup_thaw(cgroup, r == 0 ? err : NULL);
                if (r < 0 || thawed < 0)
                        return r < 0 ? r : thawed;
                if (frozen || length == 0)
                        return 0;
                rest(&pause_ns);
        }
        return err_plain(err, EBUSY, "cgroup members multiply faster than they are killed");
}

int cgroup_kill(struct cgroup *cgroup, int signo, struct err *err)
{
        if (cgroup->length == 0 || access(cgroup->hierarchies[0].directory, F_OK) < 0)
                return 0;
        size_t length;
        if (signo != SIGKILL)
                return signal_members(cgroup, signo, &length, err);
        /* Mostly there is nobody: freezing for that patches the kernel's code twice. */
        int r = signal_members(cgroup, SIGKILL, &length, err);
        if (r < 0 || length == 0)
                return r;
        r = cgroup->ops->kill_all(cgroup, NULL);
        return r == -EOPNOTSUPP ? kill_frozen(cgroup, err) : r;
}

static int remove_tree(const char *directory, unsigned depth)
{
        if (rmdir(directory) == 0 || errno == ENOENT)
                return 0;
        if (errno != EBUSY || depth >= CGROUP_DEPTH_MAX)
                return -errno;
        auto_dir dir = opendir(directory);
        if (!dir)
                return errno == ENOENT ? 0 : -errno;
        bool children = false;
        for (struct dirent *entry; (entry = readdir(dir));) {
                if (entry->d_type != DT_DIR || entry->d_name[0] == '.')
                        continue;
                auto_free char *below = xasprintf("%s/%s", directory, entry->d_name);
                int r = remove_tree(below, depth + 1);
                if (r < 0)
                        return r;
                children = true;
        }
        if (!children)
                return -EBUSY;
        return rmdir(directory) == 0 || errno == ENOENT ? 0 : -errno;
}

int cgroup_remove(struct cgroup *cgroup, int timeout_ms, struct err *err)
{
        int64_t deadline = clock_monotonic_ns() + timeout_ms * NS_PER_MS;
        for (size_t i = 0; i < cgroup->length; i++) {
                long pause_ns = RETRY_FIRST_NS;
                const char *directory = cgroup->hierarchies[i].directory;
                int r;
                while ((r = remove_tree(directory, 0)) == -EBUSY && clock_monotonic_ns() < deadline)
                        rest(&pause_ns);
                if (r < 0)
                        return err_set(err, -r, "remove cgroup '%s'", directory);
        }
        return 0;
}
