/* Names of instances. */
#pragma once

#include <stdbool.h>

#include "base/err.h"

/* [a-zA-Z0-9][a-zA-Z0-9_.-]+ */
bool name_is_valid(const char *name);
int name_check(const char *name, struct err *err);

/* "brisk_curlew": a quality and a bird or tree. With `attempt` > 0 a number is added,
 * so that repeated attempts find a free one. Heap. */
char *name_draw(unsigned attempt);
