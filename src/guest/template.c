/* A template is what a guest's memory holds when the agent is ready; isle-vmm shares its pages
 * between machines (vmm/share.h). It comes from a machine that boots for nothing else: it runs
 * nobody's program and sees nobody's files. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/message.h"
#include "base/auto.h"
#include "base/str.h"
#include "guest/cache.h"
#include "guest/guest.h"
#include "sys/process.h"
#include "sys/spawn.h"

#define SUFFIX          ".template"
#define BOOT_TIMEOUT_MS 30000
#define MEMORY          "1024m" /* of most machines: then what describes it is the same, too */

/* Its exit status, or -errno. */
static int wait_for(pid_t pid, int pidfd)
{
        struct pollfd entry = { pidfd, POLLIN, 0 };
        int status, r;
        do
                r = poll(&entry, 1, BOOT_TIMEOUT_MS);
        while (r < 0 && errno == EINTR);
        if (r <= 0)
                kill(pid, SIGKILL);
        while (waitpid(pid, &status, 0) < 0)
                if (errno != EINTR)
                        return -errno;
        return process_exit_code(status);
}

static int boot(const struct guest_parts *parts, int fd, struct err *err)
{
        const char *cpu = getenv("ISLE_VM_CPU");
        auto_free char *file = xasprintf("/proc/self/fd/%d", fd);
        auto_free char *share = xasprintf(AGENT_SHARE_TAG "=%s,ro", GUEST_CACHE);
        const char *const argv[] = { "isle-vmm",
                                     "--no-reboot",
                                     "--kernel",
                                     parts->kernel,
                                     "--initrd",
                                     parts->initramfs,
                                     "--memory",
                                     MEMORY,
                                     "--cmdline",
                                     GUEST_KERNEL_ARGUMENTS " " AGENT_ONLY_BOOT,
                                     "--memory-file",
                                     file,
                                     "--fs",
                                     share,
                                     "--cpu",
                                     str_empty(cpu) ? "auto" : cpu,
                                     NULL };
        auto_fd null = open("/dev/null", O_RDWR | O_CLOEXEC), pidfd = -1;
        if (null < 0)
                return err_set(err, errno, "open /dev/null");
        const struct spawn_fd fds[] = { { null, 0 }, { null, 1 }, { null, 2 }, { fd, fd } };
        const struct spawn spawn = { .path = parts->vmm,
                                     .argv = (char *const *)(uintptr_t)argv,
                                     .fds = fds,
                                     .fds_length = ELEMENTS(fds),
                                     .new_session = true,
                                     .death_signal = SIGKILL };
        pid_t pid;
        int r = spawn_process(&spawn, &pid, &pidfd, err);
        if (r == 0)
                r = wait_for(pid, pidfd);
        return r > 0 ? err_plain(err, EIO, "isle-vmm ended with status %d", r) : r;
}

/* The file has no name before it is whole: who is killed leaves nothing. A kernel that does not
 * get as far gets an empty one, so that not every start waits for that. */
static int make(const struct guest_parts *parts, const char *path, struct err *err)
{
        auto_fd fd = open(GUEST_CACHE, O_TMPFILE | O_RDWR | O_CLOEXEC, 0644);
        if (fd < 0)
                return err_set(err, errno, "make a file in " GUEST_CACHE);
        struct err why = { 0 };
        cache_remove_unused(GUEST_CACHE, SUFFIX);
        if (boot(parts, fd, &why) < 0 && ftruncate(fd, 0) < 0)
                return err_set(err, errno, "empty the template");
        auto_free char *source = xasprintf("/proc/self/fd/%d", fd);
        if (fchmod(fd, 0444) < 0 || linkat(AT_FDCWD, source, AT_FDCWD, path, AT_SYMLINK_FOLLOW) < 0)
                return err_set(err, errno, "name the template");
        return 0;
}

int template_ensure(const struct guest_parts *parts, char **ret_path, struct err *err)
{
        auto_free char *path = xasprintf("%s" SUFFIX, parts->initramfs);
        struct stat st;
        auto_fd fd = cache_use(AT_FDCWD, path);
        if (fd < 0) {
                auto_fd lock = open(GUEST_CACHE "/lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
                if (lock < 0 || flock(lock, LOCK_EX) < 0)
                        return err_set(err, errno, "lock " GUEST_CACHE);
                fd = cache_use(AT_FDCWD, path);
                int r = fd < 0 ? make(parts, path, err) : 0;
                if (r < 0)
                        return r;
                if (fd < 0)
                        fd = cache_use(AT_FDCWD, path);
        }
        if (fd < 0 || fstat(fd, &st) < 0)
                return err_set(err, errno, "template of memory");
        if (st.st_size > 0)
                *ret_path = take_ptr(path);
        return 0;
}
