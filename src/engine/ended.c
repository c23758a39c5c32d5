/* What follows the end of an instance, or a start that failed. */
#include "base/clock.h"
#include "base/log.h"
#include "engine/operation.h"
#include "engine/restart.h"
#include "engine/run.h"

static void finish_restart(struct operation *operation)
{
        struct instance *instance = operation->instance;
        if (instance->state == INSTANCE_RESTARTING && !instance->private->run && operation->step) {
                operation_finish(operation, 0, NULL); /* it ended at once again; the timer runs */
                return;
        }
        if (instance->state != INSTANCE_RESTARTING || instance->private->removing) {
                operation_finish(operation, 0, NULL);
                return;
        }
        if (!instance->private->run && !operation->step) {
                operation->step = 1;
                run_begin(instance);
        }
}

static const struct operation_kind restart_kind = { "restart", finish_restart, finish_restart };

static void restart_due(void *arg)
{
        struct instance *instance = arg;
        loop_source_destroy(instance->private->restart_timer);
        instance->private->restart_timer = NULL;
        if (instance->state == INSTANCE_RESTARTING)
                operation_submit(operation_new(instance, &restart_kind, NULL, NULL));
}

void instance_cancel_restart(struct instance *instance)
{
        loop_source_destroy(instance->private->restart_timer);
        instance->private->restart_timer = NULL;
        instance->private->restart_delay_ns = 0;
        instance->private->failures_in_a_row = 0;
}

static bool plan_restart(struct instance *instance, int64_t run_ns)
{
        struct instance_private *p = instance->private;
        if (run_ns >= RESTART_RESET_NS)
                p->failures_in_a_row = 0;
        if (p->removing || !restart_wanted(&instance->spec.host.restart_policy, instance->exit_code,
                                           instance->stopped_by_user, p->failures_in_a_row))
                return false;
        p->failures_in_a_row++;
        instance->restart_count++;
        p->restart_delay_ns = restart_delay(p->restart_delay_ns, run_ns);
        if (loop_timer(p->engine->loop, restart_due, instance, &p->restart_timer, NULL) < 0)
                return false;
        loop_timer_arm(p->restart_timer, p->restart_delay_ns);
        return true;
}

static void settle(struct instance *instance)
{
        instance_set_state(instance, INSTANCE_EXITED);
        instance_waits_exited(instance);
        if (instance->spec.host.auto_remove && !instance->private->removing)
                instance_remove(instance, true, true, NULL, NULL);
}

void instance_ended(struct instance *instance, int exit_code, bool oom_killed, int64_t finished_ns)
{
        int64_t run_ns = instance->started_ns ? finished_ns - instance->started_ns : 0;
        auto_free char *code = xasprintf("exitCode=%d", exit_code);
        auto_free char *duration = xasprintf("execDuration=%lld", (long long)(run_ns / NS_PER_S));
        instance->pid = 0;
        instance->exit_code = exit_code;
        instance->oom_killed = oom_killed;
        instance->finished_ns = finished_ns;
        execs_instance_ended(instance);
        INSTANCE_EVENT(instance, "die", duration, code);
        /* An operation that restarts it will do so itself. */
        const struct operation *current = operation_current(instance);
        if (current && current->begun && current->then_start) {
                instance_set_state(instance, INSTANCE_EXITED);
                instance_waits_exited(instance);
        } else if (plan_restart(instance, run_ns)) {
                instance_set_state(instance, INSTANCE_RESTARTING);
        } else {
                settle(instance);
        }
        attaches_drop(instance);
        operation_advance(instance);
}

void instance_start_failed(struct instance *instance, const struct err *why)
{
        bool first = instance->state == INSTANCE_CREATED;
        free(instance->error);
        instance->error = xstrdup(err_text(why));
        instance->exit_code = run_failure_code(instance->error);
        instance->pid = 0;
        attaches_drop(instance);
        instance_cancel_restart(instance);
        auto_free char *code = xasprintf("exitCode=%d", instance->exit_code);
        INSTANCE_EVENT(instance, "die", "execDuration=0", code);
        if (first && !instance->spec.host.auto_remove) {
                instance_save_soon(instance); /* stays "created", as docker's */
                instance_waits_exited(instance);
        } else {
                instance->finished_ns = clock_realtime_ns();
                settle(instance);
        }
        log_info("%s did not start: %s", instance->name, instance->error);
}
