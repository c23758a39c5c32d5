/* Start, stop, kill, restart, pause, unpause, rename, update. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "engine/bundle.h"
#include "engine/command.h"
#include "engine/names.h"
#include "engine/operation.h"
#include "engine/probe.h"
#include "engine/restart.h"
#include "engine/run.h"
#include "sys/process.h"

#define STOP_TIMEOUT_DEFAULT_S 10
#define STOP_LAST_NS           (10 * NS_PER_S) /* from SIGKILL to giving up */

static void finish_with(struct operation *o, int code, const char *format, ...)
        __attribute__((format(printf, 3, 4)));
static void finish_with(struct operation *o, int code, const char *format, ...)
{
        struct err err;
        va_list ap;
        va_start(ap, format);
        int r = err_plainv(&err, code, format, ap);
        va_end(ap);
        operation_finish(o, r, &err);
}

/* -- start --------------------------------------------------------------------- */

static void start_go(struct operation *o)
{
        struct instance *i = o->instance;
        o->step = 1;
        i->stopped_by_user = false;
        run_begin(i);
}

static void start_advance(struct operation *o)
{
        struct instance *i = o->instance;
        struct run *run = i->private->run;
        if (o->step == 0) {
                if (!run)
                        start_go(o);
                else if (run->phase == RUN_RUNNING) /* begun before the daemon was restarted */
                        finish_with(o, EALREADY, "container %s is already running", i->name);
        } else if (!run) {
                finish_with(o, EIO, "the start of %s was interrupted", i->name);
        } else if (run->phase == RUN_FAILED) {
                struct err err = run->failure;
                err_wrap(&err, "cannot start container %s", i->name);
                operation_finish(o, -err.code, &err);
        } else if (run->phase >= RUN_RUNNING) {
                operation_finish(o, 0, NULL);
        }
}

static void start_begin(struct operation *o)
{
        struct instance *i = o->instance;
        switch (i->state) {
        case INSTANCE_RUNNING:
                finish_with(o, EALREADY, "container %s is already running", i->name);
                return;
        case INSTANCE_PAUSED:
                finish_with(o, EBUSY, "cannot start a paused container, try unpause instead");
                return;
        case INSTANCE_REMOVING:
        case INSTANCE_DEAD:
        case INSTANCE_REMOVED:
                finish_with(o, EBUSY, "container is marked for removal and cannot be started");
                return;
        default:
                break;
        }
        instance_cancel_restart(i);
        i->restart_count = 0;
        if (i->state == INSTANCE_RESTARTING)
                instance_set_state(i, INSTANCE_EXITED);
        start_advance(o);
}

static const struct operation_kind start_kind = { "start", start_begin, start_advance };

void instance_start(struct instance *instance, const char *detach_keys, engine_done *done,
                    void *arg)
{
        (void)detach_keys; /* each attach brings its own */
        operation_submit(operation_new(instance, &start_kind, done, arg));
}

/* -- stop and restart ---------------------------------------------------------- */

static bool has_ended(const struct instance *i)
{
        return !instance_is_running(i) &&
               (!i->private->run || i->private->run->phase >= RUN_FAILED);
}

static void stop_done(struct operation *o)
{
        struct instance *i = o->instance;
        if (o->step < 100) {
                INSTANCE_EVENT(i, "stop");
                if (!o->then_start) {
                        operation_finish(o, 0, NULL);
                        return;
                }
                o->step = 100;
        }
        /* The new run needs the old one buried. */
        struct run *run = i->private->run;
        if (o->step == 100 && !run) {
                o->step = 101;
                o->then_start = false; /* an end is no longer ours */
                i->stopped_by_user = false;
                run_begin(i);
        } else if (o->step == 101 && (!run || run->phase == RUN_FAILED)) {
                struct err err = { 0 };
                if (run)
                        err = run->failure;
                err_wrap(&err, "Cannot restart container %s", i->name);
                operation_finish(o, -err.code, &err);
        } else if (o->step == 101 && run->phase >= RUN_RUNNING) {
                INSTANCE_EVENT(i, "restart");
                operation_finish(o, 0, NULL);
        }
}

static void stop_advance(struct operation *o)
{
        if (o->step >= 100 || has_ended(o->instance))
                stop_done(o);
}

static void kill_event(struct instance *i, int signo)
{
        auto_free char *signal = xasprintf("signal=%d", signo);
        INSTANCE_EVENT(i, "kill", signal);
}

static void ignore_result(void *arg, int r, const struct err *err)
{
        struct instance *instance = arg;
        if (r < 0)
                log_debug("signal to %s: %s", instance->name, err_text(err));
        instance_unref(instance);
}

static void send_signal(struct instance *i, int signo, engine_done *done, void *arg)
{
        char number[16];
        snprintf(number, sizeof(number), "%d", signo);
        kill_event(i, signo);
        runtime_run(instance_engine(i), done, arg, "kill", i->id, number, NULL);
}

static void stop_gave_up(void *arg)
{
        struct operation *o = arg;
        /* Not even SIGKILL by the runtime: take the monitor away, delete by force. */
        if (o->step == 2) {
                o->step = 3;
                run_abort(o->instance);
                operation_arm(o, stop_gave_up, STOP_LAST_NS);
                return;
        }
        probes_hold(o->instance, false);
        finish_with(o, ETIMEDOUT, "tried to kill container %s, but it does not end",
                    o->instance->name);
}

static void stop_expired(void *arg)
{
        struct operation *o = arg;
        struct instance *i = o->instance;
        o->step = 2;
        operation_arm(o, stop_gave_up, STOP_LAST_NS);
        if (instance_is_running(i))
                send_signal(i, SIGKILL, ignore_result, instance_ref(i));
        else
                run_abort(i);
}

static void stop_paused_signalled(void *arg, int r, const struct err *err)
{
        struct instance *i = arg;
        (void)r;
        (void)err;
        /* The signal waits until it is thawed. */
        if (i->state == INSTANCE_PAUSED) {
                instance_set_state(i, INSTANCE_RUNNING);
                runtime_run(instance_engine(i), ignore_result, i, "resume", i->id, NULL);
        } else {
                instance_unref(i);
        }
}

static int64_t stop_timeout_s(const struct operation *o)
{
        const struct instance_config *config = &o->instance->spec.config;
        if (o->timeout_s != INSTANCE_TIMEOUT_DEFAULT)
                return o->timeout_s;
        return config->has_stop_timeout ? config->stop_timeout : STOP_TIMEOUT_DEFAULT_S;
}

static int stop_signal(const struct operation *o)
{
        int signo = o->signo;
        const char *text = o->instance->spec.config.stop_signal;
        if (signo == 0 && (str_empty(text) || process_signal_parse(text, &signo) < 0))
                signo = SIGTERM;
        return signo;
}

static void stop_begin(struct operation *o)
{
        struct instance *i = o->instance;
        i->stopped_by_user = true;
        instance_save_soon(i);
        if (i->state == INSTANCE_RESTARTING) {
                instance_cancel_restart(i);
                instance_set_state(i, INSTANCE_EXITED);
                instance_waits_exited(i);
                if (!o->then_start) {
                        operation_finish(o, 0, NULL);
                        return;
                }
        }
        if (has_ended(i)) {
                if (o->then_start) {
                        o->step = 100;
                        stop_done(o);
                } else {
                        finish_with(o, EALREADY, "container %s is not running", i->name);
                }
                return;
        }
        o->step = 1;
        int64_t timeout = stop_timeout_s(o);
        if (timeout >= 0)
                operation_arm(o, stop_expired, timeout * NS_PER_S);
        if (!instance_is_running(i))
                return; /* still starting: the time limit decides */
        probes_hold(i, true);
        if (i->state == INSTANCE_PAUSED)
                send_signal(i, stop_signal(o), stop_paused_signalled, instance_ref(i));
        else
                send_signal(i, stop_signal(o), ignore_result, instance_ref(i));
}

static const struct operation_kind stop_kind = { "stop", stop_begin, stop_advance };

static void submit_stop(struct instance *instance, int signo, int64_t timeout_s, bool then_start,
                        engine_done *done, void *arg)
{
        struct operation *o = operation_new(instance, &stop_kind, done, arg);
        o->signo = signo;
        o->timeout_s = timeout_s;
        o->then_start = then_start;
        operation_submit(o);
        /* A start that hangs must not keep a stop from its time limit. */
        const struct operation *current = operation_current(instance);
        if (current != o && current->kind == &start_kind && instance->private->run &&
            instance->private->run->phase < RUN_RUNNING && timeout_s >= 0 && timeout_s <= 1)
                run_abort(instance);
}

void instance_stop(struct instance *instance, int signo, int64_t timeout_s, engine_done *done,
                   void *arg)
{
        submit_stop(instance, signo, timeout_s, false, done, arg);
}

void instance_restart(struct instance *instance, int signo, int64_t timeout_s, engine_done *done,
                      void *arg)
{
        submit_stop(instance, signo, timeout_s, true, done, arg);
}

/* -- kill: never queued -------------------------------------------------------- */

struct kill_request {
        struct instance *instance;
        int signo;
        engine_done *done;
        void *arg;
};

static void kill_waited(void *arg, int exit_code, const char *error)
{
        struct kill_request *request = arg;
        (void)exit_code;
        (void)error;
        if (request->done)
                request->done(request->arg, 0, NULL);
        instance_unref(request->instance);
        free(request);
}

static void kill_sent(void *arg, int r, const struct err *err)
{
        struct kill_request *request = arg;
        struct instance *i = request->instance;
        if (r == 0 && request->signo == SIGKILL && instance_is_running(i)) {
                if (i->state == INSTANCE_PAUSED) /* the runtime has thawed it */
                        instance_set_state(i, INSTANCE_RUNNING);
                instance_wait(i, WAIT_NOT_RUNNING, kill_waited, request);
                return;
        }
        if (r < 0 && request->signo == SIGKILL)
                probes_hold(i, false);
        struct err text = { 0 };
        if (r < 0 && !instance_is_running(i)) {
                r = err_plain(&text, EBUSY,
                              "Cannot kill container: %s: container %s is not running", i->name,
                              i->id);
        } else if (r < 0) {
                text = *err;
                err_wrap(&text, "Cannot kill container: %s", i->name);
        }
        if (request->done)
                request->done(request->arg, r, r < 0 ? &text : NULL);
        instance_unref(i);
        free(request);
}

void instance_kill(struct instance *instance, int signo, engine_done *done, void *arg)
{
        if (!instance_is_running(instance)) {
                struct err err;
                int r = err_plain(&err, EBUSY,
                                  "Cannot kill container: %s: container %s is not running",
                                  instance->name, instance->id);
                answer_later(instance_engine(instance), r, &err, done, arg);
                return;
        }
        struct kill_request *request = new0(struct kill_request);
        *request = (struct kill_request){ instance_ref(instance), signo, done, arg };
        /* What is meant to end it ends its restarts as well. */
        struct operation as_stop = { .instance = instance };
        if (signo == SIGKILL || signo == stop_signal(&as_stop)) {
                instance->stopped_by_user = true;
                instance_save_soon(instance);
        }
        if (signo == SIGKILL)
                probes_hold(instance, true);
        send_signal(instance, signo, kill_sent, request);
}

/* -- pause --------------------------------------------------------------------- */

static void pause_ran(void *arg, int r, const struct err *err)
{
        struct operation *o = arg;
        struct instance *i = o->instance;
        bool pausing = o->step == 1;
        if (r < 0) {
                struct err text = *err;
                err_wrap(&text, "Cannot %s container %s", pausing ? "pause" : "unpause", i->name);
                operation_finish(o, r, &text);
                return;
        }
        if (instance_is_running(i)) {
                instance_set_state(i, pausing ? INSTANCE_PAUSED : INSTANCE_RUNNING);
                instance_event(i, pausing ? "pause" : "unpause", (const char *const[]){ NULL });
        }
        operation_finish(o, 0, NULL);
}

static void pause_begin(struct operation *o)
{
        struct instance *i = o->instance;
        if (i->state == INSTANCE_PAUSED)
                finish_with(o, EBUSY, "Container %s is already paused", i->id);
        else if (i->state != INSTANCE_RUNNING)
                finish_with(o, EBUSY, "Container %s is not running", i->id);
        else {
                o->step = 1;
                runtime_run(instance_engine(i), pause_ran, o, "pause", i->id, NULL);
        }
}

static void unpause_begin(struct operation *o)
{
        struct instance *i = o->instance;
        if (i->state != INSTANCE_PAUSED) {
                finish_with(o, EBUSY, "Container %s is not paused", i->id);
                return;
        }
        o->step = 2;
        runtime_run(instance_engine(i), pause_ran, o, "resume", i->id, NULL);
}

static const struct operation_kind pause_kind = { "pause", pause_begin, NULL };
static const struct operation_kind unpause_kind = { "unpause", unpause_begin, NULL };

void instance_pause(struct instance *instance, engine_done *done, void *arg)
{
        operation_submit(operation_new(instance, &pause_kind, done, arg));
}

void instance_unpause(struct instance *instance, engine_done *done, void *arg)
{
        operation_submit(operation_new(instance, &unpause_kind, done, arg));
}
