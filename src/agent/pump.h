/* Bytes from one descriptor to another, without ever blocking: one direction of a
 * process's stream. Both descriptors are non-blocking, or sockets (which are written
 * with MSG_DONTWAIT). The end of the input closes the output: a socket's writing half,
 * or the descriptor. Descriptors belong to the pump. One thread. */
#pragma once

#include <poll.h>
#include <stdbool.h>

#include "base/buf.h"

struct pump {
        int from, to;    /* -1: closed */
        bool keeps_from; /* `from` is closed by its other user: a socket used both ways */
        bool keeps_to;   /* the same; of a socket the writing half is closed */
        bool careful;    /* `to` blocks, and others use it: written only when, and as much
                          * as, a pipe takes, and left as it is */
        struct buf held; /* read, not yet written */
};

#define PUMP_ENTRIES 2 /* that pump_watch fills */

bool pump_done(const struct pump *pump);
/* What poll() shall wait for; the same entries are given to pump_work. */
void pump_watch(const struct pump *pump, struct pollfd entries[PUMP_ENTRIES]);
void pump_work(struct pump *pump, const struct pollfd entries[PUMP_ENTRIES]);
/* The source's owner has gone: takes what can still be read now, and then ends. */
void pump_drain(struct pump *pump);
void pump_close(struct pump *pump);
