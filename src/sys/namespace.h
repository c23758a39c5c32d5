/* Namespaces: kinds, joining, identity, id maps.
 *
 * The table is indexed by `enum namespace_kind`; `flag` is the CLONE_NEW… bit.
 * Source: namespaces(7), user_namespaces(7), time_namespaces(7). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif

enum namespace_kind {
        NAMESPACE_USER, /* in the order of joining: the user namespace gives the rights */
        NAMESPACE_PID,
        NAMESPACE_NETWORK,
        NAMESPACE_MOUNT,
        NAMESPACE_IPC,
        NAMESPACE_UTS,
        NAMESPACE_CGROUP,
        NAMESPACE_TIME,
        NAMESPACE_KINDS,
};

struct namespace_info {
        const char *file; /* under /proc/PID/ns */
        int flag;         /* CLONE_NEW… */
};

extern const struct namespace_info namespace_table[NAMESPACE_KINDS];

/* Opens a namespace file and makes sure it is one of the wanted kind. */
int namespace_open(const char *path, enum namespace_kind kind, int *ret_fd, struct err *err);
/* True where the descriptor is the namespace the caller is in. */
bool namespace_is_own(int fd, enum namespace_kind kind);

/* Calls `visit` in that namespace and returns to the caller's. For kinds that a thread may
 * change and change back: not user, pid, time. Who cannot return is ended. */
int namespace_visit(int fd, enum namespace_kind kind, int (*visit)(void *arg, struct err *err),
                    void *arg, struct err *err);

/* We have no rights over the host: somebody else than root, or root of a user namespace. */
bool namespace_is_rootless(void);

struct namespace_map { /* one line of uid_map or gid_map */
        uint32_t inside, outside, count;
};

/* Writes uid_map and gid_map (and "deny" to setgroups where the caller may not
 * write a gid map otherwise) of `pid`, a child in a new user namespace. Without
 * privilege and with more than the caller's own id, newuidmap and newgidmap are
 * run. `proc_fd` is a descriptor of /proc. */
int namespace_write_maps(int proc_fd, pid_t pid, const struct namespace_map *uids,
                         size_t uids_length, const struct namespace_map *gids, size_t gids_length,
                         struct err *err);

/* A descriptor of a fresh user namespace with these maps, for idmapped mounts.
 * Costs a short-lived child. */
int namespace_user_create(const struct namespace_map *uids, size_t uids_length,
                          const struct namespace_map *gids, size_t gids_length, int *ret_fd,
                          struct err *err);
