/* Resource Director Technology: shares of caches and of memory bandwidth, and their
 * monitoring, through the kernel's resctrl file system.
 *
 * A class of service ("CLOS") is a directory there: who is named in its `tasks` has what
 * its `schemata` says. A directory under its mon_groups counts its own members apart.
 * Processes stay where their parent was, so one that joins is written down before it
 * executes anything.
 *
 * The rules are runtime-spec 1.3's ("linux.intelRdt"): a class that is named and is there
 * must have the schemata that are asked for; one that is not there is made, or is an
 * error where nothing is asked for; without a name the class is the container's own.
 * Only that, and the monitoring group, ends with the container: a named one may have
 * other members.
 *
 * Source: kernel Documentation/arch/x86/resctrl.rst.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"

struct rdt_request {
        const char *clos_id; /* NULL: the container's own; "/": the default class */
        const char *l3_cache, *memory_bandwidth; /* lines of schemata; NULL */
        char *const *schemata;                   /* more lines */
        bool monitor;
};

struct rdt_group {
        char *clos, *monitor; /* directories; NULL: none */
        bool own;             /* `clos` ends with the container */
};

/* Where resctrl is mounted, out of the text of mountinfo; heap, NULL for nowhere. Pure. */
char *rdt_find_mount(const char *mountinfo);
/* Its mount point; -EOPNOTSUPP where there is none. Heap. */
int rdt_mount(char **ret, struct err *err);

/* What the directories of container `id` are called; touches nothing. */
int rdt_name(const char *mount, const struct rdt_request *request, const char *id,
             struct rdt_group *ret, struct err *err);
/* Finds or makes them; on failure nothing is left. */
int rdt_make(const struct rdt_group *group, const struct rdt_request *request, struct err *err);
int rdt_join(const struct rdt_group *group, pid_t pid, struct err *err);
/* New schemata; NULL for what stays. */
int rdt_update(const struct rdt_group *group, const char *l3_cache, const char *memory_bandwidth,
               struct err *err);
/* What is the container's own. Missing is success. */
int rdt_remove(const struct rdt_group *group, struct err *err);
void rdt_group_finish(struct rdt_group *group);
