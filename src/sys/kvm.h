/* What is known of the host's KVM without using it. */
#pragma once

#include <stdbool.h>

/* Whether it is there for us, and backed by hardware: on a host whose KVM is PVM's (module
 * kvm_pvm), guest kernels are emulated, slower than by our software CPU. Looks at /sys, which a
 * jail does not have. */
bool kvm_runs_well(void);
