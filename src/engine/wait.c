/* Waiting for an instance to end or to go. */
#include "engine/core.h"

struct instance_wait {
        struct instance *instance; /* a reference */
        struct list node;
        enum instance_condition condition;
        bool answered; /* `done` is due in the next turn */
        int exit_code;
        char *error;
        instance_exited *done; /* NULL: cancelled */
        void *arg;
};

static void wait_free(struct instance_wait *wait)
{
        list_remove(&wait->node);
        instance_unref(wait->instance);
        free(wait->error);
        free(wait);
}

static void wait_deliver(void *arg)
{
        struct instance_wait *wait = arg;
        instance_exited *done = wait->done;
        void *done_arg = wait->arg;
        int exit_code = wait->exit_code;
        auto_free char *error = take_ptr(wait->error);
        wait_free(wait);
        if (done)
                done(done_arg, exit_code, error);
}

static void answer(struct instance_wait *wait, const char *error)
{
        wait->answered = true;
        wait->exit_code = wait->instance->exit_code;
        wait->error = error ? xstrdup(error) : NULL;
        list_remove(&wait->node);
        loop_defer(instance_engine(wait->instance)->loop, wait_deliver, wait);
}

struct instance_wait *instance_wait(struct instance *instance, enum instance_condition condition,
                                    instance_exited *done, void *arg)
{
        struct instance_wait *wait = new0(struct instance_wait);
        *wait = (struct instance_wait){
                .instance = instance_ref(instance), .condition = condition, .done = done, .arg = arg
        };
        list_init(&wait->node);
        bool ended = instance->state == INSTANCE_CREATED || instance->state == INSTANCE_EXITED ||
                     instance->state == INSTANCE_DEAD || instance->state == INSTANCE_REMOVED;
        if (instance->state == INSTANCE_REMOVED || (ended && condition == WAIT_NOT_RUNNING))
                answer(wait, NULL);
        else
                list_append(&instance->private->waits, &wait->node);
        return wait;
}

void instance_wait_cancel(struct instance_wait *wait)
{
        if (!wait)
                return;
        wait->done = NULL;
        if (!wait->answered)
                wait_free(wait);
}

void instance_waits_exited(struct instance *instance)
{
        list_for_each_safe (struct instance_wait, wait, &instance->private->waits, node)
                if (wait->condition != WAIT_REMOVED)
                        answer(wait, NULL);
}

void instance_waits_removed(struct instance *instance)
{
        list_for_each_safe (struct instance_wait, wait, &instance->private->waits, node)
                answer(wait, NULL);
}

void instance_waits_failed(struct instance *instance, const char *error)
{
        list_for_each_safe (struct instance_wait, wait, &instance->private->waits, node)
                if (wait->condition == WAIT_REMOVED)
                        answer(wait, error);
}
