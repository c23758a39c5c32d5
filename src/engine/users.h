/* Who a process runs as: "name|uid[:group|gid]" looked up in a root file system's
 * /etc/passwd and /etc/group.
 *
 * Both files belong to the image or the instance: they are opened inside its root,
 * must be regular, and at most USERS_FILE_MAX bytes of them are read. Lines that
 * are not of the right form are passed over, as the C library does. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define USERS_FILE_MAX   ((size_t)4 << 20)
#define USERS_GROUPS_MAX 1024 /* supplementary */

struct user_found {
        uint32_t uid, gid;
        uint32_t *groups; /* supplementary, heap */
        size_t groups_length;
        char *home; /* "/" where the file does not say; heap */
};
void user_found_finish(struct user_found *user);

/* `passwd` and `group` are the files' texts ("" where missing). `group_add` (strv, may
 * be NULL) are further groups by name or number. -EINVAL "unable to find user x: no
 * matching entries in passwd file". Pure. */
int user_resolve(const char *spec, const char *passwd, const char *group, char *const *group_add,
                 struct user_found *ret, struct err *err);

/* The same, with the files of the root that `root_fd` is. May block on its file system. */
int user_lookup(int root_fd, const char *spec, char *const *group_add, struct user_found *ret,
                struct err *err);
