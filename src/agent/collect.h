/* Files out of a root as a tar stream: docker cp out of a container. By the engine where it sees
 * the root as the container does, and by the agent where only the guest does.
 *
 * Links in the root are followed inside it, and the last component only where the path ends in "/"
 * or "/.", as in docker. Blocks; any thread. */
#pragma once

#include <sys/stat.h>

#include "agent/tree_tar.h"
#include "base/err.h"
#include "codec/tar.h"

struct collect {
        int root_fd;           /* borrowed */
        const char *base;      /* the place, absolute beneath root_fd, without ".." */
        const char *path;      /* the same as the user named it: for its names, and for errors */
        const char *container; /* its name, for errors */
};

/* A file that was found. */
struct collected {
        int dir_fd; /* of its directory */
        char *name; /* in it; "." for the directory itself */
        char *as;   /* what its archive calls it */
        struct stat stat;
        char *link_target; /* "" or where it leads, as a path in the root */
};

/* -ENOENT and -EINVAL (no directory) in docker's words. */
int collect_find(const struct collect *from, struct collected *ret, struct err *err);
int collect_archive(const struct collected *file, const struct tree_ids *ids, tar_write *write,
                    void *arg, struct err *err);
void collected_finish(struct collected *file);

#define auto_collected CLEANUP(collected_finish) struct collected
