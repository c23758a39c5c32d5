/* Defence against overwriting the runtime's own binary from inside a container.
 *
 * A process that enters a container can be looked at from there: through
 * /proc/PID/exe (or by executing /proc/self/exe) an attacker who is root inside
 * gets hold of the host's binary and can overwrite it once nobody executes it
 * (CVE-2019-5736). The known answer is to re-execute a sealed or read-only copy
 * first, which costs one more exec.
 *
 * Ours costs no exec. The process lets go of its binary: every mapping of the
 * file is replaced in place by an anonymous copy, and then the kernel is told
 * (PR_SET_MM_MAP with exe_fd) that /proc/PID/exe is an empty, sealed memfd. A
 * child cloned afterwards has no path to the binary at all, whatever it joins.
 * And since anonymous pages need not be faulted in again after the clone, part
 * of the cost comes back.
 *
 * Needs a static, non-relocated executable (isle-runtime is) and a kernel with
 * CONFIG_CHECKPOINT_RESTORE; otherwise, for instance in a sanitizer build, the
 * program is re-executed from a sealed memfd copy.
 */
#pragma once

#include "base/err.h"

/* To be called before the first clone that leads into a container. May not
 * return, but start main() again with the same arguments, guarded. */
int exe_guard(char *const *argv, struct err *err);
