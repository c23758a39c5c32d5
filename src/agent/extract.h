/* Files out of a tar stream, at a place in a root: docker cp into a container. By the engine where
 * it sees the root as the container does, and by the agent where only the guest does.
 *
 * Names in the archive are relative to the place; ".." is refused. Every file is made by a
 * descriptor of its directory, resolved inside the root, so that neither links in the archive nor
 * those in the root lead out of it. Blocks; any thread. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "codec/tar.h"

struct extract {
        int root_fd;                   /* borrowed */
        const char *base;              /* the place, absolute beneath root_fd */
        const char *path;              /* the same as the user named it, for errors */
        const char *container;         /* its name, for errors */
        bool read_only;                /* known to be, though it can be written here */
        bool no_overwrite_dir_non_dir; /* nor the reverse */
        bool has_owner;                /* all files get these, instead of their own */
        uint32_t uid, gid;
        /* The root's ids are shifted here: its 0 is first_uid, and there are so many. */
        bool shifts;
        uint32_t first_uid, uids, first_gid, gids;
};

/* The place is a directory, and can be written to: -EINVAL or -ENOENT in docker's words. */
int extract_check(const struct extract *to, struct err *err);

/* -EINVAL, for a place that is known not to be. */
int extract_refuse_read_only(struct err *err);

/* All entries that are left. What came before an error stays. */
int extract_archive(const struct extract *to, struct tar_reader *reader, struct err *err);
