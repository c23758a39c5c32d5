/* Durability after the fact.
 *
 * A pull does not wait for the disk. What it writes is recorded as not durable,
 * with the id of this boot; a thread then syncs the file system once and marks
 * all records that were there before the sync. Opening a store after a power
 * loss finds records of another boot that are not durable: their layers are
 * dropped and their blobs verified (image/recover.c).
 *
 * The thread starts with the first wish and lives until durable_destroy, which
 * does not wait for a sync that has not begun: the same boot will go on with it.
 */
#pragma once

#include "base/err.h"

struct durable;
struct image_store;

struct durable *durable_create(struct image_store *st);
void durable_destroy(struct durable *durable); /* NULL ok */
/* Something new was written. NULL ok. Any thread. */
void durable_wanted(struct durable *durable);
/* Now, in this thread: for tests and image_store_close. */
int durable_sync(struct image_store *st, struct err *err);
