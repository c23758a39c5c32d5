/* Where things are in a state file: see state.h. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <zlib.h>

#define STATE_MAGIC       "ISLESTAT"
#define STATE_VERSION_AT  8
#define STATE_SECTIONS_AT 12
#define STATE_TOTAL_AT    16
#define STATE_SUM_AT      24
#define STATE_ZERO_AT     28
#define STATE_HEADER_SIZE 32

#define STATE_SECTION_VERSION_AT 40
#define STATE_SECTION_SIZE_AT    44
#define STATE_SECTION_HEADER     48

/* Of a whole file. */
static inline uint32_t state_sum(const void *data, size_t size)
{
        return (uint32_t)crc32_z(0, (const uint8_t *)data + STATE_HEADER_SIZE,
                                 size - STATE_HEADER_SIZE);
}
