/* Chords of keys by name: "a", "ctrl-alt-delete", "shift-f10". */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define KEYS_CODES 32

/* Scan codes of set 1 that press the keys in order and let them go again. -EINVAL,
 * naming the key, for one that there is not. */
int keys_codes(const char *chord, uint8_t ret[KEYS_CODES], size_t *ret_length, struct err *err);
