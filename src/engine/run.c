#include "engine/run.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "codec/json.h"
#include "engine/command.h"
#include "engine/operation.h"
#include "engine/prepare.h"
#include "engine/probe.h"
#include "engine/remove.h"
#include "sys/cgroup.h"

#define BURIAL_PATIENCE_NS (20 * NS_PER_S) /* from the end of init to the monitor's */
#define KILLED_EXIT_CODE   137

static const struct link_events run_link_events;

static struct run *run_new(struct instance *instance)
{
        struct run *run = new0(struct run);
        *run = (struct run){
                .engine = instance_engine(instance),
                .instance = instance_ref(instance),
                .link.fd = -1,
                .process = { .control_fd = -1, .pidfd = -1 },
        };
        instance->private->run = run;
        return run;
}

static void set_phase(struct run *run, enum run_phase phase)
{
        if (run->phase < RUN_FAILED && phase >= RUN_FAILED)
                run->engine->endings++;
        run->phase = phase;
}

/* The very end: directory and object go. */
static void run_free(struct run *run)
{
        struct instance *instance = run->instance;
        if (run->phase >= RUN_FAILED)
                run->engine->endings--;
        link_close(&run->link);
        close_fd(&run->process.control_fd);
        close_fd(&run->process.pidfd);
        loop_source_destroy(run->timer);
        instance->private->run = NULL;
        free(run->text);
        strv_free(run->leftover_volumes);
        free(run);
        instance_unref(instance);
}

static void run_finish(struct run *run)
{
        struct instance *instance = instance_ref(run->instance);
        /* The record first: exit.json counts until it is written. */
        if (instance->private->dirty)
                instance_save(instance);
        auto_free char *dir = instance_run_path(run->engine, instance->id);
        struct err err = { 0 };
        if (file_remove_tree(AT_FDCWD, dir, &err) < 0)
                log_warning("cannot remove '%s': %s", dir, err_text(&err));
        if (run->leftovers)
                leftovers_delete(run->engine, instance->id, take_ptr(run->leftover_volumes));
        run_free(run);
        operation_advance(instance);
        instance_unref(instance);
}

int run_failure_code(const char *text)
{
        if (strcasestr(text, "executable file not found") ||
            strcasestr(text, "no such file or directory"))
                return 127;
        if (strcasestr(text, "permission denied") || strcasestr(text, "is a directory") ||
            strcasestr(text, "exec format error"))
                return 126;
        return 128;
}

/* The error of a failed start, in words docker's CLI derives its exit code from. */
static void explain_failure(struct run *run, const char *text)
{
        int code = run_failure_code(text);
        const char *command = run->instance->argv ? run->instance->argv[0] : "";
        if (code == 127 && !strstr(text, "executable file not found"))
                err_plain(
                        &run->failure, ENOEXEC,
                        "OCI runtime create failed: %s: exec: \"%s\": executable file not found in "
                        "$PATH",
                        text, command);
        else if (code == 126 && !strstr(text, "permission denied"))
                err_plain(&run->failure, ENOEXEC,
                          "OCI runtime create failed: %s: exec: \"%s\": permission denied", text,
                          command);
        else
                err_plain(&run->failure, code == 128 ? EIO : ENOEXEC,
                          "OCI runtime create failed: %s", text);
}

static void run_failed(struct run *run)
{
        if (run->phase >= RUN_FAILED)
                return;
        set_phase(run, RUN_FAILED);
        instance_start_failed(run->instance, &run->failure);
}

/* -- burial -------------------------------------------------------------------- */

static void burial_done(void *arg, int r, const struct err *err)
{
        struct run *run = arg;
        /* A container that the runtime does not know needs no deletion. */
        if (r < 0 && !strcasestr(err_text(err), "does not exist"))
                log_warning("cannot clean up after %s: %s", run->instance->name, err_text(err));
        if (run->lost) {
                free(run->instance->error);
                run->instance->error = xstrdup("its monitor was lost, so it was killed");
                instance_ended(run->instance, KILLED_EXIT_CODE, false, clock_realtime_ns());
        }
        run_finish(run);
}

static void begin_burial(struct run *run)
{
        set_phase(run, RUN_BURIAL);
        loop_source_destroy(run->timer);
        run->timer = NULL;
        if (run->deleted)
                run_finish(run);
        else
                runtime_run(run->engine, burial_done, run, "delete", "--force", run->instance->id,
                            NULL);
}

struct exit_file {
        int exit_code;
        bool oom_killed;
        char *started_at, *finished_at, *error;
};

#define T struct exit_file
static const struct json_field exit_fields[] = {
        JSON_FIELD(T, "exit_code", JSON_INT, exit_code, JSON_REQUIRED),
        JSON_FIELD(T, "oom_killed", JSON_BOOL, oom_killed, 0),
        JSON_FIELD(T, "started_at", JSON_STRING, started_at, 0),
        JSON_FIELD(T, "finished_at", JSON_STRING, finished_at, 0),
        JSON_FIELD(T, "error", JSON_STRING, error, 0),
};
static const struct json_shape exit_shape = JSON_SHAPE("exit.json", T, exit_fields);
#undef T

/* What the monitor wrote about the end; false where it did not come to that. */
static bool read_exit(struct run *run)
{
        auto_free char *path = xasprintf("%s/%s/%s", run->engine->run_instances_dir,
                                         run->instance->id, MONITOR_EXIT_NAME);
        auto_free char *text = NULL;
        size_t size;
        struct exit_file file;
        if (file_read(AT_FDCWD, path, 65536, &text, &size, NULL) < 0 ||
            json_decode_text(&exit_shape, text, size, &file, NULL) < 0)
                return false;
        int64_t started = 0, finished = 0;
        if (!file.started_at || clock_parse(file.started_at, &started) < 0)
                started = 0;
        if (!file.finished_at || clock_parse(file.finished_at, &finished) < 0)
                finished = clock_realtime_ns();
        if (!str_empty(file.error)) {
                explain_failure(run, file.error);
                run_failed(run);
        } else {
                if (started > 0)
                        run->instance->started_ns = started;
                instance_ended(run->instance, file.exit_code, file.oom_killed, finished);
        }
        json_free(&exit_shape, &file);
        return true;
}

/* The monitor is dead and said nothing. What it held is killed with the burial, and
 * has ended only then. */
static void presume_dead(struct run *run, bool was_running)
{
        if (read_exit(run))
                return;
        if (was_running) {
                log_warning("the monitor of %s is gone; the instance is killed",
                            run->instance->name);
                run->lost = true;
        } else {
                if (!run->failure.code)
                        err_plain(&run->failure, EIO, "the start was interrupted");
                run_failed(run);
        }
}

void run_bury(struct instance *instance, bool was_running)
{
        struct run *run = run_new(instance);
        run->phase = was_running ? RUN_RUNNING : RUN_STARTING;
        presume_dead(run, was_running);
        begin_burial(run);
}

/* -- the monitor's words ------------------------------------------------------- */

static void told_running(struct run *run, const struct monitor_message *state)
{
        struct instance *instance = run->instance;
        bool adopted = run->phase == RUN_RUNNING;
        run->phase = RUN_RUNNING;
        instance->pid = state->pid;
        if (run->started)
                return;
        run->started = true;
        if (adopted) {
                instance->started_ns = state->started_ns;
                probes_begin(instance);
                return;
        }
        instance->started_ns = state->started_ns;
        instance->finished_ns = 0;
        instance->exit_code = 0;
        instance->oom_killed = false;
        free(instance->error);
        instance->error = NULL;
        instance_set_state(instance, INSTANCE_RUNNING);
        INSTANCE_EVENT(instance, "start");
        probes_begin(instance);
}

static void burial_expired(void *arg)
{
        struct run *run = arg;
        log_warning("the monitor of %s does not end; it is killed", run->instance->name);
        link_kill(&run->link);
}

static void expect_burial(struct run *run)
{
        if (!run->timer &&
            loop_timer(run->engine->loop, burial_expired, run, &run->timer, NULL) == 0)
                loop_timer_arm(run->timer, BURIAL_PATIENCE_NS);
}

static void told_ended(struct run *run, const struct monitor_message *state)
{
        free(run->text);
        run->text = state->text_size ? xstrndup(state->text, state->text_size) : NULL;
        /* Deleted, unless it says otherwise before it goes. */
        run->deleted = !run->text;
        if (run->phase >= RUN_ENDED)
                return;
        if (!run->started)
                told_running(run, state);
        set_phase(run, RUN_ENDED);
        expect_burial(run);
        instance_ended(run->instance, state->exit_code, state->oom_kills > 0, state->finished_ns);
}

static void run_state(void *arg, const struct monitor_message *state)
{
        struct run *run = arg;
        struct instance *instance = instance_ref(run->instance);
        if (state->oom_kills > run->oom_kills && run->phase < RUN_ENDED)
                INSTANCE_EVENT(instance, "oom");
        run->oom_kills = state->oom_kills;
        switch (state->phase) {
        case MONITOR_RUNNING:
                told_running(run, state);
                break;
        case MONITOR_EXITED:
                told_ended(run, state);
                break;
        case MONITOR_FAILED:
                run->deleted = true;
                if (run->phase < RUN_FAILED) {
                        auto_free char *text = xstrndup(state->text, state->text_size);
                        explain_failure(run, text);
                        expect_burial(run);
                        run_failed(run);
                }
                break;
        default:
                break;
        }
        operation_advance(instance);
        instance_unref(instance);
}

static void run_detached(void *arg)
{
        struct run *run = arg;
        INSTANCE_EVENT(run->instance, "detach");
}

static void run_gone(void *arg)
{
        struct run *run = arg;
        struct instance *instance = instance_ref(run->instance);
        if (run->phase < RUN_FAILED)
                presume_dead(run, run->phase == RUN_RUNNING);
        begin_burial(run);
        operation_advance(instance);
        instance_unref(instance);
}

static const struct link_events run_link_events = { run_state, run_detached, run_gone };

/* -- beginning ----------------------------------------------------------------- */

static void prepare_in_worker(void *arg)
{
        struct run *run = arg;
        struct prepare_input input = {
                .engine = run->engine,
                .instance = run->instance,
                .ipc_pid = run->ipc_pid,
                .network_pid = run->network_pid,
                .pid_pid = run->pid_pid,
        };
        run->prepared = prepare_run(&input, &run->process, &run->failure);
}

static void fail_before_monitor(struct run *run)
{
        struct instance *instance = instance_ref(run->instance);
        run->deleted = true;
        run_failed(run);
        operation_advance(instance);
        run_finish(run);
        instance_unref(instance);
}

static void prepared(void *arg)
{
        struct run *run = arg;
        if (run->prepared < 0) {
                fail_before_monitor(run);
                return;
        }
        struct link_process process = run->process;
        run->process = (struct link_process){ .control_fd = -1, .pidfd = -1 };
        if (link_open(&run->link, run->engine, &process, &run_link_events, run, &run->failure) <
            0) {
                fail_before_monitor(run);
                return;
        }
        run->phase = RUN_STARTING;
        if (run->aborted) {
                link_kill(&run->link);
                return;
        }
        attaches_send(run->instance);
        struct monitor_message start = { .kind = MONITOR_START };
        link_send(&run->link, &start, -1);
}

/* The process whose name space `mode` ("container:x") joins. 0 where none is meant. */
static int joined_pid(struct engine *engine, const char *mode, const char *what, pid_t *ret,
                      struct err *err)
{
        const char *name = mode ? str_after(mode, "container:") : NULL;
        *ret = 0;
        if (!name)
                return 0;
        struct instance *other = instance_find(engine, name, err);
        if (!other)
                return -err->code;
        if (!instance_is_running(other) || !other->pid)
                return err_plain(err, EBUSY, "cannot join %s of container %s: it is not running",
                                 what, name);
        if (streq(what, "IPC") && streq(other->spec.host.ipc_mode, "private"))
                return err_plain(err, EINVAL,
                                 "cannot join IPC of container %s: non-shareable IPC (hint: use "
                                 "--ipc shareable for the donor container)",
                                 name);
        *ret = other->pid;
        return 0;
}

static void failed_at_once(void *arg)
{
        fail_before_monitor(arg);
}

void run_begin(struct instance *instance)
{
        struct run *run = run_new(instance);
        struct engine *engine = run->engine;
        const struct host_config *host = &instance->spec.host;
        int r = joined_pid(engine, host->ipc_mode, "IPC", &run->ipc_pid, &run->failure);
        if (r == 0)
                r = joined_pid(engine, host->network_mode, "network", &run->network_pid,
                               &run->failure);
        if (r == 0)
                r = joined_pid(engine, host->pid_mode, "PID", &run->pid_pid, &run->failure);
        if (r < 0)
                loop_defer(engine->loop, failed_at_once, run);
        else
                workers_submit(engine->workers, prepare_in_worker, prepared, run);
}

void run_abort(struct instance *instance)
{
        struct run *run = instance->private->run;
        if (!run)
                return;
        run->aborted = true;
        if (run->phase < RUN_RUNNING && !run->failure.code && run->phase != RUN_PREPARING)
                err_plain(&run->failure, ECANCELED, "the start was aborted");
        link_kill(&run->link);
}

/* -- taking over --------------------------------------------------------------- */

static bool is_frozen(struct instance *instance)
{
        auto_free char *path = instance_cgroup_path(instance_engine(instance), instance);
        auto_cgroup cgroup = NULL;
        return cgroup_prepare(path, 0, &cgroup, NULL) == 0 && cgroup_is_frozen(cgroup, NULL) == 1;
}

int run_adopt(struct instance *instance, struct err *err)
{
        struct run *run = run_new(instance);
        auto_free char *dir = instance_run_path(run->engine, instance->id);
        int r = link_connect(&run->link, run->engine, dir, &run_link_events, run, err);
        if (r < 0) {
                run_free(run);
                return r;
        }
        /* Its first message corrects what the record did not know any more. */
        run->phase = instance_is_running(instance) ? RUN_RUNNING : RUN_STARTING;
        if (run->phase == RUN_RUNNING)
                instance->state = is_frozen(instance) ? INSTANCE_PAUSED : INSTANCE_RUNNING;
        return 0;
}

void run_forget(struct instance *instance)
{
        if (instance->private->run)
                run_free(instance->private->run);
}
