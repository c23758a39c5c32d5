#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent/agent.h"
#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"

#define CGROUPS  "/sys/fs/cgroup"
#define TEXT_MAX 4096
#define REPORTED "/sys/module/page_reporting/parameters/page_reporting_order"
/* Free pages go back to the host by blocks of 32 KiB; of itself the kernel reports 2 MiB and
 * more, and what its own start leaves behind is in smaller pieces. */
#define REPORTED_ORDER "3"

static const struct {
        const char *type, *target, *data;
        unsigned long flags;
} mounts[] = {
        { "proc", "/proc", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC },
        { "sysfs", "/sys", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC },
        { "devtmpfs", "/dev", "mode=755", MS_NOSUID },
        { "devpts", "/dev/pts", "mode=620,gid=5,ptmxmode=666", MS_NOSUID | MS_NOEXEC },
        { "tmpfs", "/run", "mode=755", MS_NOSUID | MS_NODEV },
        { "cgroup2", CGROUPS, NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC },
};

static int mount_all(struct err *err)
{
        for (size_t i = 0; i < ELEMENTS(mounts); i++) {
                int r = file_make_dirs(AT_FDCWD, mounts[i].target, 0755, err);
                if (r < 0)
                        return r;
                if (mount(mounts[i].type, mounts[i].target, mounts[i].type, mounts[i].flags,
                          mounts[i].data) < 0 &&
                    errno != EBUSY) /* the kernel may have mounted /dev */
                        return err_set(err, errno, "mount %s at %s", mounts[i].type,
                                       mounts[i].target);
        }
        return 0;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
        return strcmp((*a)->d_name, (*b)->d_name);
}

static int not_hidden(const struct dirent *entry)
{
        return entry->d_name[0] != '.';
}

static int load_module(int dirfd, const char *name, struct err *err)
{
        auto_fd fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return err_set(err, errno, "open module %s", name);
        if (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST)
                return err_set(err, errno, "load module %s", name);
        return 0;
}

/* Their names begin with their turn. */
int agent_load_modules(const char *directory, struct err *err)
{
        struct dirent **entries;
        auto_fd dirfd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        int length = scandir(directory, &entries, not_hidden, by_name);
        int r = 0;
        if (length < 0) /* a kernel that has all built in */
                return errno == ENOENT ? 0 : err_set(err, errno, "read %s", directory);
        for (int i = 0; i < length; i++) {
                if (r == 0)
                        r = load_module(dirfd, entries[i]->d_name, err);
                free(entries[i]);
        }
        free(entries);
        return r;
}

/* What the groups of containers shall be able to limit. */
static int enable_controllers(struct err *err)
{
        auto_free char *text = NULL;
        int r = file_read(AT_FDCWD, CGROUPS "/cgroup.controllers", TEXT_MAX, &text, NULL, err);
        if (r < 0)
                return r;
        text[strcspn(text, "\n")] = '\0';
        auto_strv names = str_split(text, ' ');
        for (char **name = names; *name; name++) {
                auto_free char *wish = xasprintf("+%s", *name);
                if (**name)
                        (void)file_put(AT_FDCWD, CGROUPS "/cgroup.subtree_control", wish, NULL);
        }
        return 0;
}

static int mount_share(struct err *err)
{
        int r = file_make_dirs(AT_FDCWD, AGENT_SHARE, 0700, err);
        if (r == 0 && mount(AGENT_SHARE_TAG, AGENT_SHARE, "virtiofs", MS_NODEV, NULL) < 0)
                r = err_set(err, errno, "mount the host's share");
        return r;
}

char **agent_command_line(void)
{
        auto_free char *text = NULL;
        if (file_read(AT_FDCWD, "/proc/cmdline", TEXT_MAX, &text, NULL, NULL) < 0)
                return NULL;
        text[strcspn(text, "\n")] = '\0';
        return str_split(text, ' ');
}

bool agent_only_boots(void)
{
        auto_strv words = agent_command_line();
        return strv_contains(words, AGENT_ONLY_BOOT);
}

int agent_setup(struct err *err)
{
        int r = mount_all(err);
        if (r == 0)
                r = agent_load_modules(AGENT_MODULES, err);
        if (r == 0)
                r = enable_controllers(err);
        (void)file_put(AT_FDCWD, REPORTED, REPORTED_ORDER, NULL); /* not all kernels can */
        if (r == 0)
                r = mount_share(err);
        return r == 0 ? agent_mount_layers(err) : r;
}
