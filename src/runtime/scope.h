/* The systemd cgroup driver: a container's groups are those of a scope of systemd.
 *
 * cgroupsPath then is "slice:prefix:name": scope prefix-name.scope (name.scope without a
 * prefix) in the slice, as with runc and crun; without it isle-ID.scope in system.slice,
 * or in user.slice of the user's own systemd. Annotations "org.systemd.property.NAME"
 * are properties of the scope. The record keeps the scope's name and where its systemd
 * was spoken to, so that other verbs need no flag.
 */
#pragma once

#include "oci/runtime_spec.h"
#include "runtime/state.h"
#include "sys/cgroup.h"
#include "sys/systemd.h"

/* What a cgroupsPath means. Pure; texts are heap, scope_name_finish() frees them. */
struct scope_name {
        char *slice, *unit;
};
int scope_name_parse(const char *cgroups_path, const char *id, bool user, struct scope_name *ret,
                     struct err *err);
void scope_name_finish(struct scope_name *name);

struct scope {
        struct scope_name name;
        char *path; /* of the group, from the root of the hierarchies */
        struct systemd *systemd;
        struct buf properties;
};

/* Asks systemd where its groups are; nothing is made yet. Heap. */
int scope_prepare(const struct oci_spec *spec, const struct cgroup_limits *limits, const char *id,
                  struct scope **ret, struct err *err);
/* The process is in the group when this returns. */
int scope_start(struct scope *scope, const char *id, pid_t pid, struct err *err);
void scope_destroy(struct scope *scope); /* forgets; NULL is fine */

/* For a record without a scope, success. */
int scope_update(const struct record *record, const struct cgroup_limits *limits, struct err *err);
/* The groups are empty; that systemd cannot be asked is only a warning then. */
void scope_stop(const struct record *record);
