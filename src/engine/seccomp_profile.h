/* Seccomp policies as OCI filters: the default one and docker's profile files. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "oci/runtime_spec.h"

#define SECCOMP_PROFILE_SIZE_MAX ((size_t)1 << 20)

struct seccomp_default_rule {
        const char *names;  /* separated by blanks */
        int cap;            /* needed in the process's bounding set; -1: none */
        bool without_cap;   /* applies where `cap` is missing instead */
        uint32_t errno_ret; /* fails so; 0: allowed */
        bool conditional;   /* on the first argument */
        enum oci_seccomp_op op;
        uint64_t value, value_two;
};
const struct seccomp_default_rule *seccomp_default_rules(size_t *ret_length);

/* For a process with these capabilities ("CAP_…"). The caller frees with
 * json_free(&oci_seccomp_shape, ret). */
void seccomp_default(char *const *capabilities, struct oci_seccomp *ret);

/* Reads docker's profile form: archMap, and syscalls with includes and excludes by
 * architecture, capability and kernel version, which are resolved here. The plain
 * OCI form is a subset of it. */
int seccomp_profile_parse(const char *text, size_t size, char *const *capabilities,
                          struct oci_seccomp *ret, struct err *err);
