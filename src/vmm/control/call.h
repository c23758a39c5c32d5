/* A client of the control socket, for what needs descriptors: attaching devices, snapshots. */
#pragma once

#include "vmm/config.h"

/* Opens what the configuration's only device needs, and attaches it under this name. */
int control_attach(const char *socket, const char *name, struct vm_config *config, struct err *err);
int control_detach(const char *socket, const char *name, struct err *err);

/* Saves the machine, which is paused, to the directory `dir`, which is not there yet. Killed at any
 * moment, it leaves no directory of that name, or a whole one. */
int control_snapshot(const char *socket, const char *dir, struct err *err);
