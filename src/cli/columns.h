/* Text in columns, by elastic tab stops (what docker's tables are made with).
 *
 * Cells of a line are ended by tabs; a column is a run of successive lines that
 * have a cell there, and is as wide as its widest cell plus the padding, at
 * least the minimum. What follows the last tab of a line is not in a column.
 * Width counts code points.
 */
#pragma once

#include <stddef.h>

#include "base/buf.h"

#define COLUMNS_MINIMUM 10
#define COLUMNS_PADDING 3

/* Appends `text` (lines of tab-separated cells) to `out`, laid out. */
void columns_format(struct buf *out, const char *text, size_t minimum, size_t padding);
