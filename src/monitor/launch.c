#include "monitor/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "base/auto.h"
#include "base/buf.h"
#include "base/file.h"
#include "base/str.h"
#include "monitor/protocol.h"
#include "sys/mounts.h"
#include "sys/spawn.h"

#define RUNTIME_LOG_MAX_BYTES (256u << 10)

static int spawn_in_place(const struct monitor_options *options, char *const *argv,
                          const struct launch_stdio *stdio, pid_t *ret_pid, struct err *err)
{
        struct spawn_fd fds[3];
        size_t length = 0;
        const int wanted[3] = { stdio->in, stdio->out, stdio->err };
        for (int to = 0; to < 3; to++)
                if (wanted[to] >= 0)
                        fds[length++] = (struct spawn_fd){ wanted[to], to };
        struct spawn spawn = {
                .path = options->runtime,
                .argv = argv,
                .fds = fds,
                .fds_length = length,
        };
        return spawn_process(&spawn, ret_pid, NULL, err);
}

/* Makes the namespace in which ./rootfs is the root file system. */
static int enter_with_rootfs(int rootfs_fd, struct err *err)
{
        if (unshare(CLONE_NEWNS) < 0)
                return err_set(err, errno, "make a mount namespace");
        /* Mounts of the host may come in later, ours never get out. */
        if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
                return err_set(err, errno, "make the mounts private");
        if (mkdir(MONITOR_ROOTFS_NAME, 0755) < 0 && errno != EEXIST)
                return err_set(err, errno, "make the mount point of the root file system");
        auto_fd target = open(MONITOR_ROOTFS_NAME, O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        if (target < 0)
                return err_set(err, errno, "open the mount point of the root file system");
        return mount_attach(rootfs_fd, target, err);
}

int launch_runtime(const struct monitor_options *o, const struct launch_stdio *stdio, int rootfs_fd,
                   pid_t *ret_pid, struct err *err)
{
        const char *argv[24];
        size_t n = 0;
        argv[n++] = o->runtime;
        argv[n++] = "--root";
        argv[n++] = o->runtime_root;
        argv[n++] = "--log";
        argv[n++] = MONITOR_RUNTIME_LOG;
        argv[n++] = "--log-format";
        argv[n++] = "json";
        if (o->vm)
                argv[n++] = "--vm";
        argv[n++] = o->exec ? "exec" : "run";
        argv[n++] = "--detach";
        argv[n++] = "--pid-file";
        argv[n++] = MONITOR_PID_NAME;
        if (o->tty) {
                argv[n++] = "--console-socket";
                argv[n++] = MONITOR_CONSOLE_NAME;
        }
        argv[n++] = o->exec ? "--process" : "--bundle";
        argv[n++] = o->exec ? MONITOR_PROCESS_NAME : ".";
        argv[n++] = o->id;
        argv[n] = NULL;

        unlink(MONITOR_RUNTIME_LOG);
        unlink(MONITOR_PID_NAME);
        if (rootfs_fd < 0)
                return spawn_in_place(o, (char *const *)argv, stdio, ret_pid, err);

        auto_fd host = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
        auto_fd here = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (host < 0 || here < 0)
                return err_set(err, errno, "open the mount namespace");
        int r = enter_with_rootfs(rootfs_fd, err);
        if (r == 0)
                r = spawn_in_place(o, (char *const *)argv, stdio, ret_pid, err);
        /* setns() moves to the root directory. Staying behind would pin every mount
         * of the host for as long as the instance runs. */
        if (setns(host, CLONE_NEWNS) < 0 || fchdir(here) < 0)
                return r < 0 ? r : err_set(err, errno, "return to the host's mounts");
        return r;
}

int launch_delete(const struct monitor_options *o, pid_t *ret_pid, struct err *err)
{
        const char *argv[] = { o->runtime, "--root", o->runtime_root, "delete", "--force",
                               o->id,      NULL };
        return spawn_in_place(o, (char *const *)argv, &(struct launch_stdio){ -1, -1, -1 }, ret_pid,
                              err);
}

/* The value of "msg" in one line of the runtime's JSON log, or NULL. */
static char *log_message(const char *line)
{
        const char *at = strstr(line, "\"msg\":");
        if (!at)
                return NULL;
        at += strlen("\"msg\":");
        at += strspn(at, " ");
        if (*at++ != '"')
                return NULL;
        auto_buf text = { 0 };
        for (; *at && *at != '"'; at++) {
                if (*at == '\\' && at[1]) {
                        at++;
                        unsigned code;
                        if (*at == 'u' && strlen(at) > 4 && sscanf(at + 1, "%4x", &code) == 1) {
                                buf_putc(&text, code < 0x80 ? (char)code : '?');
                                at += 4;
                        } else {
                                buf_putc(&text, *at == 'n' ? '\n' : *at == 't' ? '\t' : *at);
                        }
                } else {
                        buf_putc(&text, *at);
                }
        }
        return text.size ? buf_take(&text) : NULL;
}

char *launch_failure(int wait_status)
{
        auto_free char *text = NULL;
        char *found = NULL;
        if (file_read(AT_FDCWD, MONITOR_RUNTIME_LOG, RUNTIME_LOG_MAX_BYTES, &text, NULL, NULL) ==
            0) {
                auto_strv lines = str_split(text, '\n');
                for (char **line = lines; *line; line++) {
                        if (!strstr(*line, "\"error\"") && !strstr(*line, "\"fatal\""))
                                continue;
                        char *message = log_message(*line);
                        if (message) {
                                free(found);
                                found = message;
                        }
                }
        }
        if (found)
                return found;
        if (WIFSIGNALED(wait_status))
                return xasprintf("the runtime was killed by signal %d", WTERMSIG(wait_status));
        return xasprintf("the runtime ended with exit code %d and no message",
                         WEXITSTATUS(wait_status));
}

int launch_read_pid(pid_t *ret_pid, struct err *err)
{
        auto_free char *text = NULL;
        uint32_t pid;
        int r = file_read(AT_FDCWD, MONITOR_PID_NAME, 32, &text, NULL, err);
        if (r < 0)
                return r;
        text[strcspn(text, "\n")] = '\0';
        if (str_to_u32(text, &pid) < 0 || pid == 0 || pid > INT32_MAX)
                return err_plain(err, EINVAL, "the runtime wrote '%s' as process id", text);
        *ret_pid = (pid_t)pid;
        return 0;
}

int launch_console_listen(int *ret_fd, struct err *err)
{
        struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = MONITOR_CONSOLE_NAME };
        unlink(MONITOR_CONSOLE_NAME);
        auto_fd fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
            listen(fd, 1) < 0)
                return err_set(err, errno, "listen at " MONITOR_CONSOLE_NAME);
        *ret_fd = take_fd(fd);
        return 0;
}
