/* Standard input, output and error joined to a hijacked connection: what `run`,
 * `attach`, `start -a` and `exec` do while the container's process runs.
 *
 * One poll loop moves bytes both ways and never waits on one direction while the
 * other could move. The connection ends the session; the end of standard input
 * only shuts down our sending side. Without a remote terminal the stream is
 * demultiplexed (stdcopy.h); with one it is passed through, the local terminal is
 * raw meanwhile, and detach keys are looked for.
 *
 * Signals: with a terminal, SIGWINCH is reported as a new size (and once at the
 * start); keys arrive as bytes, so ^C is the remote side's business; SIGTERM and
 * the like restore the terminal and kill us as they should. Without a terminal
 * and with `forward`, every signal that can be caught is reported instead.
 */
#pragma once

#include <stdbool.h>

#include "base/buf.h"
#include "base/err.h"
#include "cli/detach.h"

struct session {
        int fd;                  /* the connection, borrowed; is made non-blocking */
        struct buf early;        /* what had arrived already, borrowed */
        bool terminal;           /* the remote side has one */
        int input_fd;            /* -1: none; our side then just stays open */
        int output_fd, error_fd; /* -1: thrown away */
        struct detach detach;    /* looked for when input_fd is a terminal */
        bool forward;
        void (*resize)(void *arg, unsigned rows, unsigned columns);
        void (*signal)(void *arg, int signo);
        void *arg;
};

enum session_end { SESSION_CLOSED, SESSION_DETACHED };

/* Prepares signals; call it before anything that starts the remote process, so
 * that none is lost. With `raw` also switches the terminal. */
int session_prepare(struct session *session, struct err *err);
int session_run(struct session *session, enum session_end *ret, struct err *err);
/* Undoes prepare; idempotent. */
void session_finish(struct session *session);
