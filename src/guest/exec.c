#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"
#include "guest/guest.h"
#include "guest/session.h"
#include "runtime/sync.h"
#include "sys/pty.h"

struct exec {
        const struct exec_options *options;
        char **argv; /* of the guest's runtime */
        char *process;
        bool terminal;
        int directory_fd;
};

static void add_flag(char ***argv, const char *flag, const char *value)
{
        if (!value)
                return;
        strv_push(argv, flag);
        strv_push(argv, value);
}

static void add_flags(char ***argv, const char *flag, char *const *values)
{
        for (; values && *values; values++)
                add_flag(argv, flag, *values);
}

static void make_arguments(struct exec *exec)
{
        const struct exec_options *options = exec->options;
        char ***argv = &exec->argv;
        strv_push(argv, "exec");
        strv_push(argv, "--detach");
        add_flag(argv, "--cwd", options->cwd);
        add_flag(argv, "--user", options->user);
        add_flags(argv, "--env", options->env);
        add_flags(argv, "--cap", options->caps);
        add_flags(argv, "--additional-gids", options->gids);
        add_flags(argv, "--cgroup", options->cgroups);
        if (options->no_new_privs)
                strv_push(argv, "--no-new-privs");
        if (options->tty)
                strv_push(argv, "--tty");
        strv_push(argv, GUEST_ID);
        for (char *const *arg = options->args; arg && *arg; arg++)
                strv_push(argv, *arg);
}

/* The guest has no LSM that knows the host's labels. */
static int read_process(struct exec *exec, struct err *err)
{
        size_t size;
        auto_free char *text = NULL;
        struct oci_process process;
        exec->terminal = exec->options->tty;
        if (!exec->options->process_file)
                return 0;
        int r = file_read(AT_FDCWD, exec->options->process_file, OCI_CONFIG_SIZE_MAX, &text, &size,
                          err);
        if (r == 0)
                r = json_decode_text(&oci_process_shape, text, size, &process, err);
        if (r < 0)
                return err_wrap(err, "process file");
        exec->terminal = exec->terminal || process.terminal;
        free(process.apparmor_profile);
        free(process.selinux_label);
        process.apparmor_profile = process.selinux_label = NULL;
        exec->process = json_encode_text(&oci_process_shape, &process, false);
        json_free(&oci_process_shape, &process);
        return 0;
}

static int check(const struct exec *exec, struct err *err)
{
        const struct exec_options *options = exec->options;
        auto_record record = { 0 };
        enum state_status status;
        int r = container_load(options->root, options->id, false, &record, &status, err);
        if (r < 0)
                return r;
        if (status == STATE_PAUSED)
                return err_plain(err, EINVAL, "cannot exec in a paused virtual machine");
        if (status != STATE_RUNNING && status != STATE_CREATED)
                return err_plain(err, EINVAL, "cannot exec in a stopped container");
        if (options->preserve_fds)
                return err_plain(err, EOPNOTSUPP,
                                 "descriptors cannot be passed into a virtual machine");
        bool detached_terminal = exec->terminal && options->detach;
        if (detached_terminal != !!options->console_socket)
                return err_plain(err, EINVAL,
                                 detached_terminal ? "a terminal without --console-socket cannot "
                                                     "be detached"
                                                   : "--console-socket is for a detached "
                                                     "terminal");
        return 0;
}

/* Ours becomes the terminal that the caller holds the other side of. */
static int become_terminal(const char *console_socket, struct err *err)
{
        static const char name[] = "/dev/ptmx";
        auto_fd dirfd = open("/dev/pts", O_PATH | O_DIRECTORY | O_CLOEXEC);
        auto_fd master = -1, slave = -1, socket = -1;
        if (dirfd < 0)
                return err_set(err, errno, "open /dev/pts");
        int r = pty_open(dirfd, "ptmx", &master, &slave, err);
        if (r == 0)
                r = pty_connect(console_socket, &socket, err);
        if (r == 0)
                r = pty_send_fd(socket, master, name, strlen(name), err);
        for (int fd = 0; r == 0 && fd < 3; fd++)
                if (dup2(slave, fd) < 0)
                        r = err_set(err, errno, "terminal as standard descriptor");
        if (r == 0 && ioctl(0, TIOCSCTTY, 0) < 0)
                r = err_set(err, errno, "take the terminal");
        return r;
}

static int block_signals(int *ret_fd, struct err *err)
{
        sigset_t set;
        foreground_block();
        sigprocmask(SIG_BLOCK, NULL, &set);
        *ret_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
        return *ret_fd < 0 ? err_set(err, errno, "signalfd") : 0;
}

static int pass_signal(struct session *session, int signals, struct err *err)
{
        struct signalfd_siginfo info;
        if (read(signals, &info, sizeof(info)) != sizeof(info) || info.ssi_signo == SIGCHLD)
                return 0;
        if (info.ssi_signo == SIGWINCH && session->terminal)
                return session_resize(session, err);
        return session_signal(session, (int)info.ssi_signo, err);
}

static int follow(struct session *session, int signals, int *ret_code, struct err *err)
{
        int r = 0;
        while (r == 0 && !session_done(session)) {
                struct pollfd entries[SESSION_ENTRIES + 1];
                session_watch(session, entries);
                entries[SESSION_ENTRIES] = (struct pollfd){ signals, POLLIN, 0 };
                if (poll(entries, ELEMENTS(entries), -1) < 0 && errno != EINTR)
                        return err_set(err, errno, "poll");
                if (entries[SESSION_ENTRIES].revents)
                        r = pass_signal(session, signals, err);
                if (r == 0)
                        r = session_work(session, entries, err);
        }
        *ret_code = session->exit_code;
        return r;
}

/* `told` hears that the process runs: a descriptor of sync.h, or -1. */
static int run(struct exec *exec, int told, int *ret_code, struct err *err)
{
        struct agent_request request = { .op = AGENT_OP_LAUNCH,
                                         .argv = exec->argv,
                                         .process = exec->process,
                                         .terminal = exec->terminal };
        struct session session;
        struct termios saved;
        request.plain_newlines = exec->terminal && !isatty(1);
        auto_fd signals = -1;
        int r = block_signals(&signals, err);
        if (r == 0)
                r = session_open(&session, exec->directory_fd, &request, err);
        if (r < 0)
                return r;
        bool raw = exec->terminal && isatty(0) && pty_make_raw(0, &saved, NULL) == 0;
        if (raw) /* the guest's terminal has done it */
                (void)pty_plain_newlines(0, NULL);
        if (told >= 0) {
                (void)prctl(PR_SET_PDEATHSIG, 0);
                (void)sync_send(told, SYNC_READY, NULL);
        }
        r = follow(&session, signals, ret_code, err);
        if (raw)
                (void)tcsetattr(0, TCSANOW, &saved);
        session_close(&session);
        return r;
}

static void child_main(struct exec *exec, int told) __attribute__((noreturn));
static void child_main(struct exec *exec, int told)
{
        struct err err = { 0 };
        int code = 1;
        /* A caller that is killed while a guest does not answer leaves nobody waiting. */
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        setsid();
        int r = exec->options->console_socket ? become_terminal(exec->options->console_socket, &err)
                                              : 0;
        if (r == 0)
                r = run(exec, told, &code, &err);
        if (r < 0)
                (void)sync_send_error(told, &err);
        _exit(r < 0 ? 255 : code);
}

/* The process that stays stands for the one in the guest, as its pid and its status. */
static int detach(struct exec *exec, struct err *err)
{
        int pair[2];
        int r = sync_pair(pair, err);
        if (r < 0)
                return r;
        auto_fd ours = pair[0], theirs = pair[1];
        pid_t pid = fork();
        if (pid < 0)
                return err_set(err, errno, "fork");
        if (pid == 0)
                child_main(exec, theirs);
        close_fd(&theirs);
        r = sync_expect(ours, SYNC_READY, err);
        r = sync_last_words(ours, r, err);
        if (r == 0)
                r = write_pid_file(exec->options->pid_file, pid, err);
        if (r < 0) {
                kill(pid, SIGKILL);
                while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
                        ;
        }
        return r;
}

int guest_exec(const struct exec_options *options, int *ret_code, struct err *err)
{
        struct exec exec = { .options = options, .directory_fd = -1 };
        auto_free char *directory = xasprintf("%s/%s/vm", options->root, options->id);
        *ret_code = 0;
        int r = read_process(&exec, err);
        if (r == 0)
                r = check(&exec, err);
        if (r == 0) {
                exec.directory_fd = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
                if (exec.directory_fd < 0)
                        r = err_set(err, errno, "open %s", directory);
        }
        make_arguments(&exec);
        if (r == 0)
                r = options->detach ? detach(&exec, err) : run(&exec, -1, ret_code, err);
        if (r == 0 && !options->detach && options->pid_file)
                r = write_pid_file(options->pid_file, getpid(), err);
        close_fd(&exec.directory_fd);
        strv_free(exec.argv);
        free(exec.process);
        return r;
}
