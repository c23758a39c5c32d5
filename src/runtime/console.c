#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/auto.h"
#include "runtime/container.h"
#include "runtime/setup.h"
#include "sys/mounts.h"
#include "sys/pty.h"
#include "sys/resolve.h"

int console_open_pts(int root_fd, int *ret_dirfd, struct err *err)
{
        auto_fd dirfd = -1;
        int r = resolve_open(root_fd, "/dev/pts", O_PATH | O_DIRECTORY, 0, &dirfd, err);
        if (r < 0)
                return r;
        if (!resolve_is_on(dirfd, DEVPTS_SUPER_MAGIC))
                return err_plain(err, EINVAL, "a terminal needs a devpts mounted on /dev/pts");
        *ret_dirfd = take_fd(dirfd);
        return 0;
}

static int bind_console(int root_fd, int slave, struct err *err)
{
        auto_fd source = -1, target = -1;
        int r = mount_clone(slave, "", false, &source, err);
        if (r == 0)
                r = resolve_make_file(root_fd, "/dev/console", 0600, &target, err);
        if (r == 0)
                r = mount_attach(source, target, err);
        return r < 0 ? err_wrap(err, "/dev/console") : 0;
}

int console_create(int pts_dirfd, int root_fd, int socket_fd, bool foreground,
                   const struct oci_process *process, struct err *err)
{
        static const char name[] = "/dev/ptmx";
        auto_fd master = -1, slave = -1;
        int r = pty_open(pts_dirfd, "ptmx", &master, &slave, err);
        if (r == 0 && process->console_size)
                r = pty_resize(master, process->console_size->height, process->console_size->width,
                               err);
        if (r == 0 && foreground)
                foreground_adopt(master);
        if (r == 0 && root_fd >= 0)
                r = bind_console(root_fd, slave, err);
        if (r == 0)
                r = pty_send_fd(socket_fd, master, name, strlen(name), err);
        if (r < 0)
                return r;
        (void)!fchown(slave, process->user.uid, (gid_t)-1);
        for (int fd = 0; fd < 3; fd++)
                if (dup3(slave, fd, 0) < 0)
                        return err_set(err, errno, "terminal as standard descriptor");
        if (ioctl(0, TIOCSCTTY, 0) < 0)
                return err_set(err, errno, "take the terminal");
        return 0;
}
