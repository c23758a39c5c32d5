#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent/agent.h"
#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"
#include "sys/process.h"
#include "sys/pty.h"

#define RUN_DIRECTORY  "/run/isle"
#define PID_FILE       RUN_DIRECTORY "/pid"
#define PROCESS_FILE   RUN_DIRECTORY "/process.json"
#define CONSOLE_SOCKET RUN_DIRECTORY "/console.sock"

static int write_input(const struct agent_request *request, struct err *err)
{
        int r = file_make_dirs(AT_FDCWD, AGENT_BUNDLE, 0700, err);
        if (r == 0 && request->config)
                r = file_replace(AT_FDCWD, AGENT_BUNDLE "/config.json", request->config,
                                 strlen(request->config), 0600, false, err);
        if (r == 0 && request->process)
                r = file_replace(AT_FDCWD, PROCESS_FILE, request->process, strlen(request->process),
                                 0600, false, err);
        return r;
}

static int listen_console(int *ret_fd, struct err *err)
{
        struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = CONSOLE_SOCKET };
        (void)unlink(CONSOLE_SOCKET);
        auto_fd fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
            listen(fd, 1) < 0)
                return err_set(err, errno, "listen at %s", CONSOLE_SOCKET);
        *ret_fd = take_fd(fd);
        return 0;
}

/* The runtime has connected and sent it before it said that all is well. */
static int receive_master(int listener, int *ret_fd, struct err *err)
{
        char name[64];
        auto_fd connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (connection < 0)
                return err_set(err, errno, "accept at %s", CONSOLE_SOCKET);
        return pty_receive_fd(connection, ret_fd, name, sizeof(name), NULL, err);
}

static void set_nonblocking(int fd)
{
        (void)fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

/* A pipe between each stream and the process; `theirs` are its ends. What has no
 * stream is /dev/null. */
static int make_pipes(struct process *process, int theirs[AGENT_STREAMS], struct err *err)
{
        for (int i = 0; i < AGENT_STREAMS; i++) {
                if (process->streams[i] < 0) {
                        theirs[i] = open("/dev/null", O_RDWR | O_CLOEXEC);
                        continue;
                }
                int fds[2];
                if (pipe2(fds, O_CLOEXEC) < 0)
                        return err_set(err, errno, "pipe");
                int mine = fds[i == 0 ? 1 : 0];
                theirs[i] = fds[i == 0 ? 0 : 1];
                set_nonblocking(mine);
                process->pumps[i] = i == 0 ? (struct pump){ .from = process->streams[i],
                                                            .to = mine }
                                           : (struct pump){ .from = mine,
                                                            .to = process->streams[i] };
                process->streams[i] = -1;
        }
        return 0;
}

static void join_terminal(struct process *process, int master, const struct agent_request *request)
{
        int stream = process->streams[0];
        process->streams[0] = -1;
        process->master = master;
        set_nonblocking(master);
        if (request->rows || request->columns)
                (void)pty_resize(master, request->rows, request->columns, NULL);
        if (request->plain_newlines)
                (void)pty_plain_newlines(master, NULL);
        process->pumps[0] = (struct pump){ stream, master, .keeps_from = true, .keeps_to = true };
        process->pumps[1] = (struct pump){ master, stream, .keeps_from = true };
}

static int read_pid(pid_t *ret, struct err *err)
{
        auto_free char *text = NULL;
        uint32_t pid;
        int r = file_read(AT_FDCWD, PID_FILE, 32, &text, NULL, err);
        if (r == 0 && str_to_u32(text, &pid) < 0)
                r = err_plain(err, EPROTO, "%s: '%s' is not a process id", PID_FILE, text);
        if (r == 0)
                *ret = (pid_t)pid;
        return r;
}

/* The verb, then what only we know, then the rest of the caller's arguments. */
static char **arguments(const struct agent_request *request)
{
        char **argv = NULL;
        strv_push(&argv, request->argv[0]);
        strv_push(&argv, "--pid-file");
        strv_push(&argv, PID_FILE);
        if (request->terminal) {
                strv_push(&argv, "--console-socket");
                strv_push(&argv, CONSOLE_SOCKET);
        }
        if (request->process) {
                strv_push(&argv, "--process");
                strv_push(&argv, PROCESS_FILE);
        }
        for (char *const *arg = request->argv + 1; *arg; arg++)
                strv_push(&argv, *arg);
        return argv;
}

static int run_runtime(struct process *process, const struct agent_request *request,
                       struct err *err)
{
        int theirs[AGENT_STREAMS] = { -1, -1, -1 };
        auto_fd console = -1;
        int r = request->terminal ? listen_console(&console, err)
                                  : make_pipes(process, theirs, err);
        auto_strv argv = arguments(request);
        struct runtime_run run = { .argv = argv, .fds = { theirs[0], theirs[1], theirs[2] } };
        if (r == 0)
                r = runtime_run(&run, err);
        if (r == 0 && run.code != 0)
                r = err_plain(err, EREMOTEIO, "%s", runtime_reason(&run));
        runtime_run_finish(&run);
        for (int i = 0; i < AGENT_STREAMS; i++)
                close_fd(&theirs[i]);
        if (r < 0 || !request->terminal)
                return r;
        int master;
        r = receive_master(console, &master, err);
        if (r == 0)
                join_terminal(process, master, request);
        return r;
}

int process_launch(struct process *process, const struct agent_request *request, struct err *err)
{
        if (request->terminal && process->streams[0] < 0)
                return err_plain(err, EINVAL, "a terminal needs stream 0");
        (void)unlink(PID_FILE);
        int r = write_input(request, err);
        if (r == 0)
                r = run_runtime(process, request, err);
        if (r == 0)
                r = read_pid(&process->pid, err);
        process->is_first = request->config;
        if (r == 0 && request->config) /* not all kernels can count */
                (void)oom_watch(&process->oom, process->pid, NULL);
        return r;
}

void process_ended(struct process *process, int status)
{
        process->ended = true;
        process->exit_code = process_exit_code(status);
        if (process->master < 0)
                pump_close(&process->pumps[0]);
        pump_drain(&process->pumps[1]);
        pump_drain(&process->pumps[2]);
}

void process_kill(const struct process *process)
{
        if (process->ended || process->pid <= 0)
                return;
        (void)kill(-process->pid, SIGKILL);
        (void)kill(process->pid, SIGKILL); /* should it lead no group */
}

void process_resize(struct process *process, unsigned rows, unsigned columns)
{
        if (process->master >= 0)
                (void)pty_resize(process->master, rows, columns, NULL);
}

void process_free(struct process *process)
{
        for (int i = 0; i < AGENT_STREAMS; i++) {
                pump_close(&process->pumps[i]);
                close_fd(&process->streams[i]);
        }
        close_fd(&process->master);
        oom_finish(&process->oom);
        free(process->key);
        free(process);
}
