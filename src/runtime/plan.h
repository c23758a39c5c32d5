/* What a start will do, decided before anything is done. Pure: the kernel is not
 * asked, so every decision can be tested and fuzzed from a config.json alone.
 *
 * A plan borrows from the spec it was made of, which must outlive it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "oci/runtime_spec.h"
#include "runtime/limits.h"
#include "runtime/mount_options.h"
#include "sys/caps.h"
#include "sys/namespace.h"

/* What distinguishes a process (the first or an exec'ed one) from another. */
struct plan_rlimit {
        int resource; /* RLIMIT_… */
        uint64_t soft, hard;
};

struct plan_process {
        const struct oci_process *oci;
        struct caps_sets caps; /* none of all where the spec has no capabilities */
        struct plan_rlimit *rlimits;
        size_t rlimits_length;
};

int plan_process_create(const struct oci_process *oci, struct plan_process *ret, struct err *err);
void plan_process_finish(struct plan_process *process);

enum plan_mount_kind {
        PLAN_MOUNT_NEW, /* a file system of its own */
        PLAN_MOUNT_BIND,
        PLAN_MOUNT_CGROUP,  /* the container's groups, whatever the host's version */
        PLAN_MOUNT_REMOUNT, /* attributes of what is mounted there already */
};

struct plan_mount {
        enum plan_mount_kind kind;
        const struct oci_mount *oci;
        char *source; /* of a bind: absolute */
        struct mount_options options;
        bool late_read_only; /* becomes read-only after everything was put into it */
};

struct plan_device {
        const char *path;
        mode_t mode; /* type and permissions */
        dev_t number;
        uid_t uid;
        gid_t gid;
};

struct plan_join {
        enum namespace_kind kind;
        const char *path;
};

struct plan {
        const struct oci_spec *spec;
        struct plan_process process;
        char *rootfs;            /* absolute */
        const char *mount_label; /* NULL until rootfs_find_label() */
        int new_namespaces;      /* CLONE_NEW… to create, CLONE_NEWTIME apart */
        bool new_time;
        struct plan_join joins[NAMESPACE_KINDS]; /* in the order of joining */
        size_t joins_length;
        bool private_mounts; /* in a mount namespace of its own */
        bool in_user_namespace;
        struct namespace_map *uid_maps, *gid_maps;
        size_t uid_maps_length, gid_maps_length;
        struct plan_mount *mounts;
        size_t mounts_length;
        bool populate_dev; /* /dev is not bound from outside */
        struct plan_device *devices;
        size_t devices_length;
        uint64_t propagation; /* MS_… of the root; 0 for the default */
        bool propagation_recursive;
        struct limits limits;
        char *cgroup_path;
};

/* `bundle` is absolute; `id` names the default cgroup. */
int plan_create(const struct oci_spec *spec, const char *bundle, const char *id, struct plan *ret,
                struct err *err);
void plan_finish(struct plan *plan);

/* In a user namespace the child may not see what it is to bind: a privileged
 * parent opens it. An unprivileged one has no right to, and the child, who has,
 * sees what the parent sees. */
bool plan_opens_sources(const struct plan *plan);
