/* --security-opt, --cap-add, --cap-drop: what a process may do. */
#pragma once

#include <stdbool.h>

#include "engine/spec.h"
#include "oci/runtime_spec.h"

struct security {
        bool no_new_privileges;
        bool seccomp_unconfined;
        char *seccomp_profile; /* JSON text in docker's form, NULL: the default one */
        char **capabilities;   /* "CAP_CHOWN", … sorted as the kernel numbers them */
        bool all_capabilities; /* privileged, or --cap-add ALL without a drop */
};

/* Options the host cannot honour (AppArmor, SELinux labels) give a warning. */
int security_parse(const struct host_config *host, struct security *ret, char ***warnings,
                   struct err *err);
void security_finish(struct security *security);

/* The seccomp filter: docker's default policy or the profile given, resolved for these
 * capabilities and this machine. NULL when unconfined. *ret belongs to the caller. */
int security_seccomp(const struct security *security, struct oci_seccomp **ret, struct err *err);
