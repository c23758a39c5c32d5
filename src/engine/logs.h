/* Reading an instance's log as `docker logs` does.
 *
 * The result is a pipe: plain bytes for an instance with a tty, docker's 8-byte
 * stream headers otherwise. The reader's pace is respected; closing the read end
 * ends the work. Follows across rotation; a follow ends when the instance stops.
 */
#pragma once

#include "engine/instance.h"

struct log_query {
        bool out, err;
        bool follow;
        bool timestamps;  /* each line begins with its RFC 3339 time */
        bool details;     /* then the log options' extra attributes */
        int64_t since_ns; /* 0: from the start */
        int64_t until_ns; /* 0: no end */
        int64_t tail;     /* lines; -1: all */
};

/* "1700000000.5", RFC 3339, or a duration before now ("10m30s"). */
int log_time_parse(const char *text, int64_t now_ns, int64_t *ret_ns, struct err *err);

/* -ENOTSUP where the log driver keeps nothing. The caller owns *ret_fd. */
int instance_logs(struct instance *instance, const struct log_query *query, int *ret_fd,
                  struct err *err);

struct attach_options;
struct monitor_message;
/* For attach.c: writes the log to the client first, then hands the client on. */
int attach_with_logs(struct instance *instance, const struct attach_options *options,
                     const struct monitor_message *message, int fd, struct err *err);
