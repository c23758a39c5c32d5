/* The table of mounts, proc_pid_mountinfo(5): a line a mount, whose fields are apart by spaces. */
#pragma once

#include "base/err.h"

#define MOUNTINFO_SELF       "/proc/self/mountinfo"
#define MOUNTINFO_FIELDS_MIN 6u /* in front of the optional ones; what has fewer is no line */

/* Its lines; heap, for strv_free(). */
int mountinfo_read(const char *path, char ***ret_lines, struct err *err);
/* A field, or an option's value, without the kernel's \ooo for space, tab, newline, backslash and
 * whatever would end it; heap. A backslash that begins none is kept. */
char *mountinfo_unescape(const char *text);
