/* A state file of a test's or a fuzzer's making, once more with the size and checksum that it has.
 */
#pragma once

#include <string.h>

#include "vmm/snapshot/layout.h"

static inline void state_mend(uint8_t *data, size_t size)
{
        uint64_t total = size;
        uint32_t sum = state_sum(data, size);
        memcpy(data + STATE_SUM_AT, &sum, sizeof(sum));
        memcpy(data + STATE_TOTAL_AT, &total, sizeof(total));
}
