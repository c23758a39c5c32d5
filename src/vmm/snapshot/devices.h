/* The devices of a machine, in and out of a state: each that machine_add_device() was told of,
 * in the order of building, as a section of its name and number. */
#pragma once

#include "vmm/machine.h"
#include "vmm/snapshot/state.h"

/* -ENOTSUP, naming it, where one cannot be saved. */
int devices_save(const struct machine *machine, struct state_writer *writer, struct err *err);
/* Into a machine of the same devices. */
int devices_load(const struct machine *machine, struct state_reader *reader, struct err *err);
