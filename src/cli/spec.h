/* From the options of `run`, `create` and `update` to the body of the API call.
 *
 * Most options are one row of a table (option, place in the body, form); the rest
 * have a grammar of their own and a function here. Everything is pure but for
 * what options themselves name: --env-file, --label-file, seccomp profiles, and
 * the environment for `-e NAME`.
 */
#pragma once

#include <stdbool.h>

#include "base/err.h"
#include "cli/options.h"

struct json_object;

/* run_options is in three parts: what only `run` has, what `create` has too, and,
 * last, what `update` has as well. */
#define RUN_OPTIONS_LENGTH    100
#define RUN_ONLY_OPTIONS      3
#define UPDATE_OPTIONS_LENGTH 15 /* with the end row */

extern const struct option run_options[RUN_OPTIONS_LENGTH];
#define create_options (&run_options[RUN_ONLY_OPTIONS])
#define update_options (&run_options[RUN_OPTIONS_LENGTH - UPDATE_OPTIONS_LENGTH])

/* The whole body; args->rest is the image, then the command. Which streams are to
 * be attached is in AttachStdin, AttachStdout, AttachStderr. */
int spec_build(const struct args *args, struct json_object **ret, struct err *err);
/* Limits and the restart policy, into HostConfig or the body of `update`. */
int spec_resources(const struct args *args, struct json_object *host, struct err *err);

/* --- grammars --- */

/* type=bind,src=/a,dst=/b,readonly … */
int spec_mount(const char *text, struct json_object **ret, struct err *err);
/* [[SOURCE:]TARGET[:MODE]]: a new bind ("/abs:/target:ro") in *ret_bind, or NULL
 * there where it is an anonymous volume. */
int spec_volume(const char *text, char **ret_bind, struct err *err);
/* [[IP:]HOST:]CONTAINER[/PROTOCOL], ranges allowed: adds to ExposedPorts and
 * PortBindings. */
int spec_publish(const char *text, struct json_object *exposed, struct json_object *bindings,
                 struct err *err);
int spec_expose(const char *text, struct json_object *exposed, struct err *err);
/* NAME=SOFT[:HARD] */
int spec_ulimit(const char *text, struct json_object **ret, struct err *err);
/* HOST[:CONTAINER[:rwm]] */
int spec_device(const char *text, struct json_object **ret, struct err *err);
/* no | always | unless-stopped | on-failure[:N] */
int spec_restart(const char *text, struct json_object **ret, struct err *err);

/* "NAME" takes its value from our environment, or stays as it is where there is
 * none (which means: unset it). Heap. */
char *spec_env(const char *text);
/* Lines of an --env-file or --label-file are appended to *list. A line that is only
 * a name takes its value from the environment (`env`) or is dropped. */
int spec_read_file(const char *path, bool env, char ***list, struct err *err);
