/* Lengths of time as Go writes them, and so docker. */
#pragma once

#include <stdint.h>

#include "base/err.h"

/* "300ms", "1h2m3.5s", "-5s"; units ns us µs ms s m h; "0" alone is allowed. -EINVAL or -ERANGE, in
 * Go's words. */
int duration_parse(const char *text, int64_t *ret_ns, struct err *err);

/* "12.5" at *text; moves past it. -1 where there is no digit. */
double duration_take_number(const char **text);
