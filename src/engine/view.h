/* The file system of an instance as it sees it, for worker threads.
 *
 * Running: /proc/PID/root, everything as it is mounted there; in a virtual machine, whose guest is
 * asked where it can be, the root that is shared with it, or a look at its layers, and volumes and
 * binds as below. Not running: its
 * overlay, mounted detached, and its volumes and binds by the longest prefix of the path (a link
 * that leads from the root file system into a volume finds the empty mount point then).
 *
 * A view that is open is shared: a start meanwhile clones its mount, since overlayfs does
 * not like an upper directory to be mounted twice. view_create and view_unref belong to
 * the loop's thread, all else to any one thread at a time. */
#pragma once

#include "engine/core.h"

struct view_mount {
        char *destination;
        char *source;
        bool read_write;
};

struct view {
        unsigned references;
        struct instance *instance; /* a reference */
        pid_t pid;                 /* 0: not running */
        struct view_mount *mounts;
        size_t mounts_length;
        bool read_only_root;
        bool in_guest; /* what goes to the root goes through a guest, which alone sees its mounts */
        bool guest_answers; /* and reading does, for as long as it is not paused */
        int root_fd;        /* opened by view_open() */
        /* Of a running one: ids as we see them, which are not those in it. */
        struct id_remap remap;
};

/* -EBUSY where the instance is starting. */
int view_create(struct instance *instance, struct view **ret, struct err *err);
void view_unref(struct view *view);

/* Blocks. To be called first. */
int view_open(struct view *view, struct err *err);

/* Where a path lies: *ret_fd (the caller's) is a root, *ret_path (heap) absolute beneath it.
 * *ret_read_only (may be NULL): nothing may be written there. *ret_in_guest (may be NULL): it is
 * for reading only, since the guest has it otherwise. */
int view_locate(const struct view *view, const char *path, int *ret_fd, char **ret_path,
                bool *ret_read_only, bool *ret_in_guest, struct err *err);
