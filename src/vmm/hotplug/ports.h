/* The registers by which a guest and the machine speak about PCI slots: three double words
 * of a bit per slot, at LAYOUT_PORT_HOTPLUG, used by the DSDT when general purpose event 1
 * comes.
 *
 *   +0  read: slots with a new device; reading clears
 *   +4  read: slots whose device shall go; reading clears
 *   +8  write: the guest has let go of these
 */
#pragma once

#define HOTPLUG_PORTS 12
#define HOTPLUG_UP    0
#define HOTPLUG_DOWN  4
#define HOTPLUG_EJECT 8
#define HOTPLUG_EVENT 1 /* general purpose event */
