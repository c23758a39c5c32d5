/* A tree of files as a tar stream: docker cp and export. By the engine where it sees the files, and
 * by the agent where only the guest does. Blocks; any thread. */
#pragma once

#include "base/err.h"
#include "codec/tar.h"

/* Ids as they are on disk become those within the container: first_uid its 0, and so many there
 * are. All zero changes nothing. */
struct tree_ids {
        uint32_t first_uid, uids, first_gid, gids;
};

/* Writes `name` of directory `dir_fd` and, where it is a directory, all beneath it; it is
 * called `as` in the archive, and what is below `as`/…; with "" that is a bare name. Hard links
 * within are kept; ids are written as they are within by `ids`; sockets and what lies on other
 * mounts are left out. */
int tree_tar(struct tar_writer *writer, int dir_fd, const char *name, const char *as,
             const struct tree_ids *ids, struct err *err);
