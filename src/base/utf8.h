/* UTF-8 from strangers. Source: Unicode 15, table 3-7. */
#pragma once

#include <stddef.h>

/* Length of the character at `text` (1 … 4), or 0 where there is none. `size` is at least 1. */
size_t utf8_length(const void *text, size_t size);

/* As text (heap): every byte that is no character, and NUL, becomes U+FFFD. At most three times
 * as long. */
char *utf8_clean(const void *bytes, size_t size);
