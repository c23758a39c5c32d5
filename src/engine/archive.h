/* Files of an instance, running or not: `docker cp` and `docker export`.
 *
 * Paths are walked as the instance sees them, links included, and never leave
 * its root; those of a machine that runs are its guest's to walk. Streams are tar, uncompressed;
 * put takes gzip and zstd as well.
 */
#pragma once

#include "engine/instance.h"

/* X-Docker-Container-Path-Stat */
struct archive_stat {
        char *name; /* last component */
        int64_t size;
        uint32_t mode; /* Go's os.FileMode bits, as docker's header wants */
        int64_t mtime_ns;
        char *link_target; /* "" or where it leads, resolved in the instance */
};
/* {"name":…,"size":…,"mode":…,"mtime":…,"linkTarget":…}; heap. */
char *archive_stat_json(const struct archive_stat *stat);

/* fd: where the archive comes, or -1 (base/file.h: io_stream); the callee owns it. `stat` is
 * borrowed. */
typedef void archive_done(void *arg, int r, const struct err *err, const struct archive_stat *stat,
                          int fd);
void instance_archive_stat(struct instance *instance, const char *path, archive_done *done,
                           void *arg);
void instance_archive_get(struct instance *instance, const char *path, archive_done *done,
                          void *arg);

struct archive_put_options {
        bool no_overwrite_dir_non_dir;
        bool copy_uid_gid;
};
/* body_fd is taken. */
void instance_archive_put(struct instance *instance, const char *path,
                          const struct archive_put_options *options, int body_fd, engine_done *done,
                          void *arg);
/* The whole root file system without its mounts. */
void instance_export(struct instance *instance, archive_done *done, void *arg);
