/* isled's settings: defaults, then the configuration file, then the command line.
 *
 * The file is JSON with the long options' names as keys:
 *
 *         { "root": "/srv/isle", "hosts": ["unix:///run/isle/docker.sock"],
 *           "log-level": "debug", "insecure-registries": ["registry.lan:5000"] }
 *
 * A key that is not known is an error, so that a misspelt one is not lost. On the
 * command line, --host replaces the file's hosts and --insecure-registry adds to
 * the file's.
 */
#pragma once

#include <stdbool.h>

#include "base/err.h"
#include "base/log.h"

#define ISLED_CONFIG_PATH "/etc/isle/isled.json"

struct isled_settings {
        char *config_path; /* NULL: ISLED_CONFIG_PATH where it exists */
        char *root_dir, *run_dir;
        char **hosts; /* NULL: those of socket activation, else docker.sock in run_dir */
        char *log_level, *log_format;
        char **insecure_registries;
        char *registry_ca;
        char *runtime_path, *monitor_path, *init_path; /* NULL: the engine finds them */
        char *cgroup_parent;
        char *default_runtime, *vm_rootfs, *vm_cpu_model;
        char *userns_remap;
        bool show_help, show_version;
};

/* Reads the arguments and the file they name or imply. -EINVAL for a mistake of the user's. */
int isled_settings_load(int argc, char **argv, struct isled_settings *ret, struct err *err);
void isled_settings_finish(struct isled_settings *settings);

/* What the log settings mean; checked by load. */
struct log_settings isled_log_settings(const struct isled_settings *settings);

extern const char isled_usage[];
