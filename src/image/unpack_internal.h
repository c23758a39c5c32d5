/* What unpack.c and unpack_parent.c share. */
#pragma once

#include <stdbool.h>
#include <sys/stat.h>

#include "base/table.h"
#include "image/unpack.h"

#define UNPACK_PARENTS   8
#define UNPACK_LINKS_MAX 40
#define UNPACK_PATH_MAX  4096
#define OVERLAY_OPAQUE   "trusted.overlay.opaque"
#define WHITEOUT_PREFIX  ".wh."
#define WHITEOUT_META    ".wh..wh."
#define WHITEOUT_OPAQUE  ".wh..wh..opq"

/* A directory of the layer that is kept open, by its path in the tar. */
struct unpack_parent {
        char *path;
        int fd;        /* O_PATH */
        uint64_t used; /* when, on unpack.clock */
};

struct unpack_directory {
        char *path;
        int64_t mtime_ns;
};

struct unpack {
        int root_fd;
        uint64_t size_limit, entries_limit, memory_limit;
        const atomic_bool *cancel;
        mode_t umask;
        bool setgid_seen; /* a directory hands its group down: owners must be set */
        uint64_t size_bytes, entries, memory_bytes;
        struct unpack_parent parents[UNPACK_PARENTS];
        uint64_t clock;
        struct table implicit; /* path -> itself */
        char **implicit_order;
        size_t implicit_length, implicit_capacity;
        struct unpack_directory *directories; /* whose mtime is due */
        size_t directories_length, directories_capacity;
};

/* Normalises: no leading, trailing or double slash, no ".". -EBADMSG for "..". */
int unpack_clean_path(const char *path, char clean[UNPACK_PATH_MAX], struct err *err);
/* The directory that holds `path` (clean, not ""), made where missing, and the
 * last component. The descriptor is borrowed until the next call. */
int unpack_find_parent(struct unpack *unpack, const char *path, int *ret_fd, const char **ret_name,
                       struct err *err);
/* The same without making anything: -ENOENT. */
int unpack_find_existing(struct unpack *unpack, const char *path, int *ret_fd,
                         const char **ret_name, struct err *err);
/* Something that a kept path may lead through is gone. */
void unpack_forget_parents(struct unpack *unpack);
/* A directory of the layer, links resolved inside; -errno only. */
int unpack_open_dir(struct unpack *unpack, const char *path);
/* Takes the path. */
void unpack_note_implicit(struct unpack *unpack, char *path);
int unpack_count_memory(struct unpack *unpack, size_t size, struct err *err);
bool unpack_is_whiteout(const struct stat *st);
int unpack_set_opaque(int dirfd, struct err *err);
