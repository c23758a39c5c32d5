/* Processes named so that a reused number is never mistaken for the old one.
 *
 * A pid alone is not an identity; pid + start time (field 22 of /proc/PID/stat,
 * in clock ticks since boot) is, and can be written to a file. In memory a pidfd
 * is better still. Source: proc(5), pidfd_open(2).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

struct process_stat {
        char state; /* 'R', 'S', 'D', 'Z', 'T', … */
        pid_t parent;
        uint64_t start_time; /* ticks since boot */
};

/* -ESRCH where there is no such process. */
int process_stat(pid_t pid, struct process_stat *ret, struct err *err);
int process_start_time(pid_t pid, uint64_t *ret_start_time, struct err *err);

/* True while the very process lives; a zombie does not. */
bool process_same(pid_t pid, uint64_t start_time);

/* A pidfd of the process that has this start time (0: any). -ESRCH when gone. */
int process_open(pid_t pid, uint64_t start_time, int *ret_pidfd, struct err *err);
/* pidfd_send_signal; -ESRCH when gone. */
int process_signal(int pidfd, int signo, struct err *err);
/* Waits until the process has ended (it need not be a child). 1 when it has, 0
 * at the time limit; -1 waits for ever. */
int process_wait_gone(int pidfd, int timeout_ms, struct err *err);

/* Exit code as shells and OCI runtimes give it, of a waitpid() status: 0 … 255, 128 + signal. */
int process_exit_code(int status);

/* Every signal at its default and none blocked, including the two that the C
 * library keeps for itself and that a parent may have left ignored. For children
 * about to execute: the library's own handlers are gone after it. */
void process_reset_signals(void);

/* "TERM", "SIGTERM", "15", "RTMIN+3" -> number; -EINVAL otherwise. */
int process_signal_parse(const char *text, int *ret_signo);
