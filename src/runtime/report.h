/* What is printed about containers, apart from the printing. */
#pragma once

#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"
#include "sys/cgroup.h"

/* The event {"type":"stats",…} in runc's form, one line, heap. */
char *report_stats(const char *id, const struct cgroup_stats *stats);

/* Prints the header of ps(1)'s output and the lines whose PID is in the list. */
int report_filter_ps(const char *text, const pid_t *pids, size_t length, struct err *err);
