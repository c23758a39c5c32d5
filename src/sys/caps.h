/* Capabilities by raw system calls and one table of names (no libcap).
 * Sources: capabilities(7), capset(2), linux/capability.h. */
#pragma once

#include <stdint.h>

#include "base/err.h"

#define CAPS_ALL UINT64_MAX

struct caps_sets {
        uint64_t bounding, effective, permitted, inheritable, ambient; /* bit per capability */
};

/* "CAP_KILL" (any case, prefix optional) -> number; -EINVAL for an unknown name. */
int caps_parse(const char *name, int *ret_cap);
/* "CAP_KILL"; NULL beyond the table. */
const char *caps_name(int cap);
/* The highest capability the running kernel knows. */
int caps_last(void);
/* Mask of names. Those that are unknown, or not in the kernel, are left out and handed to
 * `unknown` (may be NULL). */
uint64_t caps_mask(char *const *list, void (*unknown)(void *arg, const char *name), void *arg);

/* What the calling thread has. */
int caps_get(struct caps_sets *ret, struct err *err);
/* Drops everything outside `mask` from the bounding set. Needs CAP_SETPCAP
 * where something has to go. */
int caps_drop_bounding(uint64_t mask, struct err *err);
/* capset of effective, permitted, inheritable, then ambient. What the kernel
 * refuses is an error naming the first capability that cannot be had. */
int caps_set(const struct caps_sets *sets, struct err *err);
/* Makes effective again what a change of user took away; the other sets stay. */
int caps_raise_permitted(struct err *err);
