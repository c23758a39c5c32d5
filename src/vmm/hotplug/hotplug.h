/* Devices that come and go while the guest runs, by ACPI: PCI slots kept free, registers
 * of our own, general purpose event 1.
 *
 *     attach   find a place, make the device there, plug   → the guest is told, and probes it
 *     detach   unplug                                      → the guest is asked; it stops using
 *                                                            the device and ejects the slot
 *                                                          ← gone: the device is destroyed
 *
 * A place comes with the threads that its device will have: they were made before the jail
 * was closed, in which none can be made.
 *
 * Threads: the loop's. Registers are accessed by vCPUs.
 *
 * Source: ACPI 6.5, sections 5.6.6 (device notifications) and 6.3 (_EJ0).
 */
#pragma once

#include "vmm/device/power.h"
#include "vmm/machine.h"
#include "vmm/virtio/net.h"

#define HOTPLUG_SLOTS_MAX 8

struct hotplug;
struct worker;

struct hotplug_place {
        unsigned slot; /* of PCI */
        struct worker *disk;
        struct worker *net[NET_PAIRS]; /* one a pair */
        unsigned pairs;                /* that there are threads for */
};

/* Before devices that need slots. Networks may have up to `pairs` of queues. The machine owns it.
 */
int hotplug_create(struct machine *machine, struct power *power, unsigned slots, unsigned pairs,
                   struct hotplug **ret, struct err *err);

/* -EEXIST where the name is taken, -ENOSPC where no place is free. */
int hotplug_find_place(const struct hotplug *hotplug, const char *name, struct hotplug_place *ret,
                       struct err *err);
/* `device` stands at `place`. It is destroyed when it is gone; then the `length` descriptors, at
 * most NET_PAIRS, are closed. */
void hotplug_plug(struct hotplug *hotplug, const struct hotplug_place *place, const char *name,
                  const char *kind, struct device *device, const int *fds, unsigned length);

/* Asks the guest; calls gone(arg) when it has let go, or if it never does until
 * hotplug_stop_waiting(). -ENOENT for an unknown name, -EALREADY where somebody waits. */
int hotplug_unplug(struct hotplug *hotplug, const char *name, void (*gone)(void *arg), void *arg,
                   struct err *err);
void hotplug_stop_waiting(struct hotplug *hotplug, const void *arg);

/* Those that are there: called for each. */
void hotplug_each(const struct hotplug *hotplug,
                  void (*take)(void *arg, const char *name, const char *kind, bool leaving),
                  void *arg);
