/* User namespaces for instances (docker's userns-remap): root inside is nobody outside.
 *
 * The ids are those of a user's ranges in /etc/subuid and /etc/subgid (subuid(5)). Files
 * keep the image's ids on disk: layers, the writable layer and named volumes are mounted with
 * the ids mapped, so that all instances share them whoever they run as. Host directories
 * (`-v /host:/there`) are not mapped, as in docker. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct host_config;
struct oci_linux;

struct id_remap {
        bool on;
        uint32_t uid, uids; /* the first, and how many */
        uint32_t gid, gids;
};

/* Of "user", "user:group" or "default" (the user isle); NULL or "" is off. -ENOENT where
 * the files have no range for them. */
int remap_load(const char *setting, struct id_remap *ret, struct err *err);

/* What applies to an instance: off where it wants the host's user namespace. */
struct id_remap remap_of(const struct id_remap *remap, const struct host_config *host);

/* -EINVAL where it asks for what cannot be had in a user namespace. */
int remap_check(const struct id_remap *remap, const struct host_config *host, struct err *err);

/* Namespace and mappings. */
void remap_apply(const struct id_remap *remap, struct oci_linux *l);

/* A descriptor of a user namespace for idmapped mounts. Blocks for a short-lived child. */
int remap_namespace(const struct id_remap *remap, int *ret_fd, struct err *err);

/* Files that this thread makes belong to root inside, until remap_leave(). */
int remap_enter(const struct id_remap *remap, struct err *err);
void remap_leave(const struct id_remap *remap);
