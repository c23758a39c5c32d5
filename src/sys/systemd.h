/* Asking systemd for control groups: the "systemd" driver.
 *
 * Where systemd runs the machine, the tree of control groups is its own, and who wants
 * a part of it asks for a scope: a unit around processes that systemd did not start. It
 * moves them into the scope's group, which is delegated to us, and keeps the group as
 * its properties say. Limits are given as properties and then written by sys/cgroup.h
 * too, for not everything can be said as a property; systemd would write its own values
 * again at a reload.
 *
 * We speak to systemd over D-Bus with what is in sys/dbus.h, no library. Every call is
 * answered within SYSTEMD_TIMEOUT_MS or fails.
 *
 * Source: org.freedesktop.systemd1(5), systemd.resource-control(5), and the
 * documentation of systemd's "New Control Group Interfaces" and "Delegation".
 */
#pragma once

#include "base/buf.h"
#include "sys/cgroup.h"

#define SYSTEMD_TIMEOUT_MS 30000

struct systemd;

/* To the system's manager, or with `user` to the caller's own. `address` is what
 * systemd_address() once gave; NULL: found (DBUS_SYSTEM_BUS_ADDRESS or
 * DBUS_SESSION_BUS_ADDRESS where they are set, then systemd's own socket, then the bus). */
int systemd_connect(const char *address, bool user, struct systemd **ret, struct err *err);
void systemd_close(struct systemd *systemd); /* NULL is fine */
const char *systemd_address(const struct systemd *systemd);

/* The group below which the manager makes its own, "" for the root; heap. */
int systemd_control_group(struct systemd *systemd, char **ret, struct err *err);

struct systemd_scope {
        const char *unit;  /* "name.scope" */
        const char *slice; /* "a-b.slice" */
        const char *description;
        pid_t pid;
        const struct buf *properties; /* more of them; NULL for none */
};

/* Returns when the process is in the group. A unit of this name that failed and is still
 * remembered makes room. -EEXIST where there is a living one. */
int systemd_start_scope(struct systemd *systemd, const struct systemd_scope *scope,
                        struct err *err);
/* Ends it with all that is in it. One that does not exist is success. */
int systemd_stop(struct systemd *systemd, const char *unit, struct err *err);
int systemd_set(struct systemd *systemd, const char *unit, const struct buf *properties,
                struct err *err);

/* "/a.slice/a-b.slice" of "a-b.slice", "" of "-.slice"; heap, NULL for no name of a slice. */
char *systemd_slice_path(const char *slice);

/* Properties are appended in D-Bus's own form. After a name comes the value, of the type
 * that the signature tells. */
void systemd_put_name(struct buf *to, const char *name, const char *signature);
void systemd_put_string(struct buf *to, const char *name, const char *value);
void systemd_put_bool(struct buf *to, const char *name, bool value);
void systemd_put_u64(struct buf *to, const char *name, uint64_t value);
/* What the limits can be said by, for cgroup version 2 or 1. */
int systemd_put_limits(struct buf *to, const struct cgroup_limits *limits, bool v2,
                       struct err *err);
/* Device rules, from the text of /proc/devices. What cannot be said is allowed: the
 * rules themselves are enforced beside it. */
void systemd_put_devices(struct buf *to, const struct cgroup_device_rule *rules, size_t length,
                         const char *proc_devices);
/* A value in GVariant's text form ('a', true, uint64 5, ['a', 'b']); NameSec of a number
 * becomes NameUSec. -EINVAL for what is not understood. */
int systemd_put_text(struct buf *to, const char *name, const char *value, struct err *err);

static inline void auto_systemd_cleanup(struct systemd **systemd)
{
        systemd_close(*systemd);
}
#define auto_systemd __attribute__((cleanup(auto_systemd_cleanup))) struct systemd *
