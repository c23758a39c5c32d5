/* From what a user asked for to what an OCI runtime understands: config.json.
 *
 * bundle_build() is a function of its input alone, but for the host's device nodes,
 * which it looks at (privileged, --device). Source: runtime-spec config.md,
 * config-linux.md; docker's documented defaults for mounts, masked paths and devices. */
#pragma once

#include "engine/instance.h"
#include "engine/remap.h"
#include "engine/users.h"
#include "oci/runtime_spec.h"

struct bundle_input {
        const struct instance *instance;
        struct user_found user;
        const char *rootfs;       /* path the runtime sees it at: "rootfs" */
        const char *cgroups_path; /* "/isle/ID" */
        const char *init_path;    /* on the host, for --init; NULL: there is none */
        const char *hostname;
        /* Processes whose name spaces are joined (…Mode container:x); 0: none. */
        pid_t ipc_pid, network_pid, pid_pid;
        bool swap_limit; /* the host can limit swap */
        struct id_remap remap;
        const char *layers_image; /* of a machine that makes its root of layers; NULL: none */
};

/* The caller frees with json_free(&oci_spec_shape, ret). */
int bundle_build(const struct bundle_input *input, struct oci_spec *ret, struct err *err);

/* -- parts, also for exec and update ------------------------------------------- */
/* All five sets; `for_root` false leaves effective and permitted to the kernel's rules for
 * other users: bounding only, as docker. */
struct oci_capabilities *bundle_capabilities(char *const *names, bool for_root);
/* PATH, HOSTNAME, TERM, HOME under what `env` says. strv. */
char **bundle_environment(char *const *env, const char *hostname, const char *home, bool tty);
/* Those of --ulimit. */
void bundle_add_rlimits(const struct host_config *host, struct oci_process *process);
/* Limits of `host`; without devices. */
struct oci_resources *bundle_resources(const struct host_config *host, bool swap_limit);
/* Adds device nodes and rules to `linux_` and its resources. */
int bundle_devices(const struct host_config *host, struct oci_linux *linux_, struct err *err);

/* For building arrays that json_free() returns. */
#define ARRAY_PUSH(array, length, value)                                                           \
        do {                                                                                       \
                (array) = xrealloc((array), (length) + 1, sizeof(*(array)));                       \
                (array)[(length)++] = (value);                                                     \
        } while (0)
