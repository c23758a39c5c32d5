/* A client of the control socket, for what needs descriptors: attaching devices. */
#pragma once

#include "vmm/config.h"

/* Opens what the configuration's only device needs, and attaches it under this name. */
int control_attach(const char *socket, const char *name, struct vm_config *config, struct err *err);
int control_detach(const char *socket, const char *name, struct err *err);
