/* Operations: what was asked of one instance, one after another.
 *
 * operation_submit() puts one at the end of its instance's queue. When it comes to
 * the head, `kind->begin` is called (in a later turn of the loop); it works until
 * operation_finish(), which answers and lets the next begin. Meanwhile
 * `kind->advance` is called whenever the instance's run or state has changed. */
#pragma once

#include "engine/core.h"

struct operation;

struct operation_kind {
        const char *name; /* for messages: "start" */
        void (*begin)(struct operation *operation);
        void (*advance)(struct operation *operation); /* NULL: it does not care */
};

struct operation {
        const struct operation_kind *kind;
        struct list node;
        struct instance *instance; /* a reference */
        bool begun;
        engine_done *done; /* NULL: nobody waits */
        void *arg;
        /* parameters and state of some kinds */
        int signo;
        int64_t timeout_s;
        bool force, volumes;
        bool then_start; /* restart */
        unsigned step;
        struct loop_source *timer;
        void *data; /* the kind's */
        void (*data_free)(void *data);
};

struct operation *operation_new(struct instance *instance, const struct operation_kind *kind,
                                engine_done *done, void *arg);
void operation_submit(struct operation *operation);
/* Calls done(r, err) later in the loop and frees the operation. */
void operation_finish(struct operation *operation, int r, const struct err *err);
/* The instance's run or state has changed. */
void operation_advance(struct instance *instance);
/* The operation under way, or NULL. */
struct operation *operation_current(const struct instance *instance);
/* Arms the operation's timer. */
void operation_arm(struct operation *operation, void (*expired)(void *operation), int64_t delay_ns);

/* Calls done in a later turn, with a copy of err. For functions that answer at once. */
void answer_later(struct engine *engine, int r, const struct err *err, engine_done *done,
                  void *arg);
