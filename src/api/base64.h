/* Base64 (RFC 4648), as headers of Docker's API carry JSON. Pure. */
#pragma once

#include <stddef.h>

#include "base/err.h"

/* With padding, standard alphabet; heap. */
char *base64_encode(const void *data, size_t size);

/* Standard or URL alphabet, padding optional. *ret_data (heap) is followed by a NUL
 * that *ret_size does not count. -EINVAL. */
int base64_decode(const char *text, char **ret_data, size_t *ret_size);
