/* Hooks of the specification: programs that are told the container's state on
 * standard input, one after the other, each within its time limit. What they print is told where
 * one fails; the annotations run.oci.hooks.stdout and run.oci.hooks.stderr (crun(1)) name files
 * that get it instead, of the hooks that run on the host. */
#pragma once

#include "oci/runtime_spec.h"

struct hook_set {
        const char *name; /* "createRuntime" */
        const struct oci_hook *list;
        size_t length;
};

struct hook_state {
        const char *id, *status, *bundle, *oci_version;
        int64_t pid; /* in the runtime's pid namespace; 0 when there is none */
        char *const *annotations;
        bool inside; /* told by the container's own process, in its namespaces */
};

/* Stops at the first that fails: "error running hook createRuntime #0: …". */
int hooks_run(const struct hook_set *set, const struct hook_state *state, struct err *err);
/* Each, whatever the others did; failures are warnings. */
void hooks_run_all(const struct hook_set *set, const struct hook_state *state);
/* The OCI state as JSON text, heap; also what seccomp listeners get. */
char *hooks_state_text(const struct hook_state *state);
