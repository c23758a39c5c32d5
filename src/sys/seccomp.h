/* Seccomp filters: a neutral profile is compiled to a BPF program, which is
 * loaded later, by another process, without allocation.
 *
 * Compilation is libseccomp's (linked statically). The program is plain data, so
 * callers may keep it. Source: seccomp(2), seccomp_rule_add(3), runtime-spec
 * config-linux.md "Seccomp". */
#pragma once

#include <linux/filter.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum seccomp_action {
        SECCOMP_ACTION_KILL_THREAD,
        SECCOMP_ACTION_KILL_PROCESS,
        SECCOMP_ACTION_TRAP,
        SECCOMP_ACTION_ERRNO,
        SECCOMP_ACTION_TRACE,
        SECCOMP_ACTION_ALLOW,
        SECCOMP_ACTION_LOG,
        SECCOMP_ACTION_NOTIFY,
};

enum seccomp_compare {
        SECCOMP_COMPARE_NE,
        SECCOMP_COMPARE_LT,
        SECCOMP_COMPARE_LE,
        SECCOMP_COMPARE_EQ,
        SECCOMP_COMPARE_GE,
        SECCOMP_COMPARE_GT,
        SECCOMP_COMPARE_MASKED_EQ, /* (argument & value) == value_two */
};

struct seccomp_condition {
        uint32_t index; /* of the argument, 0 … 5 */
        enum seccomp_compare compare;
        uint64_t value, value_two;
};

struct seccomp_rule {
        char *const *names; /* system calls; unknown ones are skipped */
        enum seccomp_action action;
        uint32_t errno_value;                       /* of ERRNO and TRACE */
        const struct seccomp_condition *conditions; /* all must hold */
        size_t conditions_length;
};

struct seccomp_profile {
        enum seccomp_action default_action;
        uint32_t default_errno;
        char *const *architectures; /* "SCMP_ARCH_X86_64" beside the native one; NULL for none */
        const struct seccomp_rule *rules;
        size_t rules_length;
        /* Calls newer than every named one get the default action, not ENOSYS, which is
         * for programs that try what the kernel has. */
        bool strict;
};

struct seccomp_program {
        struct sock_filter *code; /* heap */
        size_t length;            /* instructions */
        bool notifies;            /* some rule has NOTIFY: load yields a listener */
};

int seccomp_compile(const struct seccomp_profile *profile, struct seccomp_program *ret,
                    struct err *err);
void seccomp_program_finish(struct seccomp_program *program);
/* Whether the native architecture has a system call of that name, as far as what compiles knows. */
bool seccomp_knows(const char *name);
/* What compiles: name, version and native architecture. */
const char *seccomp_compiler(void);

/* SECCOMP_FILTER_FLAG_… bit of a name as runtime-spec has them, "" is 0; -EINVAL
 * for an unknown name. */
int seccomp_flag_parse(const char *name, unsigned *ret_flag);

/* Loads the program into the calling thread. With `notifies` *ret_listener is
 * the notification descriptor, otherwise it is untouched. No allocation. */
int seccomp_install(const struct seccomp_program *program, unsigned flags, int *ret_listener,
                    struct err *err);
