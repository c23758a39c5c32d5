/* Defence against overwriting the runtime's own binary from inside a container.
 *
 * A process that enters a container can be looked at from there: through
 * /proc/PID/exe (or by executing /proc/self/exe) an attacker who is root inside
 * gets hold of the host's binary and can overwrite it once nobody executes it
 * (CVE-2019-5736). The known answer is to re-execute a sealed or read-only copy
 * first, which costs one more exec.
 *
 * Ours costs no exec. The process moves over to another way to the same file: a
 * read-only clone of its mount. Every mapping of the file is replaced in place by
 * the same pages through that mount (what the program has written to, by a copy),
 * and then the kernel is told (PR_SET_MM_MAP with exe_fd) that this is the
 * executable. The mount then forbids execution too, and its last descriptor is
 * closed: it is in no tree and no namespace, so that nobody can ever change its
 * attributes again. What a container finds at /proc/PID/exe or map_files can be
 * neither written nor executed, whatever its privileges; and as it is still the
 * executable, nobody else can overwrite it under a waiting process (ETXTBSY).
 *
 * Without the privilege to mount (rootless), anonymous copies take the place of all
 * mappings, and an empty, sealed memfd that of the executable.
 *
 * Needs a static, non-relocated executable (isle-runtime is) and a kernel with
 * CONFIG_CHECKPOINT_RESTORE; otherwise, for instance in a sanitizer build, the
 * program is re-executed from a sealed memfd copy.
 */
#pragma once

#include "base/err.h"

/* To be called before the first clone that leads into a container. May not
 * return, but start main() again with the same arguments, guarded.
 *
 * Closing the mount waits for an RCU grace period. Unless ret_mount_fd is NULL it is
 * left there, to be closed when nobody waits: in the child first of all, for whoever
 * gets hold of it can undo the guard. -1 stays where there is none. */
int exe_guard(char *const *argv, int *ret_mount_fd, struct err *err);
