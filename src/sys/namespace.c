#include "sys/namespace.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/buf.h"
#include "base/file.h"
#include "base/str.h"
#include "sys/process.h"
#include "sys/spawn.h"

#define STACK_BYTES      (16 * 1024)
#define UID_MAP_SIZE_MAX ((size_t)1 << 16)

const struct namespace_info namespace_table[NAMESPACE_KINDS] = {
        [NAMESPACE_USER] = { "user", CLONE_NEWUSER },
        [NAMESPACE_PID] = { "pid", CLONE_NEWPID },
        [NAMESPACE_NETWORK] = { "net", CLONE_NEWNET },
        [NAMESPACE_MOUNT] = { "mnt", CLONE_NEWNS },
        [NAMESPACE_IPC] = { "ipc", CLONE_NEWIPC },
        [NAMESPACE_UTS] = { "uts", CLONE_NEWUTS },
        [NAMESPACE_CGROUP] = { "cgroup", CLONE_NEWCGROUP },
        [NAMESPACE_TIME] = { "time", CLONE_NEWTIME },
};

int namespace_open(const char *path, enum namespace_kind kind, int *ret_fd, struct err *err)
{
        auto_fd fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return err_set(err, errno, "open namespace '%s'", path);
        int type = ioctl(fd, NS_GET_NSTYPE);
        if (type < 0)
                return err_plain(err, EINVAL, "'%s' is not a namespace", path);
        if (type != namespace_table[kind].flag)
                return err_plain(err, EINVAL, "'%s' is not a %s namespace", path,
                                 namespace_table[kind].file);
        *ret_fd = take_fd(fd);
        return 0;
}

bool namespace_is_rootless(void)
{
        auto_free char *text = NULL;
        unsigned inside, outside, count;
        if (geteuid() != 0)
                return true;
        if (file_read(AT_FDCWD, "/proc/self/uid_map", UID_MAP_SIZE_MAX, &text, NULL, NULL) < 0 ||
            sscanf(text, "%u %u %u", &inside, &outside, &count) != 3)
                return false;
        return count != UINT32_MAX;
}

bool namespace_is_own(int fd, enum namespace_kind kind)
{
        char path[32];
        struct stat mine, other;
        snprintf(path, sizeof(path), "/proc/self/ns/%s", namespace_table[kind].file);
        return stat(path, &mine) == 0 && fstat(fd, &other) == 0 && mine.st_dev == other.st_dev &&
               mine.st_ino == other.st_ino;
}

int namespace_visit(int fd, enum namespace_kind kind, int (*visit)(void *arg, struct err *err),
                    void *arg, struct err *err)
{
        const struct namespace_info *info = &namespace_table[kind];
        char path[40];
        snprintf(path, sizeof(path), "/proc/thread-self/ns/%s", info->file);
        auto_fd home = open(path, O_RDONLY | O_CLOEXEC);
        if (home < 0)
                return err_set(err, errno, "open %s", path);
        if (setns(fd, info->flag) < 0)
                return err_set(err, errno, "enter the %s namespace", info->file);
        int r = visit(arg, err);
        if (setns(home, info->flag) < 0)
                abort();
        return r;
}

static int put(int proc_fd, pid_t pid, const char *name, const char *text, struct err *err)
{
        char path[48];
        snprintf(path, sizeof(path), "%d/%s", pid, name);
        return file_put(proc_fd, path, text, err);
}

static char *map_text(const struct namespace_map *map, size_t length)
{
        auto_buf text = { 0 };
        for (size_t i = 0; i < length; i++)
                buf_printf(&text, "%u %u %u\n", map[i].inside, map[i].outside, map[i].count);
        return buf_take(&text);
}

static bool maps_only(const struct namespace_map *map, size_t length, uint32_t id)
{
        return length == 1 && map[0].outside == id && map[0].count == 1;
}

/* newuidmap PID inside outside count … */
static int run_mapper(const char *program, pid_t pid, const struct namespace_map *map,
                      size_t length, struct err *err)
{
        auto_strv argv = NULL;
        strv_push(&argv, program);
        strv_push_take(&argv, xasprintf("%d", pid));
        for (size_t i = 0; i < length; i++) {
                strv_push_take(&argv, xasprintf("%u", map[i].inside));
                strv_push_take(&argv, xasprintf("%u", map[i].outside));
                strv_push_take(&argv, xasprintf("%u", map[i].count));
        }
        struct spawn_fd fds[] = { { 2, 2 } };
        struct spawn spawn = { .path = program, .argv = argv, .fds = fds, .fds_length = 1 };
        pid_t child;
        int r = spawn_process(&spawn, &child, NULL, err);
        if (r < 0)
                return r;
        int status;
        while (waitpid(child, &status, 0) < 0)
                if (errno != EINTR)
                        return err_set(err, errno, "wait for %s", program);
        if (process_exit_code(status) != 0)
                return err_plain(err, EPERM, "%s failed: see /etc/subuid and /etc/subgid", program);
        return 0;
}

int namespace_write_maps(int proc_fd, pid_t pid, const struct namespace_map *uids,
                         size_t uids_length, const struct namespace_map *gids, size_t gids_length,
                         struct err *err)
{
        bool privileged = geteuid() == 0;
        int r;
        if (!privileged && (!maps_only(uids, uids_length, geteuid()) ||
                            !maps_only(gids, gids_length, getegid()))) {
                r = uids_length ? run_mapper("newuidmap", pid, uids, uids_length, err) : 0;
                if (r == 0 && gids_length)
                        r = run_mapper("newgidmap", pid, gids, gids_length, err);
                return r;
        }
        auto_free char *uid_text = map_text(uids, uids_length);
        auto_free char *gid_text = map_text(gids, gids_length);
        if (*uid_text) {
                r = put(proc_fd, pid, "uid_map", uid_text, err);
                if (r < 0)
                        return err_wrap(err, "map user ids");
        }
        if (*gid_text) {
                if (!privileged) {
                        r = put(proc_fd, pid, "setgroups", "deny", err);
                        if (r < 0)
                                return err_wrap(err, "forbid setgroups");
                }
                r = put(proc_fd, pid, "gid_map", gid_text, err);
                if (r < 0)
                        return err_wrap(err, "map group ids");
        }
        return 0;
}

static int pause_forever(void *arg)
{
        (void)arg;
        for (;;)
                pause();
        return 0;
}

int namespace_user_create(const struct namespace_map *uids, size_t uids_length,
                          const struct namespace_map *gids, size_t gids_length, int *ret_fd,
                          struct err *err)
{
        char stack[STACK_BYTES] __attribute__((aligned(16)));
        auto_fd proc_fd = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (proc_fd < 0)
                return err_set(err, errno, "open /proc");
        pid_t pid = clone(pause_forever, stack + sizeof(stack), CLONE_VM | CLONE_NEWUSER | SIGCHLD,
                          NULL);
        if (pid < 0)
                return err_set(err, errno, "create a user namespace");
        int fd = -1;
        int r = namespace_write_maps(proc_fd, pid, uids, uids_length, gids, gids_length, err);
        if (r == 0) {
                char path[32];
                snprintf(path, sizeof(path), "%d/ns/user", pid);
                fd = openat(proc_fd, path, O_RDONLY | O_CLOEXEC);
                if (fd < 0)
                        r = err_set(err, errno, "open the user namespace");
        }
        kill(pid, SIGKILL);
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
                ;
        if (r == 0)
                *ret_fd = fd;
        return r;
}
