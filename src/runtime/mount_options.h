/* Mount options of config.json -> what the kernel is told. Pure.
 *
 * Options are those of mount(8) and of runtime-spec config-linux.md: words about
 * the mount point ("nosuid"), the same with r in front for the whole tree
 * ("rnosuid"), propagation ("rslave"), words for the runtime ("tmpcopyup",
 * "idmap"), and whatever is left belongs to the file system and is handed over
 * as it stands ("size=65536k"). A later option overrides an earlier one.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct mount_options {
        bool bind, recursive; /* bind, rbind */
        bool remount;
        bool copy_up;                  /* tmpcopyup */
        bool idmap, idmap_recursive;   /* idmap, ridmap */
        bool source_nofollow;          /* a symbolic link is bound itself */
        bool read_only;                /* ro, of the last word on it */
        uint64_t set, clear;           /* MOUNT_ATTR_… of the mount itself */
        uint64_t tree_set, tree_clear; /* of the whole tree */
        uint64_t propagation;          /* MS_SHARED …, 0 for none */
        bool propagation_recursive;
        char **data; /* for the file system */
};

int mount_options_parse(char *const *words, struct mount_options *ret, struct err *err);
void mount_options_finish(struct mount_options *to);

/* All words the parser knows, in the order of the table, for `features`. */
char **mount_options_known(void);
