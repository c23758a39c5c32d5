/* The few rtnetlink requests a container start needs, spoken by hand.
 * Source: rtnetlink(7), linux/rtnetlink.h. */
#pragma once

#include <sys/types.h>

#include "base/err.h"

/* Sets the loopback of the calling process's network namespace up. */
int netlink_loopback_up(struct err *err);

/* Moves interface `name` of the caller's network namespace to the one of
 * `netns_fd`, there called `new_name` (NULL keeps it). */
int netlink_move_link(const char *name, int netns_fd, const char *new_name, struct err *err);
