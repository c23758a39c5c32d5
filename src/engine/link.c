#include "engine/link.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/file.h"
#include "monitor/options.h"
#include "sys/process.h"
#include "sys/spawn.h"

int link_spawn(char *const *argv, const char *dir, int lock_fd, int rootfs_fd,
               struct link_process *ret, struct err *err)
{
        int pair[2];
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
                return err_set(err, errno, "make a socket pair");
        auto_fd ours = pair[0], theirs = pair[1];
        struct spawn_fd fds[] = {
                { theirs, MONITOR_FD_CONTROL },
                { lock_fd, MONITOR_FD_LOCK },
                { rootfs_fd, MONITOR_FD_ROOTFS },
        };
        struct spawn spawn = {
                .path = argv[0],
                .argv = argv,
                .cwd = dir,
                .fds = fds,
                .fds_length = rootfs_fd >= 0 ? 3 : 2,
                .new_session = true,
        };
        pid_t pid;
        int pidfd;
        int r = spawn_process(&spawn, &pid, &pidfd, err);
        if (r < 0)
                return r;
        *ret = (struct link_process){ .control_fd = take_fd(ours), .pidfd = pidfd, .pid = pid };
        return 0;
}

/* Once: the monitor is of no more use. */
static void tell_gone(struct link *link)
{
        if (link->told_gone)
                return;
        link->told_gone = true;
        loop_source_destroy(link->io);
        link->io = NULL;
        close_fd(&link->fd);
        link->events->gone(link->arg);
}

static void link_ready(void *arg, uint32_t events)
{
        struct link *link = arg;
        static char packet[MONITOR_MESSAGE_MAX]; /* loop thread only */
        (void)events;
        int destroyed = 0;
        link->destroyed = &destroyed;
        for (;;) {
                struct monitor_message message;
                auto_fd fd = -1;
                int r = monitor_receive(link->fd, packet, &message, &fd);
                if (r == -EAGAIN)
                        break;
                if (r <= 0) {
                        link->destroyed = NULL;
                        tell_gone(link);
                        return;
                }
                if (message.kind == MONITOR_STATE)
                        link->events->state(link->arg, &message);
                else if (message.kind == MONITOR_DETACHED)
                        link->events->detached(link->arg);
                if (destroyed)
                        return;
        }
        link->destroyed = NULL;
}

static void link_exited(void *arg, int status)
{
        struct link *link = arg;
        (void)status;
        link->process = NULL;
        /* What it said last may still be in the socket; its end follows there. */
        if (link->fd < 0)
                tell_gone(link);
        else
                link_ready(link, 0);
}

int link_open(struct link *link, struct engine *engine, const struct link_process *process,
              const struct link_events *events, void *arg, struct err *err)
{
        *link = (struct link){ .engine = engine,
                               .fd = process->control_fd,
                               .pid = process->pid,
                               .events = events,
                               .arg = arg };
        int r = child_watch(engine, process->pidfd, true, link_exited, link, &link->process, err);
        if (r == 0)
                r = loop_io(engine->loop, link->fd, EPOLLIN, link_ready, link, &link->io, err);
        if (r < 0)
                link_close(link);
        return r;
}

int link_connect(struct link *link, struct engine *engine, const char *dir,
                 const struct link_events *events, void *arg, struct err *err)
{
        *link = (struct link){ .engine = engine, .fd = -1, .events = events, .arg = arg };
        auto_fd dir_fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
        auto_fd fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (dir_fd < 0 || fd < 0)
                return err_set(err, errno, "open '%s'", dir);
        /* The directory's own path may be longer than a socket address. */
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s", dir_fd,
                 MONITOR_SOCKET_NAME);
        if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
                return err_set(err, errno, "connect to the monitor in '%s'", dir);
        struct ucred peer;
        socklen_t size = sizeof(peer);
        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
                return err_set(err, errno, "ask who the monitor in '%s' is", dir);
        /* The listener's credentials: of the monitor that made the socket. */
        link->pid = peer.pid;
        int pidfd;
        int r = process_open(peer.pid, 0, &pidfd, err);
        if (r < 0)
                return r;
        link->fd = take_fd(fd);
        r = child_watch(engine, pidfd, false, link_exited, link, &link->process, err);
        if (r == 0)
                r = loop_io(engine->loop, link->fd, EPOLLIN, link_ready, link, &link->io, err);
        if (r < 0)
                link_close(link);
        return r;
}

int link_send(struct link *link, const struct monitor_message *message, int fd)
{
        return link->fd < 0 ? -ENOTCONN : monitor_send(link->fd, message, fd);
}

void link_drain(struct link *link)
{
        if (link->fd >= 0 && !link->destroyed)
                link_ready(link, 0);
}

void link_kill(struct link *link)
{
        /* The monitor leads its session, so its pid cannot be reused while it is our
         * unreaped child or answers on the connection. */
        if (link->process && link->pid > 1) {
                kill(-link->pid, SIGKILL);
                child_signal(link->process, SIGKILL);
        }
}

void link_close(struct link *link)
{
        if (link->destroyed)
                *link->destroyed = 1;
        loop_source_destroy(link->io);
        child_forget(link->process);
        close_fd(&link->fd);
        link->io = NULL;
        link->process = NULL;
        link->destroyed = NULL;
}

int link_lock(const char *dir, int *ret_fd, struct err *err)
{
        auto_free char *path = xasprintf("%s/%s", dir, MONITOR_LOCK_NAME);
        auto_fd fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
                return err_set(err, errno, "open '%s'", path);
        if (flock(fd, LOCK_EX | LOCK_NB) < 0)
                return errno == EWOULDBLOCK ? 0 : err_set(err, errno, "lock '%s'", path);
        *ret_fd = take_fd(fd);
        return 1;
}

pid_t link_lock_pid(const char *dir)
{
        auto_free char *path = xasprintf("%s/%s", dir, MONITOR_LOCK_NAME);
        auto_free char *text = NULL;
        uint32_t pid;
        if (file_read(AT_FDCWD, path, 64, &text, NULL, NULL) < 0)
                return 0;
        text[strcspn(text, " \n")] = '\0';
        return str_to_u32(text, &pid) == 0 && pid <= INT32_MAX ? (pid_t)pid : 0;
}
