/* What is left of an instance whose record is gone. */
#pragma once

#include "engine/core.h"

/* Deletes snapshot and directory of an id, and these volumes' directories (strv, taken,
 * may be NULL), on a worker. */
void leftovers_delete(struct engine *engine, const char *id, char **volumes);
