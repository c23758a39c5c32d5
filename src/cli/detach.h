/* Detach keys: the sequence typed to leave a container's terminal while the
 * container goes on ("ctrl-p,ctrl-q" unless told otherwise). Pure. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/err.h"

#define DETACH_KEYS_MAX     16
#define DETACH_KEYS_DEFAULT "ctrl-p,ctrl-q"

struct detach {
        unsigned char keys[DETACH_KEYS_MAX];
        size_t length;  /* 0: no way out by keys */
        size_t matched; /* keys of the sequence typed so far; they are held back */
};

/* "ctrl-X" or single characters, separated by commas; NULL or "" is the default. */
int detach_parse(const char *text, struct detach *ret, struct err *err);

/* Appends to `out` what may be passed on. True once the sequence is complete;
 * input behind it is dropped. */
bool detach_filter(struct detach *detach, const void *data, size_t size, struct buf *out);
