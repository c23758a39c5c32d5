/* The files of an instance that the engine writes: /etc/hostname, hosts, resolv.conf. */
#pragma once

#include "engine/instance.h"

/* Writes all three into ROOT/instances/ID. Blocks. */
int files_write(const struct instance *instance, struct err *err);
/* The name the instance has: its own, or the first digits of its id; the host's with the
 * host's UTS name space. Heap. */
char *files_hostname(const struct instance *instance);
/* /etc/hosts of an instance. Heap. */
char *files_hosts(const struct instance *instance, const char *host_file);
/* /etc/resolv.conf: the host's with the instance's --dns options in their place. Heap. */
char *files_resolv_conf(const struct instance *instance, const char *host_file);
