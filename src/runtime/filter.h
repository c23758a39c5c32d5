/* linux.seccomp -> a compiled BPF program. */
#pragma once

#include "oci/runtime_spec.h"
#include "sys/seccomp.h"

struct filter {
        struct seccomp_program program;
        unsigned flags;
        const char *listener_path, *listener_metadata; /* borrowed; of the profile, or below */
};

/* `seccomp` NULL gives an empty filter (program.length 0). A compiled program is looked
 * for, and left, below the state root `root` where that exists (filter_cache.h). `annotations`
 * of the container (crun(1)): run.oci.seccomp.receiver, and RUN_OCI_SECCOMP_RECEIVER of the
 * environment, are the listener of a profile that has none; with
 * run.oci.seccomp_fail_unknown_syscall a call that libseccomp does not know is an error. */
int filter_create(const struct oci_seccomp *seccomp, char *const *annotations, const char *root,
                  struct filter *ret, struct err *err);
void filter_finish(struct filter *filter);
