/* A session (session.h) with a container's or exec's process, as a command holds
 * it: opening the connection, resizing and signalling through the API, and the
 * exit status at the end. */
#pragma once

#include "cli/command.h"
#include "cli/daemon.h"
#include "cli/session.h"

struct attachment {
        struct cli *cli;
        const char *id;     /* of the container or exec; borrowed */
        const char *resize; /* target formats with one %s: "/containers/%s/resize" */
        const char *kill;   /* NULL: signals are not passed on */
        bool twitch;        /* the first resize is done twice, so that programs redraw */
        struct session session;
        struct buf early;
};

/* Posts and takes the connection over. The session's fields are set before. */
int attachment_open(struct attachment *attachment, const struct buf *target,
                    struct json_object *body, struct err *err);
/* Moves bytes until the end; SESSION_DETACHED where the person left. */
int attachment_run(struct attachment *attachment, enum session_end *ret, struct err *err);
void attachment_finish(struct attachment *attachment);

/* The streams of a call: target?stream=1&stdin=1… */
void attachment_target(struct buf *target, const char *id, bool in, bool out, bool errors,
                       const char *detach_keys);

/* Waiting for a container's exit: begin before it is started, finish after. A
 * daemon that was restarted meanwhile is asked again. *ret is the exit status. */
int container_wait_begin(struct cli *cli, const char *id, const char *condition,
                         struct http_exchange **ret, struct err *err);
int container_wait_finish(struct cli *cli, const char *id, struct http_exchange *exchange, int *ret,
                          struct err *err);
