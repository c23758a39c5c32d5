#include "runtime/container.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "runtime/checkpoint.h"
#include "runtime/notify.h"
#include "runtime/start.h"
#include "sys/cgroup.h"
#include "sys/process.h"

#define REMOVE_TIMEOUT_MS 10000
#define DEATH_TIMEOUT_MS  10000
#define NUMBER_TIMEOUT_MS 5000
#define NUMBER_POLL_NS    2000000L

int container_create(const struct launch_options *options, struct err *err)
{
        struct launch launch;
        int r = launch_container(options, &launch, err);
        if (r == 0)
                launch_finish(&launch);
        return r;
}

static int open_cgroup(const struct record *record, struct cgroup **ret, struct err *err)
{
        *ret = NULL;
        return record->cgroups && *record->cgroups ? cgroup_open(record->cgroups, ret, err) : 0;
}

static void run_poststop(const struct record *record, const struct oci_hooks *hooks)
{
        if (!hooks || hooks->poststop_length == 0)
                return;
        struct hook_state state = {
                .id = record->id,
                .status = "stopped",
                .bundle = record->bundle,
                .oci_version = OCI_RUNTIME_SPEC_VERSION,
                .annotations = record->annotations,
        };
        struct hook_set set = { "poststop", hooks->poststop, hooks->poststop_length };
        hooks_run_all(&set, &state);
}

/* Mostly nobody is left in it. */
static int remove_cgroup(struct cgroup *cgroup, struct err *err)
{
        if (!cgroup || cgroup_remove(cgroup, 0, NULL) == 0)
                return 0;
        int r = cgroup_kill(cgroup, SIGKILL, err);
        return r < 0 ? r : cgroup_remove(cgroup, REMOVE_TIMEOUT_MS, err);
}

/* Ends everything that belongs to the container and forgets it. The state is
 * locked. */
static int destroy(struct state *state, const struct record *record, struct err *err)
{
        auto_cgroup cgroup = NULL;
        int r = open_cgroup(record, &cgroup, err);
        if (r == 0)
                r = remove_cgroup(cgroup, err);
        if (r < 0)
                return r;
        scope_stop(record);
        struct rdt_group rdt = record_rdt(record);
        r = rdt_remove(&rdt, err);
        if (r < 0)
                return r;
        run_poststop(record, record->config ? record->config->hooks : NULL);
        return state_remove(state, err);
}

static int kill_init(const struct record *record, struct err *err)
{
        auto_fd pidfd = -1;
        int r = process_open((pid_t)record->pid, record->start_time, &pidfd, NULL);
        if (r == -ESRCH || record->pid == 0)
                return 0;
        if (r < 0)
                return err_set(err, -r, "process %d", (int)record->pid);
        r = process_signal(pidfd, SIGKILL, err);
        if (r < 0)
                return r == -ESRCH ? 0 : r;
        auto_cgroup cgroup = NULL; /* a frozen one dies when thawed */
        if (open_cgroup(record, &cgroup, NULL) == 0 && cgroup)
                (void)cgroup_thaw(cgroup, NULL);
        cgroup_thaw_process((pid_t)record->pid);
        r = process_wait_gone(pidfd, DEATH_TIMEOUT_MS, err);
        if (r == 0)
                return err_plain(err, ETIMEDOUT, "process %d does not end although it was killed",
                                 (int)record->pid);
        return r < 0 ? r : 0;
}

/* Deletes what we made ourselves, whose process has ended. Where nobody has changed the
 * record meanwhile, nothing need be read again. */
static int delete_own(struct launch *launch, struct err *err)
{
        if (state_lock(&launch->state, NULL) < 0 || !state_is_as_written(&launch->state)) {
                state_unlock(&launch->state);
                return container_delete(launch->options->root, launch->options->id, true, err);
        }
        int r = remove_cgroup(launch->cgroup, err);
        if (r < 0)
                return r;
        scope_stop(&launch->record);
        struct rdt_group rdt = record_rdt(&launch->record);
        r = rdt_remove(&rdt, err);
        if (r < 0)
                return r;
        run_poststop(&launch->record, launch->spec.hooks);
        return state_remove(&launch->state, err);
}

int container_run(const struct launch_options *options, bool keep, int *ret_code, struct err *err)
{
        struct launch launch;
        if (!options->detach)
                foreground_block();
        int r = launch_container(options, &launch, err);
        if (r < 0)
                return r;
        *ret_code = 0;
        if (!options->detach || launch.notify_fd >= 0)
                state_unlock(&launch.state); /* others may want the container while it runs */
        if (options->detach && launch.notify_fd >= 0)
                r = notify_wait(launch.notify_fd, launch.pidfd, err);
        if (!options->detach) {
                r = foreground_wait(launch.pid, launch.master_socket_fd, launch.notify_fd, ret_code,
                                    err);
                if (r == 0 && !keep)
                        r = delete_own(&launch, err);
        }
        launch_finish(&launch);
        return r;
}

int container_load(const char *root, const char *id, bool with_config, struct record *ret,
                   enum state_status *ret_status, struct err *err)
{
        auto_state state = { .fd = -1 };
        int r = state_open(root, id, false, &state, err);
        if (r == 0)
                r = state_read(&state, with_config, ret, err);
        if (r < 0)
                return r;
        r = state_status(&state, ret, ret_status, err);
        if (r < 0)
                record_finish(ret);
        return r;
}

/* Opens, locks, reads and finds the status: how every changing verb begins. */
static int begin(const char *root, const char *id, struct state *state, struct record *record,
                 enum state_status *status, struct err *err)
{
        int r = state_open(root, id, true, state, err);
        if (r == 0)
                r = state_read(state, true, record, err);
        return r == 0 ? state_status(state, record, status, err) : r;
}

static int run_poststart(struct state *state, const struct record *record, struct err *err)
{
        const struct oci_hooks *hooks = record->config->hooks;
        if (!hooks || hooks->poststart_length == 0)
                return 0;
        struct hook_state told = {
                .id = record->id,
                .status = "running",
                .bundle = record->bundle,
                .oci_version = OCI_RUNTIME_SPEC_VERSION,
                .pid = record->pid,
                .annotations = record->annotations,
        };
        struct hook_set set = { "poststart", hooks->poststart, hooks->poststart_length };
        int r = hooks_run(&set, &told, err);
        /* The specification: it is stopped, and the lifecycle goes on to its end. */
        if (r < 0 && kill_init(record, NULL) == 0)
                (void)destroy(state, record, NULL);
        return r;
}

int container_start(const char *root, const char *id, struct err *err)
{
        auto_state state = { .fd = -1 };
        auto_record record = { 0 };
        enum state_status status;
        int r = begin(root, id, &state, &record, &status, err);
        if (r < 0)
                return r;
        if (status == STATE_STOPPED)
                return err_plain(err, EINVAL, "cannot start a container that has stopped");
        if (status != STATE_CREATED)
                return err_plain(err, EINVAL, "cannot start an already running container");
        auto_fd pidfd = -1, notify = -1;
        r = notify_listen(&state, &notify, err);
        if (r == 0 && notify >= 0)
                r = process_open((pid_t)record.pid, record.start_time, &pidfd, err);
        if (r == 0)
                r = start_tell(&state, err);
        if (r < 0)
                return r;
        if (unlinkat(state.fd, STATE_SOCKET, 0) < 0)
                return err_set(err, errno, "remove the start socket");
        r = run_poststart(&state, &record, err);
        if (r < 0 || notify < 0)
                return r;
        state_unlock(&state);
        return notify_wait(notify, pidfd, err);
}

/* Without a pid namespace of its own, the death of the first process leaves the
 * others alive. */
static bool has_own_pid_namespace(const struct record *record)
{
        const struct oci_namespace *ns = oci_spec_namespace(record->config, OCI_NAMESPACE_PID);
        return ns && str_empty(ns->path);
}

int container_kill(const char *root, const char *id, int signo, bool all, struct err *err)
{
        auto_state state = { .fd = -1 };
        auto_record record = { 0 };
        auto_cgroup cgroup = NULL;
        enum state_status status;
        /* No lock: a container whose start hangs must be killable. */
        int r = state_open(root, id, false, &state, err);
        if (r == 0)
                r = state_read(&state, true, &record, err);
        if (r == 0)
                r = state_status(&state, &record, &status, err);
        if (r == 0)
                r = open_cgroup(&record, &cgroup, err);
        if (r < 0)
                return r;
        bool gone = status == STATE_STOPPED || status == STATE_CREATING;
        if (cgroup && (all || (signo == SIGKILL && !has_own_pid_namespace(&record)))) {
                if (gone && !all)
                        return err_plain(err, ESRCH, "container not running");
                return cgroup_kill(cgroup, signo, err);
        }
        if (gone)
                return err_plain(err, ESRCH, "container not running");
        auto_fd pidfd = -1;
        r = process_open((pid_t)record.pid, record.start_time, &pidfd, err);
        if (r == 0)
                r = process_signal(pidfd, signo, err);
        if (r == -ESRCH)
                return err_plain(err, ESRCH, "container not running");
        if (r == 0 && signo == SIGKILL && status == STATE_PAUSED)
                r = cgroup_thaw(cgroup, err);
        if (r == 0 && signo == SIGKILL)
                cgroup_thaw_process((pid_t)record.pid);
        return r;
}

/* A directory whose record is missing (its maker died before it had made anything)
 * or damaged. What is left can only be in the default cgroup. */
static int delete_recordless(struct state *state, struct err *err)
{
        auto_cgroup cgroup = NULL;
        int r = cgroup_prepare(state->id, 0, &cgroup, NULL);
        if (r == 0)
                r = remove_cgroup(cgroup, err);
        return r < 0 ? r : state_remove(state, err);
}

int container_delete(const char *root, const char *id, bool force, struct err *err)
{
        auto_state state = { .fd = -1 };
        auto_record record = { 0 };
        enum state_status status;
        int r = state_open(root, id, false, &state, err);
        if (r == -ENOENT && force)
                return 0;
        if (r < 0)
                return r;
        /* Killed before the lock is asked for: it may be held by somebody who waits
         * for this very process. */
        if (force && state_read(&state, false, &record, NULL) == 0) {
                r = kill_init(&record, err);
                record_finish(&record);
                if (r < 0)
                        return r;
        }
        r = state_lock(&state, err);
        if (r == -ENOENT && force)
                return 0;
        if (r < 0)
                return r;
        r = state_read(&state, true, &record, err);
        if (r < 0 && force)
                return delete_recordless(&state, err);
        if (r == 0)
                r = state_status(&state, &record, &status, err);
        if (r < 0)
                return r;
        if (status == STATE_RUNNING || status == STATE_PAUSED) {
                if (!force)
                        return err_plain(err, EBUSY,
                                         "cannot delete container %s that is not stopped: %s", id,
                                         state_status_name(status));
        }
        r = kill_init(&record, err);
        return r < 0 ? r : destroy(&state, &record, err);
}

static int set_frozen(const char *root, const char *id, bool frozen, struct err *err)
{
        auto_state state = { .fd = -1 };
        auto_record record = { 0 };
        auto_cgroup cgroup = NULL;
        enum state_status status;
        int r = begin(root, id, &state, &record, &status, err);
        if (r == 0)
                r = open_cgroup(&record, &cgroup, err);
        if (r < 0)
                return r;
        if (frozen && status != STATE_RUNNING && status != STATE_CREATED)
                return err_plain(err, EINVAL, "container not running or created: %s",
                                 state_status_name(status));
        if (!frozen && status != STATE_PAUSED)
                return err_plain(err, EINVAL, "container not paused");
        if (!cgroup)
                return err_plain(err, EOPNOTSUPP, "container %s has no cgroup to freeze", id);
        return frozen ? cgroup_freeze(cgroup, err) : cgroup_thaw(cgroup, err);
}

int container_pause(const char *root, const char *id, struct err *err)
{
        return set_frozen(root, id, true, err);
}

int container_resume(const char *root, const char *id, struct err *err)
{
        return set_frozen(root, id, false, err);
}

/* In a pid namespace that it shares, a restore needs the number of the process, which is taken
 * until the parent has looked at its end: some inits do so now and then. */
static void await_number(const struct record *record)
{
        int64_t deadline = clock_monotonic_ns() + NUMBER_TIMEOUT_MS * NS_PER_MS;
        struct timespec pause = { .tv_nsec = NUMBER_POLL_NS };
        if (has_own_pid_namespace(record))
                return;
        while (kill((pid_t)record->pid, 0) == 0 && clock_monotonic_ns() < deadline)
                nanosleep(&pause, NULL);
}

int container_checkpoint(const char *root, const char *id, const struct checkpoint_options *options,
                         struct err *err)
{
        auto_state state = { .fd = -1 };
        auto_record record = { 0 };
        enum state_status status;
        int r = begin(root, id, &state, &record, &status, err);
        if (r < 0)
                return r;
        if (status != STATE_RUNNING && status != STATE_PAUSED)
                return err_plain(err, EINVAL, "it cannot be checkpointed: it is %s",
                                 state_status_name(status));
        r = checkpoint_dump(&record, status == STATE_PAUSED, options, err);
        if (r < 0 || options->leave_running || options->pre_dump)
                return r;
        r = kill_init(&record, err);
        if (r == 0)
                r = destroy(&state, &record, err);
        if (r == 0)
                await_number(&record);
        return r;
}

/* Version 1 may have to join a hierarchy that was not needed before. The record names it, for
 * delete, before it is made. */
static int extend_cgroup(struct state *state, struct record *record, struct cgroup *cgroup,
                         uint32_t controllers, struct err *err)
{
        size_t before = strv_length(cgroup_paths(cgroup));
        int r = cgroup_extend(cgroup, controllers, err);
        bool more = strv_length(cgroup_paths(cgroup)) > before;
        if (r == 0 && more) {
                strv_free(record->cgroups);
                record->cgroups = strv_copy(cgroup_paths(cgroup));
                auto_free char *config = json_encode_text(&oci_spec_shape, record->config, false);
                r = state_write(state, record, config, err);
        }
        if (r == 0)
                r = cgroup_join(cgroup, controllers, err);
        if (r < 0 || !more)
                return r;
        /* The limits hold without it, too. */
        struct err story = { 0 };
        if (container_show_hierarchies(record, record->cgroups + before, &story) < 0)
                log_warning("the cgroup that was joined cannot be seen inside: %s",
                            err_text(&story));
        return 0;
}

static int update_rdt(const struct record *record, const struct container_change *change,
                      struct err *err)
{
        struct rdt_group rdt = record_rdt(record);
        if (!change->l3_cache_schema && !change->mem_bw_schema)
                return 0;
        if (!rdt.clos)
                return err_plain(err, EINVAL, "the container was made without intelRdt");
        return rdt_update(&rdt, change->l3_cache_schema, change->mem_bw_schema, err);
}

int container_update(const char *root, const char *id, const struct container_change *change,
                     struct err *err)
{
        auto_state state = { .fd = -1 };
        auto_record record = { 0 };
        auto_cgroup cgroup = NULL;
        enum state_status status;
        struct limits limits;
        int r = begin(root, id, &state, &record, &status, err);
        if (r == 0)
                r = open_cgroup(&record, &cgroup, err);
        if (r < 0)
                return r;
        if (status == STATE_STOPPED)
                return err_plain(err, EINVAL, "container not running");
        if (!cgroup)
                return err_plain(err, EOPNOTSUPP, "container %s has no cgroup to update", id);
        r = limits_create(change->resources, true, &limits, err);
        if (r < 0)
                return r;
        r = scope_update(&record, &limits.values, err);
        if (r == 0)
                r = extend_cgroup(&state, &record, cgroup,
                                  cgroup_limits_controllers(&limits.values), err);
        if (r == 0)
                r = cgroup_apply(cgroup, &limits.values, err);
        if (r == 0)
                r = update_rdt(&record, change, err);
        limits_finish(&limits);
        return r;
}
