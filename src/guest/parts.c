#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/str.h"
#include "guest/guest.h"

#define SELF_VARIABLE "ISLE_RUNTIME_PATH"
#define KERNEL_PREFIX "vmlinuz-"
#define OWN_KERNEL    "isle-guest-kernel"
#define KERNEL_ADVICE                                                                              \
        "install linux-image-cloud-amd64, or name a kernel with the environment's ISLE_VM_KERNEL"

/* Debian's cloud kernel has what a guest needs and nothing else; of several, the newest. */
static bool is_better(const char *name, const char *than)
{
        if (!than)
                return true;
        bool cloud = strstr(name, "-cloud-"), than_cloud = strstr(than, "-cloud-");
        return cloud != than_cloud ? cloud : strverscmp(name, than) > 0;
}

/* `make guest-kernel` puts it beside the runtime. */
static char *own_kernel(const char *self)
{
        const char *slash = strrchr(self, '/');
        char *path = xasprintf("%.*s/" OWN_KERNEL, (int)(slash - self), self);
        if (access(path, R_OK) == 0)
                return path;
        free(path);
        return NULL;
}

static int find_kernel(const char *self, char **ret, struct err *err)
{
        char *own;
        const char *named = getenv("ISLE_VM_KERNEL");
        if (!str_empty(named)) {
                if (access(named, R_OK) < 0)
                        return err_set(err, errno, "ISLE_VM_KERNEL: %s", named);
                *ret = xstrdup(named);
                return 0;
        }
        own = own_kernel(self);
        if (own) {
                *ret = own;
                return 0;
        }
        auto_dir dir = opendir("/boot");
        auto_free char *best = NULL;
        for (struct dirent *entry; dir && (entry = readdir(dir));) {
                if (!str_starts(entry->d_name, KERNEL_PREFIX) || !is_better(entry->d_name, best))
                        continue;
                free(best);
                best = xstrdup(entry->d_name);
        }
        if (!best)
                return err_plain(err, ENOENT, "no kernel for the guest in /boot: " KERNEL_ADVICE);
        *ret = xasprintf("/boot/%s", best);
        return 0;
}

/* Beside the runtime, where both are built and installed. */
static int find_beside(const char *self, const char *name, char **ret, struct err *err)
{
        const char *slash = strrchr(self, '/');
        auto_free char *path = xasprintf("%.*s/%s", (int)(slash - self), self, name);
        if (access(path, X_OK) < 0)
                return err_set(err, errno, "%s, which runs containers in virtual machines", path);
        *ret = take_ptr(path);
        return 0;
}

int guest_parts_find(struct guest_parts *ret, struct err *err)
{
        char self[PATH_MAX];
        auto_free char *agent = NULL;
        *ret = (struct guest_parts){ 0 };
        ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
        if (n < 0)
                return err_set(err, errno, "find this program");
        self[n] = '\0';
        /* exe_guard may start the program anew, from a copy without a name. */
        const char *before = getenv(SELF_VARIABLE);
        if (str_starts(self, "/memfd:") && !str_empty(before))
                snprintf(self, sizeof(self), "%s", before);
        else if (setenv(SELF_VARIABLE, self, 1) < 0)
                return err_set(err, errno, "set " SELF_VARIABLE);
        ret->runtime = xstrdup(self);
        int r = find_beside(self, "isle-vmm", &ret->vmm, err);
        if (r == 0)
                r = find_beside(self, "isle-agent", &agent, err);
        if (r == 0)
                r = find_kernel(self, &ret->kernel, err);
        if (r == 0)
                r = initramfs_ensure(ret->kernel, agent, ret->runtime, &ret->initramfs, err);
        if (r == 0)
                r = template_ensure(ret, &ret->template, err);
        if (r < 0)
                guest_parts_finish(ret);
        return r;
}

void guest_parts_finish(struct guest_parts *parts)
{
        free(parts->kernel);
        free(parts->initramfs);
        free(parts->template);
        free(parts->vmm);
        free(parts->runtime);
        root_finish(&parts->root);
        *parts = (struct guest_parts){ 0 };
}
