/* Messages between the runtime and the process that becomes the container's.
 *
 * One SOCK_SEQPACKET pair, CLOEXEC: one message a packet, and the end of the
 * stream says that the other side executed its program or died. The container's
 * side is never trusted with more than a text of bounded size. */
#pragma once

#include "base/err.h"

enum sync_kind {
        SYNC_END,    /* the other side is gone (or has executed) */
        SYNC_ERROR,  /* the container's process failed; the text says why */
        SYNC_MAPPED, /* -> ids are mapped */
        SYNC_CGROUP, /* -> the cgroup has its limits; join it */
        SYNC_HOOKS,  /* <- namespaces and mounts stand; run the hooks */
        SYNC_READY,  /* <- all is done but the program */
        SYNC_GO,     /* -> go on */
};

int sync_pair(int ret_fds[2], struct err *err);
/* -EPIPE: the other side is gone; sync_last_words() may know why. */
int sync_send(int fd, enum sync_kind kind, struct err *err);
int sync_send_error(int fd, const struct err *what);
/* Waits for a message; SYNC_ERROR fills *err and is returned as -errno. */
int sync_receive(int fd, struct err *err);
/* After r: where it says that the other side is gone (-ESRCH, -EPIPE), the error that
 * it sent before, if any, is better than ours that follows from it. */
int sync_last_words(int fd, int r, struct err *err);
/* Waits for this very message: anything else is an error. */
int sync_expect(int fd, enum sync_kind kind, struct err *err);
