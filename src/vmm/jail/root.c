#include "vmm/jail/jail.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/str.h"
#include "sys/mounts.h"
#include "vmm/jail/thread.h"

#define FDS         4096 /* vsock connections, clients of the control socket, devices */
#define INERT       (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC)
#define PROC_FD_DIR "proc/self/fd"

int jail_detach_directory(const char *path, bool read_only, int *ret_fd, struct err *err)
{
        struct mount_change change = { .set = INERT | MOUNT_ATTR_NOSYMFOLLOW,
                                       .propagation = MS_PRIVATE,
                                       .recursive = true };
        if (read_only)
                change.set |= MOUNT_ATTR_RDONLY;
        int fd = -1;
        struct stat st;
        int r = mount_clone(AT_FDCWD, path, true, &fd, err);
        if (r == 0 && (fstat(fd, &st) < 0 || !S_ISDIR(st.st_mode)))
                r = err_set(err, ENOTDIR, "bind");
        if (r == 0)
                r = mount_set_attributes(fd, &change, err);
        if (r < 0) {
                close_fd(&fd);
                return err_wrap(err, "directory '%s'", path);
        }
        *ret_fd = fd;
        return 0;
}

/* ---- entering ---- */

static int limit(int resource, rlim_t value, const char *name, struct err *err)
{
        struct rlimit now;
        if (getrlimit(resource, &now) < 0)
                return err_set(err, errno, "limit of %s", name);
        if (now.rlim_max != RLIM_INFINITY && now.rlim_max < value)
                value = now.rlim_max;
        struct rlimit wanted = { value, value };
        return setrlimit(resource, &wanted) < 0 ? err_set(err, errno, "limit of %s", name) : 0;
}

int jail_enter(const struct jail_needs *needs, struct err *err)
{
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
                return err_set(err, errno, "no_new_privs");
        /* Nobody of the same user reads the guest's memory, and none of it is dumped. */
        if (prctl(PR_SET_DUMPABLE, 0) < 0)
                return err_set(err, errno, "PR_SET_DUMPABLE");
        static const struct {
                int resource;
                const char *name;
        } none[] = {
                { RLIMIT_CORE, "core files" },           { RLIMIT_MSGQUEUE, "message queues" },
                { RLIMIT_MEMLOCK, "locked memory" },     { RLIMIT_NICE, "nice levels" },
                { RLIMIT_RTPRIO, "real-time priority" },
        };
        int r = 0;
        for (size_t i = 0; r == 0 && i < ELEMENTS(none); i++)
                r = limit(none[i].resource, 0, none[i].name, err);
        if (r == 0 && !needs->files) /* what a share may hold is bounded by its server */
                r = limit(RLIMIT_NOFILE, FDS, "descriptors", err);
        return r < 0 ? r : jail_prepare(err);
}

/* ---- sealing ---- */

/* A directory of the new root with a mount on it. */
static int furnish(int root_fd, const char *name, int mount, struct err *err)
{
        auto_free char *path = xstrdup(name);
        for (char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
                *slash = '\0';
                if (mkdirat(root_fd, path, 0555) < 0 && errno != EEXIST)
                        return err_set(err, errno, "make '%s'", path);
                *slash = '/';
        }
        if (mkdirat(root_fd, path, 0555) < 0)
                return err_set(err, errno, "make '%s'", path);
        auto_fd target = openat(root_fd, path, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (target < 0)
                return err_set(err, errno, "open '%s'", path);
        return mount_attach(mount, target, err);
}

static int furnish_all(const struct jail_needs *needs, int root_fd, int fds, int vsock,
                       struct err *err)
{
        int r = 0;
        if (needs->files)
                r = furnish(root_fd, PROC_FD_DIR, fds, err);
        if (r == 0 && needs->vsock_dir)
                r = furnish(root_fd, &JAIL_VSOCK[1], vsock, err);
        return r;
}

static int pivot(int root_fd, struct err *err)
{
        if (fchdir(root_fd) < 0 || syscall(SYS_pivot_root, ".", ".") < 0)
                return err_set(err, errno, "pivot_root");
        if (umount2(".", MNT_DETACH) < 0)
                return err_set(err, errno, "unmount the host's root");
        return chdir("/") < 0 ? err_set(err, errno, "change to the root") : 0;
}

static int empty_root(const struct jail_needs *needs, struct err *err)
{
        auto_strv options = str_split("size=64k,nr_inodes=16,mode=0555", ',');
        const struct mount_change read_only = { .set = MOUNT_ATTR_RDONLY };
        auto_fd root_fd = -1, fds = -1, vsock = -1;
        int r = 0;
        /* The new root hides /proc: what is taken from there is taken first. Of a whole
         * /proc, a descriptor's ".." would lead to every process. */
        if (needs->files)
                r = mount_clone(AT_FDCWD, "/proc/self/fd", false, &fds, err);
        if (r == 0 && needs->vsock_dir)
                r = jail_detach_directory(needs->vsock_dir, true, &vsock, err);
        if (r == 0)
                r = mount_create("tmpfs", NULL, options, INERT, &root_fd, err);
        if (r < 0)
                return r;
        if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
                return err_set(err, errno, "make mounts private");
        if (move_mount(root_fd, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH) < 0)
                return err_set(err, errno, "attach the root");
        r = furnish_all(needs, root_fd, fds, vsock, err);
        if (r == 0)
                r = mount_set_attributes(root_fd, &read_only, err);
        return r < 0 ? r : pivot(root_fd, err);
}

int jail_seal(const struct jail_needs *needs, struct err *err)
{
        static const char name[] = "isle-vmm";
        int r = empty_root(needs, err);
        if (r == 0 && sethostname(name, strlen(name)) < 0)
                r = err_set(err, errno, "host name");
        if (r == 0) /* all threads are there */
                r = limit(RLIMIT_NPROC, 0, "processes", err);
        if (r == 0)
                jail_thread(JAIL_MAIN);
        return r < 0 ? err_wrap(err, "jail") : 0;
}
