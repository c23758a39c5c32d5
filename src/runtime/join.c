/* exec: one more process in a container that runs. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/log.h"
#include "base/str.h"
#include "runtime/container.h"
#include "runtime/exe_guard.h"
#include "runtime/setup.h"
#include "runtime/sync.h"
#include "sys/process.h"
#include "sys/pty.h"

#define PROCESS_SIZE_MAX ((size_t)1 << 20)

struct join {
        const struct exec_options *options;
        struct record record;
        struct oci_process process; /* as it will be run */
        struct plan_process plan;
        struct filter filter;
        struct cgroup *cgroup;
        struct cgroup_door door;
        int proc_fd, init_pidfd, parent_fd, child_fd, console_fd, master_socket_fd, seccomp_fd;
        bool joins_time;
        pid_t pid;
        int pidfd;
};

static int read_process(const char *path, struct oci_process *ret, struct err *err)
{
        auto_free char *text = NULL;
        size_t size;
        int r = streq(path, "-") ? file_read_fd(0, PROCESS_SIZE_MAX, &text, &size, err)
                                 : file_read(AT_FDCWD, path, PROCESS_SIZE_MAX, &text, &size, err);
        if (r == 0)
                r = json_decode_text(&oci_process_shape, text, size, ret, err);
        if (r < 0)
                err_wrap(err, "process file '%s'", path);
        return r;
}

/* A copy by way of JSON: the shape knows every member. */
static int copy_process(const struct oci_process *from, struct oci_process *to, struct err *err)
{
        auto_free char *text = json_encode_text(&oci_process_shape, from, false);
        return json_decode_text(&oci_process_shape, text, strlen(text), to, err);
}

static int set_user(const char *text, struct oci_user *user, struct err *err)
{
        auto_free char *copy = xstrdup(text);
        char *colon = strchr(copy, ':');
        if (colon)
                *colon++ = '\0';
        user->gid = 0;
        if (str_to_u32(copy, &user->uid) < 0 || (colon && str_to_u32(colon, &user->gid) < 0))
                return err_plain(err, EINVAL, "user '%s' is not uid[:gid]", text);
        return 0;
}

static void add_caps(char *const *caps, struct oci_process *process)
{
        if (!caps || !*caps)
                return;
        if (!process->capabilities)
                process->capabilities = new0(struct oci_capabilities);
        struct oci_capabilities *to = process->capabilities;
        for (; *caps; caps++) {
                int number;
                if (caps_parse(*caps, &number) < 0) {
                        log_warning("unknown capability '%s' is ignored", *caps);
                        continue;
                }
                const char *name = caps_name(number);
                if (!strv_contains(to->bounding, name))
                        strv_push(&to->bounding, name);
                if (!strv_contains(to->effective, name))
                        strv_push(&to->effective, name);
                if (!strv_contains(to->permitted, name))
                        strv_push(&to->permitted, name);
        }
}

static int add_gids(char *const *gids, struct oci_user *user, struct err *err)
{
        for (; gids && *gids; gids++) {
                uint32_t gid;
                if (str_to_u32(*gids, &gid) < 0)
                        return err_plain(err, EINVAL, "additional gid '%s' is not a number", *gids);
                user->additional_gids = xrealloc(user->additional_gids,
                                                 user->additional_gids_length + 1,
                                                 sizeof(*user->additional_gids));
                user->additional_gids[user->additional_gids_length++] = gid;
        }
        return 0;
}

static void replace(char **slot, const char *value)
{
        if (!value)
                return;
        free(*slot);
        *slot = xstrdup(value);
}

/* The container's own process with what the command line changes. */
static int compose_process(struct join *join, struct err *err)
{
        const struct exec_options *options = join->options;
        struct oci_process *process = &join->process;
        if (!join->record.config->process)
                return err_plain(err, EINVAL,
                                 "the container has no process of its own to take the rest from; "
                                 "give all of it with --process");
        int r = copy_process(join->record.config->process, process, err);
        if (r < 0)
                return r;
        strv_free(process->args);
        process->args = strv_copy(options->args);
        process->terminal = options->tty;
        if (options->own_no_new_privs)
                process->no_new_privileges = false;
        if (options->no_new_privs)
                process->no_new_privileges = true;
        replace(&process->cwd, options->cwd);
        replace(&process->apparmor_profile, options->apparmor);
        replace(&process->selinux_label, options->selinux_label);
        for (char *const *env = options->env; env && *env; env++)
                strv_set_variable(&process->env, *env);
        if (options->user)
                r = set_user(options->user, &process->user, err);
        if (r == 0)
                r = add_gids(options->gids, &process->user, err);
        if (r == 0)
                add_caps(options->caps, process);
        return r;
}

static int load(struct join *join, struct err *err)
{
        const struct exec_options *options = join->options;
        enum state_status status;
        int r = container_load(options->root, options->id, true, &join->record, &status, err);
        if (r < 0)
                return r;
        if (status == STATE_STOPPED || status == STATE_CREATING)
                return err_plain(err, EINVAL, "cannot exec in a stopped container");
        if (status == STATE_PAUSED && !options->ignore_paused)
                return err_plain(err, EINVAL,
                                 "cannot exec in a paused container (use "
                                 "--ignore-paused to override)");
        r = options->process_file ? read_process(options->process_file, &join->process, err)
                                  : compose_process(join, err);
        if (r == 0)
                r = oci_process_validate(&join->process, err);
        if (r == 0 && (!join->process.args || !*join->process.args))
                r = err_plain(err, EINVAL, "exec needs a program to run");
        if (r == 0)
                r = plan_process_create(&join->process, &join->plan, err);
        if (r == 0)
                r = filter_create(join->record.config->linux_->seccomp, join->record.annotations,
                                  options->root, &join->filter, err);
        return r;
}

static int check_terminal(const struct join *join, struct err *err)
{
        const struct exec_options *options = join->options;
        if (join->process.terminal && options->detach && !options->console_socket)
                return err_plain(err, EINVAL,
                                 "cannot allocate tty if runc will detach without setting console "
                                 "socket");
        if (options->console_socket && (!join->process.terminal || !options->detach))
                return err_plain(err, EINVAL,
                                 "cannot use console socket if runc will not detach or allocate "
                                 "tty");
        return 0;
}

static int open_everything(struct join *join, struct err *err)
{
        const struct exec_options *options = join->options;
        join->proc_fd = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (join->proc_fd < 0)
                return err_set(err, errno, "open /proc");
        int r = attributes_check(&join->process, err);
        if (r == 0)
                r = process_open((pid_t)join->record.pid, join->record.start_time,
                                 &join->init_pidfd, err);
        if (r == 0 && join->record.cgroups)
                r = cgroup_open(join->record.cgroups, &join->cgroup, err);
        for (char *const *below = options->cgroups; r == 0 && below && *below; below++)
                r = join->cgroup ? cgroup_descend(join->cgroup, *below, err)
                                 : err_plain(err, EINVAL, "the container has no cgroup");
        if (r == 0 && join->filter.program.notifies)
                r = listener_connect(&join->filter, &join->seccomp_fd, err);
        if (r < 0 || !join->process.terminal)
                return r;
        if (options->console_socket)
                return pty_connect(options->console_socket, &join->console_fd, err);
        int pair[2];
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
                return err_set(err, errno, "socketpair");
        join->master_socket_fd = pair[0];
        join->console_fd = pair[1];
        return 0;
}

/* What of the container's namespaces is not ours already. */
static int foreign_namespaces(struct join *join)
{
        int flags = 0;
        for (unsigned kind = 0; kind < NAMESPACE_KINDS; kind++) {
                struct stat own, other;
                char path[48];
                snprintf(path, sizeof(path), "self/ns/%s", namespace_table[kind].file);
                bool known = fstatat(join->proc_fd, path, &own, 0) == 0;
                snprintf(path, sizeof(path), "%d/ns/%s", (int)join->record.pid,
                         namespace_table[kind].file);
                if (known && fstatat(join->proc_fd, path, &other, 0) == 0 &&
                    (own.st_ino != other.st_ino || own.st_dev != other.st_dev))
                        flags |= namespace_table[kind].flag;
        }
        return flags;
}

static int make_terminal(struct join *join, struct err *err)
{
        if (join->console_fd < 0)
                return 0;
        auto_fd pts = -1, root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (root < 0)
                return err_set(err, errno, "open '/'");
        int r = console_open_pts(root, &pts, err);
        if (r == 0)
                r = console_create(pts, -1, join->console_fd, join->master_socket_fd >= 0,
                                   &join->process, err);
        return r < 0 ? err_wrap(err, "terminal") : 0;
}

static int enter(struct join *join, struct err *err)
{
        int r = cgroup_door_enter(&join->door, err);
        if (r < 0)
                return r;
        if (join->joins_time && setns(join->init_pidfd, CLONE_NEWTIME) < 0)
                return err_set(err, errno, "join the time namespace");
        if (setsid() < 0)
                return err_set(err, errno, "start a session");
        if (oci_spec_namespace(join->record.config, OCI_NAMESPACE_USER) &&
            (setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0))
                return err_set(err, errno, "become root of the user namespace");
        return make_terminal(join, err);
}

static void join_main(void *arg)
{
        struct join *join = arg;
        struct err err = { 0 };
        close_fd(&join->parent_fd);
        process_reset_signals();

        struct hook_state state = {
                .id = join->record.id,
                .status = "running",
                .bundle = join->record.bundle,
                .oci_version = OCI_RUNTIME_SPEC_VERSION,
                .pid = join->record.pid,
                .annotations = join->record.annotations,
        };
        const struct oci_cpu_affinity *affinity = join->process.exec_cpu_affinity;
        struct setup setup = {
                .process = &join->plan,
                .filter = &join->filter,
                .state = &state,
                .start_hooks = { "", NULL, 0 },
                .proc_fd = join->proc_fd,
                .report_fd = join->child_fd,
                .listen_fd = -1,
                .pass_fd = -1,
                .seccomp_fd = join->seccomp_fd,
                .wait_fd = join->child_fd,
                .preserve_fds = join->options->preserve_fds,
                .affinity = affinity ? affinity->final : NULL,
        };
        log_debug("child process in init()");
        if (enter(join, &err) == 0)
                (void)setup_and_exec(&setup, &err);
        (void)sync_send_error(setup.report_fd, &err);
        _exit(1);
}

static int put_oom_score(struct join *join, struct err *err)
{
        if (!join->process.has_oom_score_adj)
                return 0;
        char path[48], text[16];
        snprintf(path, sizeof(path), "%d/oom_score_adj", join->pid);
        snprintf(text, sizeof(text), "%d", join->process.oom_score_adj);
        return file_put(join->proc_fd, path, text, err);
}

static int launch(struct join *join, struct err *err)
{
        int pair[2];
        int r = sync_pair(pair, err);
        if (r < 0)
                return r;
        join->parent_fd = pair[0];
        join->child_fd = pair[1];
        int flags = foreign_namespaces(join);
        join->joins_time = flags & CLONE_NEWTIME;
        bool mapped = oci_spec_namespace(join->record.config, OCI_NAMESPACE_USER);
        if (join->cgroup && !mapped)
                r = cgroup_door_open(join->cgroup, &join->door, err);
        if (r < 0)
                return r;
        struct clone_request request = {
                .target_pidfd = join->init_pidfd,
                .target_flags = flags & ~CLONE_NEWTIME,
                .cgroup_fd = -1,
                .child = join_main,
                .arg = join,
        };
        /* Not to be looked at from inside before it has executed its program. */
        (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
        log_debug("nsexec container setup: one more process in its namespaces");
        r = clone_child(&request, &join->pid, &join->pidfd, err);
        close_fd(&join->child_fd);
        close_fd(&join->console_fd);
        bool joins = join->door.length > 0;
        cgroup_door_close(&join->door);
        if (r == 0 && join->cgroup && !joins)
                r = cgroup_attach(join->cgroup, join->pid, err);
        struct rdt_group rdt = record_rdt(&join->record);
        if (r == 0)
                r = rdt_join(&rdt, join->pid, err);
        if (r == 0)
                r = put_oom_score(join, err);
        if (r == 0)
                r = sync_send(join->parent_fd, SYNC_GO, err);
        r = sync_last_words(join->parent_fd, r, err);
        if (r == 0)
                r = sync_receive(join->parent_fd, err);
        return r > 0 ? err_plain(err, EPROTO, "unexpected message %d", r) : r;
}

static void finish(struct join *join)
{
        close_fd(&join->proc_fd);
        close_fd(&join->init_pidfd);
        close_fd(&join->parent_fd);
        close_fd(&join->child_fd);
        close_fd(&join->console_fd);
        close_fd(&join->master_socket_fd);
        close_fd(&join->seccomp_fd);
        close_fd(&join->pidfd);
        cgroup_close(join->cgroup);
        filter_finish(&join->filter);
        plan_process_finish(&join->plan);
        json_free(&oci_process_shape, &join->process);
        record_finish(&join->record);
}

int container_exec(const struct exec_options *options, int *ret_code, struct err *err)
{
        struct join join = { .options = options,
                             .proc_fd = -1,
                             .init_pidfd = -1,
                             .parent_fd = -1,
                             .child_fd = -1,
                             .console_fd = -1,
                             .master_socket_fd = -1,
                             .seccomp_fd = -1,
                             .pidfd = -1 };
        int r = exe_guard(options->argv, NULL, err);
        if (r == 0)
                r = load(&join, err);
        if (r == 0)
                r = check_terminal(&join, err);
        if (r == 0)
                r = open_everything(&join, err);
        if (r == 0 && !options->detach)
                foreground_block();
        if (r == 0)
                r = launch(&join, err);
        if (r == 0)
                r = write_pid_file(options->pid_file, join.pid, err);
        if (r < 0 && join.pid > 0) {
                kill(join.pid, SIGKILL);
                while (waitpid(join.pid, NULL, 0) < 0 && errno == EINTR)
                        ;
        }
        *ret_code = 0;
        if (r == 0 && !options->detach)
                r = foreground_wait(join.pid, join.master_socket_fd, -1, ret_code, err);
        finish(&join);
        return r;
}
