/* Volumes, for the engine's files. */
#pragma once

#include "engine/core.h"
#include "engine/mounts.h"
#include "engine/volume.h"

/* Directories of removed volumes are renamed to this and some digits, then deleted. No
 * volume's name begins with a dot. */
#define VOLUME_GRAVE_PREFIX ".removed-"

/* Makes objects for the plan's volumes that do not exist yet, and appends their store
 * operations to `ops`. The objects are in the table at once. */
struct volume_txn {
        struct store_op *ops;
        size_t length;
        char **strings; /* what the ops point to */
        char **made;    /* names of new volumes */
};
void volumes_plan(struct engine *engine, const struct mount_plan *plan, struct volume_txn *txn);
/* After a failure: takes the new ones back. */
void volumes_unplan(struct engine *engine, struct volume_txn *txn);
void volume_txn_finish(struct volume_txn *txn);

/* An instance mounts them, or does no longer. */
void volumes_use(const struct instance *instance, int change);

/* Makes the directory of a volume. Any thread. */
int volume_make_dir(const char *volumes_dir, const char *name, struct err *err);

/* Operations that remove an instance's anonymous volumes which nobody else uses. Once they
 * are committed, volumes_dropped() forgets the volumes, tells, and replaces the names in
 * txn->made by those of the directories to be deleted with volume_remove_dir(). */
void volumes_drop_anonymous(const struct instance *instance, struct volume_txn *txn);
void volumes_dropped(struct engine *engine, struct volume_txn *txn);
/* Deletes the directory. Any thread; blocks. */
int volume_remove_dir(const char *volumes_dir, const char *name, struct err *err);
