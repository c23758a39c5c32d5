/* A conversation with CRIU, the program that stops a tree of processes, writes it down, and makes
 * it anew: https://criu.org.
 *
 * `criu swrk FD` serves one peer on a socket and is gone when the peer is. If we die, CRIU meets
 * the end of the stream at its next notification, undoes what it has done and lets the processes
 * go on; it must never be killed in the middle, when its code runs in theirs.
 *
 * Refused is what is older than CRIU_VERSION_MIN. Messages are in criu_wire.h. */
#pragma once

#include <sys/types.h>

#include "runtime/criu_wire.h"
#include "sys/spawn.h"

#define CRIU_PROGRAM     "criu"
#define CRIU_VERSION_MIN 31600 /* 3.16: single pre-dumps, other security labels on restore */
#define CRIU_FIRST_FD    4     /* from here on, fds of criu_open() may be put */

struct criu {
        int fd; /* -1 */
        pid_t pid;
        uint32_t version; /* 40101 is 4.1.1 */
};

/* Starts it and asks its version. The child has our standard descriptors and `fds`. Where there
 * is no such program or it is too old, the error tells the way out. */
int criu_open(const char *program, const struct spawn_fd *fds, size_t fds_length, struct criu *ret,
              struct err *err);
/* One that could be opened, without a word of it. */
bool criu_is_there(const char *program);
/* Ends the conversation and reaps the process. */
void criu_close(struct criu *criu);

/* What CRIU tells while it works, which waits for the answer: an error makes it undo everything.
 * `script` is the event ("post-restore"); pid and fd are 0 and -1 where it has none. The
 * descriptor is closed by the caller. */
struct criu_listener {
        int (*notify)(void *arg, const char *script, pid_t pid, int fd, struct err *err);
        void *arg;
};

/* One of dump, pre-dump, restore: the last request of a conversation. *ret_pid is of a restored
 * tree and may be NULL; `listener` too. */
int criu_perform(struct criu *criu, enum criu_kind kind, const struct criu_options *options,
                 const struct criu_listener *listener, pid_t *ret_pid, struct err *err);
/* 1 where pages written to since the last dump can be told (pre-dumps), 0 where not. */
int criu_tracks_memory(struct criu *criu, struct err *err);

#define auto_criu __attribute__((cleanup(criu_close))) struct criu
