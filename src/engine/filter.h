/* Filters of prune, and labels. */
#pragma once

#include <stdbool.h>

/* Whether a map of labels has "key" or "key=value". */
bool label_matches(char *const *labels, const char *wanted);
