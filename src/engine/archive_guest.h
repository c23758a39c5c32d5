/* docker cp into a machine whose root nobody but its guest may write to. */
#pragma once

#include "agent/extract.h"
#include "engine/core.h"
#include "engine/tar_source.h"

/* Passes the archive, not compressed, to the runtime's `extract`. Of `to` the place as the user
 * named it, the owner and what must not be overwritten are used; the guest resolves the place.
 * Blocks, for as long as the archive's sender and the guest take; a guest that stops taking it is
 * an error in the end (guest/session.h). */
int archive_guest_put(struct engine *engine, const char *id, const struct extract *to,
                      struct tar_source *source, struct err *err);
