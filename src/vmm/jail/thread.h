/* The jail's parts among themselves. */
#pragma once

#include "sys/seccomp.h"
#include "vmm/jail/jail.h"

/* From here on jail_thread() locks up. While there is one thread. */
int jail_prepare(struct err *err);

/* filter.c: a kind's allowed system calls. What is not allowed raises SIGSYS. */
int jail_filter(enum jail_thread kind, struct seccomp_program *ret, struct err *err);
const char *jail_thread_name(enum jail_thread kind);
