#include "engine/operation.h"

#include <stdlib.h>

struct answer {
        int r;
        struct err err;
        engine_done *done;
        void *arg;
};

static void deliver(void *arg)
{
        struct answer *answer = arg;
        answer->done(answer->arg, answer->r, answer->r < 0 ? &answer->err : NULL);
        free(answer);
}

void answer_later(struct engine *engine, int r, const struct err *err, engine_done *done, void *arg)
{
        if (!done)
                return;
        struct answer *answer = new0(struct answer);
        *answer = (struct answer){ .r = r, .done = done, .arg = arg };
        if (err)
                answer->err = *err;
        if (r < 0 && !answer->err.code)
                err_set(&answer->err, -r, "failed");
        loop_defer(engine->loop, deliver, answer);
}

struct operation *operation_new(struct instance *instance, const struct operation_kind *kind,
                                engine_done *done, void *arg)
{
        struct operation *operation = new0(struct operation);
        *operation = (struct operation){
                .kind = kind, .instance = instance_ref(instance), .done = done, .arg = arg
        };
        list_init(&operation->node);
        return operation;
}

struct operation *operation_current(const struct instance *instance)
{
        const struct list *queue = &instance->private->operations;
        return list_empty(queue) ? NULL : container_of(queue->next, struct operation, node);
}

static void begin_next(void *arg)
{
        struct instance *instance = arg;
        struct operation *operation = operation_current(instance);
        if (operation && !operation->begun) {
                operation->begun = true;
                operation->kind->begin(operation);
        }
        instance_unref(instance);
}

static void schedule(struct instance *instance)
{
        struct operation *operation = operation_current(instance);
        if (operation && !operation->begun)
                loop_defer(instance_engine(instance)->loop, begin_next, instance_ref(instance));
}

void operation_submit(struct operation *operation)
{
        list_append(&operation->instance->private->operations, &operation->node);
        schedule(operation->instance);
}

static void operation_free(struct operation *operation)
{
        list_remove(&operation->node);
        loop_source_destroy(operation->timer);
        if (operation->data_free)
                operation->data_free(operation->data);
        instance_unref(operation->instance);
        free(operation);
}

void operation_finish(struct operation *operation, int r, const struct err *err)
{
        struct instance *instance = instance_ref(operation->instance);
        answer_later(instance_engine(instance), r, err, operation->done, operation->arg);
        operation_free(operation);
        schedule(instance);
        instance_unref(instance);
}

void operations_drop(struct instance *instance)
{
        list_for_each_safe (struct operation, operation, &instance->private->operations, node)
                operation_free(operation);
}

void operation_advance(struct instance *instance)
{
        struct operation *operation = operation_current(instance);
        if (operation && operation->begun && operation->kind->advance)
                operation->kind->advance(operation);
}

void operation_arm(struct operation *operation, void (*expired)(void *operation), int64_t delay_ns)
{
        struct engine *engine = instance_engine(operation->instance);
        loop_source_destroy(operation->timer);
        operation->timer = NULL;
        if (loop_timer(engine->loop, expired, operation, &operation->timer, NULL) == 0)
                loop_timer_arm(operation->timer, delay_ns);
}
