/* The processes of a guest as ps(1) shows them. There is no ps in a guest that could be
 * asked, so its most used columns are here; process ids are the container's own. Pure. */
#pragma once

#include <stdint.h>

#include "agent/message.h"

/* Options of ps(1): -e -A -f -o LIST …, aux. */
struct ps_columns;
int ps_parse(char *const *options, struct ps_columns **ret, struct err *err);
void ps_columns_free(struct ps_columns *columns);

/* Titles and a line a process. `now_ns` is the real time at the answer. */
void ps_print(const struct ps_columns *columns, const struct agent_reply *reply, int64_t now_ns,
              struct buf *to);
