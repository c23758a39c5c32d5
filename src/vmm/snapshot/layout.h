/* Where things are in a state file: see state.h. */
#pragma once

#define STATE_MAGIC       "ISLESTAT"
#define STATE_VERSION_AT  8
#define STATE_SECTIONS_AT 12
#define STATE_TOTAL_AT    16
#define STATE_ZERO_AT     24
#define STATE_SUM_AT      32
#define STATE_SUM_SIZE    64
#define STATE_HEADER_SIZE 96

#define STATE_SECTION_VERSION_AT 40
#define STATE_SECTION_SIZE_AT    44
#define STATE_SECTION_HEADER     48
