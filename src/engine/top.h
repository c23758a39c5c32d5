/* Parsing of ps(1)'s output. Pure. */
#pragma once

#include "engine/instance.h"

/* The lines whose PID is one of `pids`; NULL: all lines. */
int top_parse(const char *output, const pid_t *pids, size_t length, struct instance_top *ret,
              struct err *err);
void instance_top_finish(struct instance_top *top);
