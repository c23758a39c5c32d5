#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/buf.h"
#include "base/file.h"
#include "base/log.h"
#include "base/str.h"
#include "runtime/launch.h"
#include "runtime/rootfs.h"
#include "runtime/setup.h"
#include "runtime/sync.h"
#include "sys/netlink.h"
#include "sys/process.h"
#include "sys/resolve.h"

/* Root inside the user namespace; until the maps are written we are nobody. */
static int become_root(struct launch *launch, struct err *err)
{
        if (!launch->plan.in_user_namespace)
                return 0;
        if (launch->plan.new_namespaces & CLONE_NEWUSER) {
                int r = sync_expect(launch->child_fd, SYNC_MAPPED, err);
                if (r < 0)
                        return r;
        }
        /* May be forbidden: then there is none of the host's. */
        if (!setup_keeps_groups(launch->spec.annotations))
                (void)setgroups(0, NULL);
        if (setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0)
                return err_set(err, errno, "become root of the user namespace");
        return 0;
}

/* The offsets hold for who enters the namespace, which is whom we execute. */
static int set_time(struct launch *launch, struct err *err)
{
        const struct oci_linux *linux_ = launch->spec.linux_;
        for (size_t i = 0; i < launch->plan.joins_length; i++)
                if (launch->plan.joins[i].kind == NAMESPACE_TIME && launch->join_fds[i] >= 0 &&
                    setns(launch->join_fds[i], CLONE_NEWTIME) < 0)
                        return err_set(err, errno, "join %s", launch->plan.joins[i].path);
        if (!launch->plan.new_time)
                return 0;
        if (unshare(CLONE_NEWTIME) < 0)
                return err_set(err, errno, "make a time namespace");
        auto_buf text = { 0 };
        for (size_t i = 0; i < linux_->time_offsets_length; i++)
                buf_printf(&text, "%s %lld %u\n", linux_->time_offsets[i].clock,
                           (long long)linux_->time_offsets[i].secs,
                           linux_->time_offsets[i].nanosecs);
        if (text.size == 0)
                return 0;
        int r = file_put(launch->proc_fd, "self/timens_offsets", buf_text(&text), err);
        return r < 0 ? err_wrap(err, "set time offsets") : 0;
}

static int set_names(struct launch *launch, struct err *err)
{
        const struct oci_spec *spec = &launch->spec;
        if (!str_empty(spec->hostname) && sethostname(spec->hostname, strlen(spec->hostname)) < 0)
                return err_set(err, errno, "set hostname '%s'", spec->hostname);
        if (!str_empty(spec->domainname) &&
            setdomainname(spec->domainname, strlen(spec->domainname)) < 0)
                return err_set(err, errno, "set domainname '%s'", spec->domainname);
        return 0;
}

static int enter_cgroup(struct launch *launch, struct err *err)
{
        bool namespaced = launch->plan.new_namespaces & CLONE_NEWCGROUP;
        if (!namespaced && launch->door.length == 0 && !launch->scope)
                return 0;
        int r = sync_expect(launch->child_fd, SYNC_CGROUP, err);
        if (r == 0)
                r = cgroup_door_enter(&launch->door, err);
        if (r < 0 || !namespaced)
                return r;
        if (unshare(CLONE_NEWCGROUP) < 0)
                return err_set(err, errno, "make a cgroup namespace");
        return 0;
}

/* The host's procfs shows each process its own namespaces' settings, and nothing
 * in the container can stand in its way. */
static int set_sysctl(struct launch *launch, struct err *err)
{
        for (char **entry = launch->spec.linux_->sysctl; entry && *entry; entry++) {
                const char *value;
                auto_free char *key = json_map_split(*entry, &value);
                auto_free char *path = xasprintf("sys/%s", key);
                auto_fd fd = -1;
                for (char *c = path; *c && !strchr(key, '/'); c++)
                        if (*c == '.')
                                *c = '/';
                int r = resolve_beneath(launch->proc_fd, path, O_WRONLY, &fd, err);
                if (r == 0) {
                        r = io_write_full(fd, value, strlen(value));
                        if (r < 0)
                                r = err_set(err, -r, "write '%s'", value);
                }
                if (r < 0) {
                        err_wrap(err, "sysctl %s", key);
                        return r;
                }
        }
        return 0;
}

/* Our pid as the runtime sees it. */
static pid_t own_pid(const struct launch *launch)
{
        char text[16];
        ssize_t n = readlinkat(launch->proc_fd, "self", text, sizeof(text) - 1);
        if (n < 0)
                return 0;
        text[n] = '\0';
        return (pid_t)strtol(text, NULL, 10);
}

static int run_hooks(struct launch *launch, int root_fd, const struct hook_state *state,
                     struct err *err)
{
        const struct oci_hooks *hooks = launch->spec.hooks;
        if (!hooks)
                return 0;
        if (hooks->prestart_length || hooks->create_runtime_length) {
                int r = sync_send(launch->child_fd, SYNC_HOOKS, err);
                if (r == 0)
                        r = sync_expect(launch->child_fd, SYNC_GO, err);
                if (r < 0)
                        return r;
        }
        struct hook_set set = { "createContainer", hooks->create_container,
                                hooks->create_container_length };
        /* As other runtimes: relative names are those of the root file system. */
        if (set.length && fchdir(root_fd) < 0)
                return err_set(err, errno, "change to the rootfs");
        return hooks_run(&set, state, err);
}

static int make_terminal(struct launch *launch, int root_fd, struct err *err)
{
        if (launch->console_fd < 0)
                return 0;
        auto_fd pts = -1;
        int r = console_open_pts(root_fd, &pts, err);
        if (r == 0)
                r = console_create(pts, launch->plan.private_mounts ? root_fd : -1,
                                   launch->console_fd, launch->master_socket_fd >= 0,
                                   launch->spec.process, err);
        return r < 0 ? err_wrap(err, "terminal") : 0;
}

/* A missing working directory is made, as runc does, while that is possible. What
 * else is wrong with it, chdir will tell. */
static void make_cwd(int root_fd, const char *cwd)
{
        auto_fd fd = -1;
        if (streq(cwd, "/"))
                return;
        int r = resolve_open(root_fd, cwd, O_PATH, 0, &fd, NULL);
        if (r == -ENOENT)
                (void)resolve_make_dir(root_fd, cwd, 0755, &fd, NULL);
}

static int build_tree(struct launch *launch, const struct hook_state *state, struct err *err)
{
        struct rootfs rootfs = {
                .plan = &launch->plan,
                .root_fd = -1,
                .proc_fd = launch->proc_fd,
                .root_source_fd = launch->root_source_fd,
                .source_fds = launch->source_fds,
                .device_fds = launch->device_fds,
                .cgroups = launch->cgroup ? cgroup_paths(launch->cgroup) : NULL,
                .no_pivot = launch->options->no_pivot,
        };
        int r = rootfs_open(&rootfs, err);
        if (r == 0)
                r = enter_cgroup(launch, err);
        if (r == 0)
                r = rootfs_mount(&rootfs, err);
        if (r == 0)
                r = run_hooks(launch, rootfs.root_fd, state, err);
        if (r == 0)
                r = make_terminal(launch, rootfs.root_fd, err);
        if (r == 0)
                make_cwd(rootfs.root_fd, launch->spec.process->cwd);
        if (r == 0)
                r = rootfs_restrict(&rootfs, err);
        if (r == 0)
                r = rootfs_enter(&rootfs, err);
        close_fd(&rootfs.root_fd);
        return r == 0 ? set_sysctl(launch, err) : r;
}

static int prepare(struct launch *launch, const struct hook_state *state, struct err *err)
{
        int r = become_root(launch, err);
        if (r < 0)
                return r;
        if (setsid() < 0 && errno != EPERM)
                return err_set(err, errno, "start a session");
        r = set_time(launch, err);
        if (r == 0)
                r = set_names(launch, err);
        if (r == 0 && (launch->plan.new_namespaces & CLONE_NEWNET))
                r = netlink_loopback_up(err);
        return r == 0 ? build_tree(launch, state, err) : r;
}

void init_main(struct launch *launch)
{
        struct err err = { 0 };
        const struct oci_hooks *hooks = launch->spec.hooks;
        close_fd(&launch->guard_fd);
        close_fd(&launch->state.fd); /* holds the lock, which must end with the parent */
        close_fd(&launch->parent_fd);
        process_reset_signals();

        struct hook_state state = {
                .id = launch->record.id,
                .status = "creating",
                .bundle = launch->bundle,
                .oci_version = OCI_RUNTIME_SPEC_VERSION,
                .pid = own_pid(launch),
                .annotations = launch->spec.annotations,
                .inside = true,
        };
        const struct launch_variant *variant = launch->options->variant;
        auto_free char *keyring = xasprintf("_ses.%s", launch->record.id);
        struct setup setup = {
                .process = &launch->plan.process,
                .linux_ = launch->spec.linux_,
                .filter = &launch->filter,
                .state = &state,
                .start_hooks = { "startContainer", hooks ? hooks->start_container : NULL,
                                 hooks ? hooks->start_container_length : 0 },
                .hidden = !(launch->plan.new_namespaces & CLONE_NEWPID),
                .keyring = launch->options->no_new_keyring ? NULL : keyring,
                .proc_fd = launch->proc_fd,
                .report_fd = launch->child_fd,
                .listen_fd = variant ? -1 : launch->listen_fd,
                .pass_fd = variant ? variant->pass_fd : -1,
                .seccomp_fd = launch->seccomp_fd,
                .wait_fd = launch->child_fd,
                .preserve_fds = launch->options->preserve_fds,
        };
        log_debug("child process in init()");
        if (prepare(launch, &state, &err) == 0) {
                state.status = "created";
                (void)setup_and_exec(&setup, &err);
        }
        (void)sync_send_error(setup.report_fd, &err);
        _exit(1);
}
