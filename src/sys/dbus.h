/* A connection to a D-Bus peer over a Unix socket: a bus, or systemd itself.
 *
 * Only what is asked for is read: there is no loop, no thread, no match rule here. All
 * waiting has an end.
 *
 * Source: D-Bus Specification 0.42, "Authentication Protocol", "Server Addresses".
 */
#pragma once

#include <stdint.h>

#include "sys/dbus_wire.h"

struct dbus;

/* `address` is "unix:path=…" or "unix:abstract=…", the first of a list. Authenticated by
 * who we are (EXTERNAL), which works through user namespaces too. */
int dbus_connect(const char *address, int timeout_ms, struct dbus **ret, struct err *err);
void dbus_close(struct dbus *dbus); /* NULL is fine */

/* Sends the call with a serial of its own, which *ret_serial tells. */
int dbus_send(struct dbus *dbus, const struct dbus_call *call, uint32_t *ret_serial,
              struct err *err);
/* The next message, good until the next call. -ETIMEDOUT at the deadline (of
 * clock_monotonic_ns()), -ECONNRESET when the other side has closed. */
int dbus_receive(struct dbus *dbus, int64_t deadline_ns, struct dbus_message *ret, struct err *err);

static inline void auto_dbus_cleanup(struct dbus **dbus)
{
        dbus_close(*dbus);
}
#define auto_dbus __attribute__((cleanup(auto_dbus_cleanup))) struct dbus *
