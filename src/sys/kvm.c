#include "sys/kvm.h"

#include <unistd.h>

#define DEVICE "/dev/kvm"

bool kvm_runs_well(void)
{
        if (access(DEVICE, R_OK | W_OK) < 0)
                return false;
        return access("/sys/module/kvm_intel", F_OK) == 0 ||
               access("/sys/module/kvm_amd", F_OK) == 0;
}
