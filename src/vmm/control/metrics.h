/* What a VM has done, in Prometheus' text format. */
#pragma once

#include "base/buf.h"
#include "vmm/machine.h"

void metrics_write(const struct machine *machine, struct buf *buf);
