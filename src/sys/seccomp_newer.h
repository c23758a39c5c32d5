/* Part of sys/seccomp.h's compilation, apart for its length. */
#pragma once

#include "sys/seccomp.h"

/* Puts instructions before the program that answer ENOSYS to system calls beyond the
 * largest number named by the profile, where its default action denies.
 * `architectures` are libseccomp's tokens, the native one among them. */
void seccomp_refuse_newer(const struct seccomp_profile *profile, const uint32_t *architectures,
                          size_t length, struct seccomp_program *program);
