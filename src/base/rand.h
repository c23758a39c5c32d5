/* Randomness from the kernel: identifiers, tokens, temporary names. */
#pragma once

#include <stddef.h>
#include <stdint.h>

void rand_bytes(void *bytes, size_t size);
uint64_t rand_u64(void);

/* Writes `length` random lower-case hex digits and a NUL. */
void rand_hex(char *text, size_t length);
