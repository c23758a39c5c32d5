#include "sys/mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/str.h"

#define LOG_LINE_SIZE 256

/* The kernel explains a refused option in the context's log: "e message". */
static int context_failed(int context, int error, struct err *err, const char *what)
{
        char line[LOG_LINE_SIZE];
        ssize_t n = read(context, line, sizeof(line) - 1);
        if (n > 2) {
                line[n] = '\0';
                line[strcspn(line, "\n")] = '\0';
                return err_set(err, error, "%s: %s", what, line + 2);
        }
        return err_set(err, error, "%s", what);
}

static int configure(int context, const char *option, struct err *err)
{
        const char *equals = strchr(option, '=');
        if (!equals) {
                if (fsconfig(context, FSCONFIG_SET_FLAG, option, NULL, 0) < 0)
                        return context_failed(context, errno, err, option);
                return 0;
        }
        auto_free char *key = xstrndup(option, (size_t)(equals - option));
        if (fsconfig(context, FSCONFIG_SET_STRING, key, equals + 1, 0) < 0)
                return context_failed(context, errno, err, option);
        return 0;
}

int mount_create(const char *type, const char *source, char *const *options, uint64_t attributes,
                 int *ret_fd, struct err *err)
{
        return mount_create_with(type, source, options, NULL, 0, attributes, ret_fd, err);
}

int mount_create_with(const char *type, const char *source, char *const *options,
                      const struct mount_fd *fds, size_t fds_length, uint64_t attributes,
                      int *ret_fd, struct err *err)
{
        auto_fd context = fsopen(type, FSOPEN_CLOEXEC);
        if (context < 0)
                return err_set(err, errno, "file system type '%s'", type);
        if (source && fsconfig(context, FSCONFIG_SET_STRING, "source", source, 0) < 0)
                return context_failed(context, errno, err, source);
        for (; options && *options; options++) {
                int r = configure(context, *options, err);
                if (r < 0)
                        return r;
        }
        for (size_t i = 0; i < fds_length; i++)
                if (fsconfig(context, FSCONFIG_SET_FD, fds[i].key, NULL, fds[i].fd) < 0)
                        return context_failed(context, errno, err, fds[i].key);
        if (fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
                return context_failed(context, errno, err, type);
        int fd = fsmount(context, FSMOUNT_CLOEXEC, (unsigned)attributes);
        if (fd < 0)
                return context_failed(context, errno, err, type);
        *ret_fd = fd;
        return 0;
}

int mount_clone(int dirfd, const char *path, bool recursive, int *ret_fd, struct err *err)
{
        unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC;
        if (recursive)
                flags |= AT_RECURSIVE;
        if (!*path)
                flags |= AT_EMPTY_PATH;
        int fd = open_tree(dirfd, path, flags);
        if (fd < 0)
                return err_set(err, errno, "bind '%s'", path);
        *ret_fd = fd;
        return 0;
}

int mount_set_attributes(int mount_fd, const struct mount_change *change, struct err *err)
{
        struct mount_attr attr = {
                .attr_set = change->set,
                .attr_clr = change->clear,
                .propagation = change->propagation,
                .userns_fd = change->set & MOUNT_ATTR_IDMAP ? (uint64_t)change->userns_fd : 0,
        };
        unsigned flags = AT_EMPTY_PATH;
        if (change->recursive)
                flags |= AT_RECURSIVE;
        if (mount_setattr(mount_fd, "", flags, &attr, sizeof(attr)) < 0)
                return err_set(err, errno, "set mount attributes");
        return 0;
}

int mount_attach(int mount_fd, int target_fd, struct err *err)
{
        if (move_mount(mount_fd, "", target_fd, "",
                       MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
                return err_set(err, errno, "attach mount");
        return 0;
}
