#include "runtime/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/str.h"
#include "runtime/checkpoint.h"
#include "runtime/exe_guard.h"
#include "runtime/notify.h"
#include "runtime/rootfs.h"
#include "runtime/setup.h"
#include "runtime/start.h"
#include "runtime/sync.h"
#include "sys/mounts.h"
#include "sys/netlink.h"
#include "sys/process.h"
#include "sys/pty.h"

#define REMOVE_TIMEOUT_MS 10000

int write_pid_file(const char *path, pid_t pid, struct err *err)
{
        char text[16];
        if (!path)
                return 0;
        int length = snprintf(text, sizeof(text), "%d", pid);
        int r = file_replace(AT_FDCWD, path, text, (size_t)length, 0644, false, err);
        return r < 0 ? err_wrap(err, "pid file") : 0;
}

static int read_config(struct launch *launch, struct err *err)
{
        auto_free char *bundle = realpath(launch->options->bundle, NULL);
        if (!bundle)
                return err_set(err, errno, "bundle '%s'", launch->options->bundle);
        if (chdir(bundle) < 0)
                return err_set(err, errno, "change to bundle '%s'", bundle);
        const char *name = launch->options->config ? launch->options->config : "config.json";
        size_t size;
        int r = file_read(AT_FDCWD, name, OCI_CONFIG_SIZE_MAX, &launch->config_text, &size, err);
        if (r == -ENOENT)
                return err_plain(err, ENOENT, "JSON specification file %s not found", name);
        if (r == 0)
                r = oci_spec_parse(launch->config_text, size, &launch->spec, err);
        if (r < 0) {
                err_wrap(err, "%s", name);
                return r;
        }
        launch->bundle = take_ptr(bundle);
        return 0;
}

/* What a container without one is created with; only its `start` needs a program (setup.c). */
static struct oci_process *absent_process(void)
{
        struct oci_process *process = new0(struct oci_process);
        process->cwd = xstrdup("/");
        return process;
}

static int check_terminal(const struct launch *launch, struct err *err)
{
        const struct launch_options *options = launch->options;
        bool terminal = launch->spec.process && launch->spec.process->terminal;
        bool detach = options->detach || options->wait_for_start;
        if (terminal && detach && !options->console_socket)
                return err_plain(err, EINVAL,
                                 "cannot allocate tty if runc will detach without setting console "
                                 "socket");
        if (options->console_socket && (!terminal || !detach))
                return err_plain(err, EINVAL,
                                 "cannot use console socket if runc will not detach or allocate "
                                 "tty");
        return 0;
}

/* Where the terminal goes: to the console socket, or to ourselves. */
static int connect_terminal(struct launch *launch, struct err *err)
{
        if (!launch->spec.process->terminal)
                return 0;
        if (launch->options->console_socket)
                return pty_connect(launch->options->console_socket, &launch->console_fd, err);
        int pair[2];
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
                return err_set(err, errno, "socketpair");
        launch->master_socket_fd = pair[0];
        launch->console_fd = pair[1];
        return 0;
}

static int prepare_record(struct launch *launch, struct err *err)
{
        struct record *record = &launch->record;
        char now[CLOCK_TEXT_SIZE];
        clock_format(clock_realtime_ns(), now);
        record->id = xstrdup(launch->options->id);
        record->oci_version = xstrdup(launch->spec.oci_version);
        record->bundle = xstrdup(launch->bundle);
        record->rootfs = xstrdup(launch->plan.rootfs);
        record->created = xstrdup(now);
        record->creating = true;
        record->owner = geteuid();
        if (launch->scope) {
                record->scope = xstrdup(launch->scope->name.unit);
                record->systemd = xstrdup(systemd_address(launch->scope->systemd));
        }
        int r = launch_name_rdt(launch, err);
        if (r < 0)
                return r;
        record->cgroups = launch->cgroup ? strv_copy(cgroup_paths(launch->cgroup)) : NULL;
        if (!launch->spec.process->terminal)
                record->descriptors = checkpoint_descriptors();
        record->annotations = strv_copy(launch->spec.annotations);
        record->notify_place = launch->notify_place ? xstrdup(launch->notify_place) : NULL;
        if (launch->options->crun_status)
                record->external_descriptors = checkpoint_descriptors_text(record->descriptors);
        return state_write(&launch->state, record, launch->config_text, err);
}

static bool is_forbidden(int r)
{
        return r == -EACCES || r == -EPERM || r == -EROFS;
}

/* Somebody else's: undoing must not touch it. */
static void disown_cgroup(struct launch *launch)
{
        cgroup_close(launch->cgroup);
        launch->cgroup = NULL;
        free(launch->record.scope);
        launch->record.scope = NULL;
}

/* Without privilege there may be no right to make groups; then there are none,
 * unless a limit was asked for. */
static int make_cgroup(struct launch *launch, struct err *err)
{
        bool existed;
        const struct launch_variant *variant = launch->options->variant;
        bool later = launch->scope && !(variant && variant->make);
        int r = later ? cgroup_has_members(launch->cgroup, &existed, err)
                      : cgroup_create(launch->cgroup, &existed, err);
        if (is_forbidden(r) && geteuid() != 0 &&
            cgroup_limits_controllers(&launch->plan.limits.values) == 0) {
                cgroup_close(launch->cgroup);
                launch->cgroup = NULL;
                return 0;
        }
        if (r == 0 && existed)
                r = err_plain(err, EBUSY, "container's cgroup is not empty: %s",
                              launch->plan.cgroup_path);
        else if (r == 0 && !later && cgroup_is_frozen(launch->cgroup, NULL) == 1)
                r = err_plain(err, EBUSY, "container's cgroup unexpectedly frozen");
        else
                return r;
        disown_cgroup(launch);
        return r;
}

static int open_sources(struct launch *launch, struct err *err)
{
        const struct plan *plan = &launch->plan;
        launch->source_fds = xcalloc(plan->mounts_length + 1, sizeof(int));
        for (size_t i = 0; i < plan->mounts_length; i++)
                launch->source_fds[i] = -1;
        for (size_t i = 0; i < plan->mounts_length; i++) {
                int r = rootfs_prepare_source(plan, &plan->mounts[i], &launch->source_fds[i], err);
                if (r < 0) {
                        err_wrap(err, "error mounting \"%s\" to rootfs at \"%s\"",
                                 plan->mounts[i].source, plan->mounts[i].oci->destination);
                        return r;
                }
        }
        if (!plan_opens_sources(plan) || !plan->private_mounts)
                return 0;
        launch->device_fds = xcalloc(plan->devices_length + 1, sizeof(int));
        for (size_t i = 0; i < plan->devices_length; i++)
                launch->device_fds[i] = -1;
        int r = mount_clone(AT_FDCWD, plan->rootfs, true, &launch->root_source_fd, err);
        if (r < 0)
                return err_wrap(err, "rootfs");
        return plan->uid_maps_length ? rootfs_prepare_devices(plan, launch->device_fds, err) : 0;
}

static int open_joins(struct launch *launch, struct err *err)
{
        const struct plan *plan = &launch->plan;
        launch->join_fds = xcalloc(plan->joins_length + 1, sizeof(int));
        for (size_t i = 0; i < plan->joins_length; i++)
                launch->join_fds[i] = -1;
        for (size_t i = 0; i < plan->joins_length; i++) {
                const struct plan_join *join = &plan->joins[i];
                int r = namespace_open(join->path, join->kind, &launch->join_fds[i], err);
                if (r < 0)
                        return r;
                if (namespace_is_own(launch->join_fds[i], join->kind))
                        close_fd(&launch->join_fds[i]);
        }
        return 0;
}

static void child(void *arg)
{
        init_main(arg);
}

static int start_child(struct launch *launch, struct err *err)
{
        const struct plan *plan = &launch->plan;
        int pair[2];
        int r = sync_pair(pair, err);
        if (r < 0)
                return r;
        launch->parent_fd = pair[0];
        launch->child_fd = pair[1];
        auto_fd cgroup_fd = -1;
        if (launch->cgroup && !launch->scope)
                (void)cgroup_directory(launch->cgroup, &cgroup_fd, NULL);
        /* Root of a user namespace may not write there. */
        if (launch->cgroup && !launch->scope && !plan->in_user_namespace)
                r = cgroup_door_open(launch->cgroup, &launch->door, err);
        if (r < 0)
                return r;
        /* In a pid namespace with others it would be seen before the child can close it. */
        if (!(plan->new_namespaces & CLONE_NEWPID))
                close_fd(&launch->guard_fd);
        struct clone_request request = {
                .flags = plan->new_namespaces & ~CLONE_NEWCGROUP,
                .joins = plan->joins,
                .join_fds = launch->join_fds,
                .joins_length = plan->joins_length,
                .target_pidfd = -1,
                .cgroup_fd = cgroup_fd,
                .child = child,
                .arg = launch,
        };
        log_debug("nsexec container setup: a process in its namespaces");
        r = clone_child(&request, &launch->pid, &launch->pidfd, err);
        bool joins = launch->door.length > 0;
        cgroup_door_close(&launch->door);
        launch->joins_cgroup = joins;
        close_fd(&launch->child_fd);
        if (r < 0)
                return r;
        close_fd(&launch->console_fd);
        if (!launch->options->variant)
                close_fd(&launch->listen_fd);
        return 0;
}

static int put_oom_score(struct launch *launch, struct err *err)
{
        const struct oci_process *process = launch->spec.process;
        if (!process->has_oom_score_adj)
                return 0;
        char path[48], text[16];
        snprintf(path, sizeof(path), "%d/oom_score_adj", launch->pid);
        snprintf(text, sizeof(text), "%d", process->oom_score_adj);
        int r = file_put(launch->proc_fd, path, text, err);
        return r < 0 ? err_wrap(err, "set oomScoreAdj") : 0;
}

static int move_net_devices(struct launch *launch, struct err *err)
{
        const struct oci_linux *linux_ = launch->spec.linux_;
        if (linux_->net_devices_length == 0)
                return 0;
        char path[48];
        snprintf(path, sizeof(path), "%d/ns/net", launch->pid);
        auto_fd fd = openat(launch->proc_fd, path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return err_set(err, errno, "open the network namespace");
        for (size_t i = 0; i < linux_->net_devices_length; i++) {
                int r = netlink_move_link(linux_->net_devices[i].host_name, fd,
                                          linux_->net_devices[i].name, err);
                if (r < 0)
                        return err_wrap(err, "network device");
        }
        return 0;
}

int launch_start_scope(struct launch *launch, struct err *err)
{
        if (!launch->scope)
                return 0;
        int r = scope_start(launch->scope, launch->record.id, launch->pid, err);
        if (r == -EEXIST)
                disown_cgroup(launch);
        /* Hierarchies that systemd does not use. */
        return r == 0 ? cgroup_create(launch->cgroup, NULL, err) : r;
}

int launch_apply_limits(struct launch *launch, struct err *err)
{
        return launch->cgroup ? cgroup_apply(launch->cgroup, &launch->plan.limits.values, err) : 0;
}

/* What only the parent can do for the child, as soon as it exists. */
static int equip_child(struct launch *launch, struct err *err)
{
        const struct plan *plan = &launch->plan;
        int r = 0;
        if (plan->new_namespaces & CLONE_NEWUSER) {
                r = namespace_write_maps(launch->proc_fd, launch->pid, plan->uid_maps,
                                         plan->uid_maps_length, plan->gid_maps,
                                         plan->gid_maps_length, err);
                if (r == 0)
                        r = sync_send(launch->parent_fd, SYNC_MAPPED, err);
        }
        struct rdt_group rdt = record_rdt(&launch->record);
        if (r == 0)
                r = rdt_join(&rdt, launch->pid, err);
        if (r == 0)
                r = put_oom_score(launch, err);
        if (r == 0 && launch->cgroup) {
                r = launch_start_scope(launch, err);
                if (r == 0)
                        r = launch_apply_limits(launch, err);
                if (r == 0 && !launch->joins_cgroup)
                        r = cgroup_attach(launch->cgroup, launch->pid, err);
        }
        if (r == 0 &&
            (launch->joins_cgroup || launch->scope || (plan->new_namespaces & CLONE_NEWCGROUP)))
                r = sync_send(launch->parent_fd, SYNC_CGROUP, err);
        return r == 0 ? move_net_devices(launch, err) : r;
}

static bool has_create_hooks(const struct launch *launch)
{
        const struct oci_hooks *hooks = launch->spec.hooks;
        return hooks && (hooks->prestart_length || hooks->create_runtime_length);
}

int launch_run_hooks(struct launch *launch, struct err *err)
{
        const struct oci_hooks *hooks = launch->spec.hooks;
        if (!has_create_hooks(launch))
                return 0;
        struct hook_state state = {
                .id = launch->record.id,
                .status = "creating",
                .bundle = launch->bundle,
                .oci_version = OCI_RUNTIME_SPEC_VERSION,
                .pid = launch->pid,
                .annotations = launch->spec.annotations,
        };
        struct hook_set prestart = { "prestart", hooks->prestart, hooks->prestart_length };
        struct hook_set runtime = { "createRuntime", hooks->create_runtime,
                                    hooks->create_runtime_length };
        /* Hooks of this deprecated kind are of a time when a container that they saw was
         * called created; crun tells them so, and programs test for it. */
        state.status = "created";
        int r = hooks_run(&prestart, &state, err);
        state.status = "creating";
        return r == 0 ? hooks_run(&runtime, &state, err) : r;
}

static int run_create_hooks(struct launch *launch, struct err *err)
{
        if (!has_create_hooks(launch))
                return 0;
        int r = sync_expect(launch->parent_fd, SYNC_HOOKS, err);
        if (r == 0)
                r = launch_run_hooks(launch, err);
        return r == 0 ? sync_send(launch->parent_fd, SYNC_GO, err) : r;
}

int launch_finish_record(struct launch *launch, struct err *err)
{
        struct record *record = &launch->record;
        int r = process_start_time(launch->pid, &record->start_time, err);
        if (r < 0)
                return r;
        record->pid = launch->pid;
        record->creating = false;
        r = state_write_process(&launch->state, launch->pid, record->start_time, err);
        if (r == 0 && launch->options->crun_status)
                r = state_link_status(&launch->state, err);
        return r < 0 ? r : write_pid_file(launch->options->pid_file, launch->pid, err);
}

static int accompany_child(struct launch *launch, struct err *err)
{
        const struct launch_variant *variant = launch->options->variant;
        bool waits = launch->options->wait_for_start && !variant;
        int r = equip_child(launch, err);
        if (r == 0)
                r = run_create_hooks(launch, err);
        if (r == 0 && waits)
                r = sync_expect(launch->parent_fd, SYNC_READY, err);
        if (r == 0)
                r = launch_finish_record(launch, err);
        if (r == 0)
                r = sync_send(launch->parent_fd, SYNC_GO, err);
        r = sync_last_words(launch->parent_fd, r, err);
        if (r < 0 || waits)
                return r;
        r = sync_receive(launch->parent_fd, err);
        close_fd(&launch->guard_fd);
        if (r > 0)
                return err_plain(err, EPROTO, "unexpected message %d during the start", r);
        return r == 0 && variant && variant->accompany
                       ? variant->accompany(launch, variant->arg, err)
                       : r;
}

static int start_and_accompany(struct launch *launch, struct err *err)
{
        int r = start_child(launch, err);
        return r == 0 ? accompany_child(launch, err) : r;
}

static void stop_child(struct launch *launch)
{
        if (launch->pid <= 0)
                return;
        kill(launch->pid, SIGKILL);
        while (waitpid(launch->pid, NULL, 0) < 0 && errno == EINTR)
                ;
        launch->pid = 0;
}

static int run_poststart(struct launch *launch, struct err *err)
{
        const struct oci_hooks *hooks = launch->spec.hooks;
        if (!hooks || launch->options->wait_for_start)
                return 0;
        struct hook_state state = {
                .id = launch->record.id,
                .status = "running",
                .bundle = launch->bundle,
                .oci_version = OCI_RUNTIME_SPEC_VERSION,
                .pid = launch->pid,
                .annotations = launch->spec.annotations,
        };
        struct hook_set set = { "poststart", hooks->poststart, hooks->poststart_length };
        int r = hooks_run(&set, &state, err);
        if (r < 0) { /* it was started, so its end is told, too */
                struct hook_set last = { "poststop", hooks->poststop, hooks->poststop_length };
                stop_child(launch);
                state.status = "stopped";
                state.pid = 0;
                hooks_run_all(&last, &state);
        }
        return r;
}

static int prepare_everything(struct launch *launch, struct err *err)
{
        const struct launch_options *options = launch->options;
        const struct launch_variant *variant = options->variant;
        bool cloned = !variant || !variant->make;
        int r = read_config(launch, err);
        if (r == 0 && variant && variant->transform)
                r = variant->transform(launch, variant->arg, err);
        if (r == 0 && !variant && options->wait_for_start && !launch->spec.process)
                launch->spec.process = absent_process();
        if (r == 0 && !variant)
                launch->notify_place = notify_prepare(options->root, options->id, &launch->spec);
        if (r == 0)
                r = plan_create(&launch->spec, launch->bundle, options->id, &launch->plan, err);
        if (r == 0 && cloned)
                rootfs_find_label(&launch->plan);
        if (r == 0)
                r = check_terminal(launch, err);
        if (r == 0 && cloned)
                r = attributes_check(launch->spec.process, err);
        if (r == 0 && cloned)
                r = filter_create(launch->spec.linux_->seccomp, launch->spec.annotations,
                                  options->root, &launch->filter, err);
        if (r == 0 && options->systemd_cgroup)
                r = scope_prepare(&launch->spec, &launch->plan.limits.values, options->id,
                                  &launch->scope, err);
        if (r < 0)
                return r;
        launch->proc_fd = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (launch->proc_fd < 0)
                return err_set(err, errno, "open /proc");
        r = state_make(options->root, options->id, &launch->state, err);
        if (r < 0)
                return r;
        launch->made = true;
        uint32_t controllers = cgroup_limits_controllers(&launch->plan.limits.values);
        if (launch->scope)
                controllers |= CGROUP_BIT(CGROUP_SYSTEMD);
        const char *path = launch->scope ? launch->scope->path : launch->plan.cgroup_path;
        r = cgroup_prepare(path, controllers, &launch->cgroup, err);
        if (r == 0)
                r = prepare_record(launch, err);
        if (r == 0 && launch->notify_place)
                r = notify_make(&launch->state, err);
        if (r == 0 && launch->notify_place && !variant && !options->wait_for_start)
                r = notify_listen(&launch->state, &launch->notify_fd, err);
        if (r == 0 && variant && variant->prepare)
                r = variant->prepare(launch, variant->arg, err);
        if (r == 0)
                r = launch_make_rdt(launch, err);
        if (r == 0)
                r = make_cgroup(launch, err);
        if (r == 0 && cloned)
                r = open_sources(launch, err);
        if (r == 0)
                r = open_joins(launch, err);
        if (r == 0)
                r = connect_terminal(launch, err);
        if (r == 0 && launch->filter.program.notifies)
                r = listener_connect(&launch->filter, &launch->seccomp_fd, err);
        if (r == 0 && options->wait_for_start)
                r = start_listen(&launch->state, &launch->listen_fd, err);
        return r;
}

/* Leaves nothing behind, whatever was made. */
static void undo(struct launch *launch)
{
        stop_child(launch);
        if (!launch->made)
                return;
        if (launch->cgroup) {
                (void)cgroup_kill(launch->cgroup, SIGKILL, NULL);
                (void)cgroup_remove(launch->cgroup, REMOVE_TIMEOUT_MS, NULL);
        }
        scope_stop(&launch->record);
        struct rdt_group rdt = record_rdt(&launch->record);
        if (launch->rdt_made)
                (void)rdt_remove(&rdt, NULL);
        (void)state_remove(&launch->state, NULL);
}

int launch_container(const struct launch_options *options, struct launch *ret, struct err *err)
{
        *ret = (struct launch){
                .options = options,
                .state = { .fd = -1 },
                .guard_fd = -1,
                .proc_fd = -1,
                .parent_fd = -1,
                .child_fd = -1,
                .listen_fd = -1,
                .notify_fd = -1,
                .console_fd = -1,
                .master_socket_fd = -1,
                .seccomp_fd = -1,
                .root_source_fd = -1,
                .pidfd = -1,
        };
        /* First of all, for it may start the program anew. */
        int r = exe_guard(options->argv, &ret->guard_fd, err);
        if (r == 0)
                r = prepare_everything(ret, err);
        const struct launch_variant *variant = options->variant;
        if (r == 0 && variant && variant->make)
                r = variant->make(ret, variant->arg, err);
        else if (r == 0)
                r = start_and_accompany(ret, err);
        if (r == 0)
                r = run_poststart(ret, err);
        if (r < 0) {
                undo(ret);
                launch_finish(ret);
        }
        return r;
}

static void close_list(int *fds, size_t length)
{
        for (size_t i = 0; fds && i < length; i++)
                close_fd(&fds[i]);
        free(fds);
}

void launch_finish(struct launch *launch)
{
        close_list(launch->source_fds, launch->plan.mounts_length);
        close_list(launch->device_fds, launch->plan.devices_length);
        close_list(launch->join_fds, launch->plan.joins_length);
        close_fd(&launch->guard_fd);
        close_fd(&launch->proc_fd);
        close_fd(&launch->parent_fd);
        close_fd(&launch->child_fd);
        close_fd(&launch->listen_fd);
        close_fd(&launch->notify_fd);
        close_fd(&launch->console_fd);
        close_fd(&launch->master_socket_fd);
        close_fd(&launch->seccomp_fd);
        close_fd(&launch->root_source_fd);
        close_fd(&launch->pidfd);
        cgroup_close(launch->cgroup);
        scope_destroy(launch->scope);
        free(launch->notify_place);
        state_close(&launch->state);
        record_finish(&launch->record);
        filter_finish(&launch->filter);
        plan_finish(&launch->plan);
        json_free(&oci_spec_shape, &launch->spec);
        free(launch->config_text);
        free(launch->bundle);
        *launch = (struct launch){ .state = { .fd = -1 } };
}
