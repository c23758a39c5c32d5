/* One process in a guest and whoever stands for it on the host: streams, signals,
 * terminal and exit status, by the agent's protocol (agent/message.h). The guest is
 * hostile: what it answers is bounded and checked, and a guest that does not answer is
 * an error after SESSION_TIMEOUT_MS. One thread. */
#pragma once

#include <stdbool.h>

#include "agent/message.h"
#include "agent/pump.h"
#include "base/buf.h"

#define SESSION_TIMEOUT_MS 60000
#define SESSION_STREAMS    3
#define SESSION_KEY_SIZE   17 /* with the NUL */
#define SESSION_ENTRIES    (1 + SESSION_STREAMS * PUMP_ENTRIES)

struct session {
        int control;
        char key[SESSION_KEY_SIZE]; /* by which the agent knows it */
        bool terminal;
        struct buf in;
        struct pump pumps[SESSION_STREAMS];
        bool has_exit;
        int exit_code;
        uint32_t oom_kills; /* that were told */
};

/* A connection to the agent behind the vsock device's Unix socket, `directory`/vsock. */
int agent_connect(int directory_fd, int *ret_fd, struct err *err);
/* Sends and waits for the answer, which is an error when it says so. */
int agent_ask(int fd, struct buf *in, const struct agent_request *request, struct agent_reply *ret,
              struct err *err);
/* One line of the guest's, which is an error when it says so. */
int agent_take_reply(const char *line, size_t size, struct agent_reply *ret, struct err *err);
/* Runs a verb of the guest's runtime. */
int agent_call(int directory_fd, char *const *argv, struct agent_reply *ret, struct err *err);

/* Sets the guest's real time to the host's: at boot it loses what its kernel takes before it has a
 * clock, which on a busy host is tenths of a second. With `gently` a small difference is made up
 * for by and by, as a program wants it that looks at the clock meanwhile. */
int agent_set_clock(int directory_fd, bool gently, struct err *err);

/* Launches; standard descriptors 0 to 2 of the caller become the process's (with
 * request->terminal 0 and 1, which are a terminal). `request->key` is chosen here. */
int session_open(struct session *session, int directory_fd, struct agent_request *request,
                 struct err *err);
void session_watch(const struct session *session, struct pollfd entries[SESSION_ENTRIES]);
int session_work(struct session *session, const struct pollfd entries[SESSION_ENTRIES],
                 struct err *err);
/* Before it runs: gives it the cards, which stay the caller's. */
int session_give_cards(struct session *session, int directory_fd, struct agent_card *cards,
                       size_t length, struct err *err);
/* The process has ended, and all that it wrote was passed on. */
bool session_done(const struct session *session);
int session_signal(struct session *session, int signo, struct err *err);
/* The size of the terminal at descriptor 0. */
int session_resize(struct session *session, struct err *err);
void session_close(struct session *session);
