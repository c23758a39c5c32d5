/* Detach keys: finds a sequence of bytes in what a person types.
 *
 * Bytes that may be its beginning are held back until the next one decides;
 * they are then passed on or, where the sequence is complete, swallowed. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "monitor/protocol.h"

struct detach {
        uint8_t keys[MONITOR_KEYS_MAX];
        size_t length;  /* 0: nothing is looked for */
        size_t matched; /* held back */
};

/* Copies what passes to `out` (room for size + MONITOR_KEYS_MAX) and its size to
 * *ret_size. True when the sequence was completed; the rest of `in` is dropped. */
bool detach_scan(struct detach *detach, const uint8_t *in, size_t size, uint8_t *out,
                 size_t *ret_size);
