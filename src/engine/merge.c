#include "engine/merge.h"

#include <string.h>

#include "base/auto.h"
#include "base/str.h"
#include "engine/health.h"

static bool is_empty(char *const *v)
{
        return !v || !*v;
}

static void inherit(char **slot, const char *value)
{
        if (str_empty(*slot) && !str_empty(value)) {
                free(*slot);
                *slot = xstrdup(value);
        }
}

static bool has_variable(char *const *env, const char *entry)
{
        size_t length = strcspn(entry, "=");
        for (; env && *env; env++)
                if (strncmp(*env, entry, length) == 0 &&
                    ((*env)[length] == '=' || (*env)[length] == '\0'))
                        return true;
        return false;
}

static void merge_set(char ***set, char *const *more)
{
        for (; more && *more; more++)
                if (!strv_contains(*set, *more))
                        strv_push(set, *more);
}

static void merge_command(struct instance_config *config, const struct oci_execution *image)
{
        /* `--entrypoint ""` takes the image's away. */
        bool reset = config->entrypoint && config->entrypoint[0] && !config->entrypoint[0][0] &&
                     !config->entrypoint[1];
        if (is_empty(config->entrypoint)) {
                if (is_empty(config->cmd) && image->cmd) {
                        strv_free(config->cmd);
                        config->cmd = strv_copy(image->cmd);
                }
                if (!config->entrypoint && image->entrypoint)
                        config->entrypoint = strv_copy(image->entrypoint);
        }
        if (reset) {
                strv_free(config->entrypoint);
                config->entrypoint = NULL;
        }
}

static void inherit_number(int64_t *slot, int64_t value)
{
        if (*slot == 0)
                *slot = value;
}

/* What of it the user does not set is the image's. */
static void merge_health(struct instance_config *config, const struct oci_healthcheck *image,
                         char ***warnings)
{
        struct err err = { 0 };
        if (!config->healthcheck)
                config->healthcheck = new0(struct health_config);
        struct health_config *health = config->healthcheck;
        if (is_empty(health->test) && health_test_check(image->test, &err) < 0) {
                strv_push_take(warnings, xasprintf("The image's health check is not run: %s.",
                                                   err_text(&err)));
        } else if (is_empty(health->test) && image->test) {
                strv_free(health->test);
                health->test = strv_copy(image->test);
        }
        inherit_number(&health->interval_ns, image->interval_ns);
        inherit_number(&health->timeout_ns, image->timeout_ns);
        inherit_number(&health->start_period_ns, image->start_period_ns);
        inherit_number(&health->start_interval_ns, image->start_interval_ns);
        inherit_number(&health->retries, image->retries);
}

void config_merge(struct instance_config *config, const struct oci_execution *image,
                  char ***warnings)
{
        inherit(&config->user, image->user);
        inherit(&config->working_dir, image->working_dir);
        inherit(&config->stop_signal, image->stop_signal);
        if (!config->has_stop_timeout && image->has_stop_timeout_s) {
                config->has_stop_timeout = true;
                config->stop_timeout = image->stop_timeout_s;
        }
        merge_command(config, image);
        for (char *const *env = image->env; env && *env; env++)
                if (!has_variable(config->env, *env))
                        strv_push(&config->env, *env);
        for (char *const *label = image->labels; label && *label; label++) {
                const char *value;
                auto_free char *key = json_map_split(*label, &value);
                if (!json_map_get(config->labels, key))
                        strv_push(&config->labels, *label);
        }
        merge_set(&config->exposed_ports, image->exposed_ports);
        merge_set(&config->volumes, image->volumes);
        if (!config->shell && image->shell)
                config->shell = strv_copy(image->shell);
        if (!config->on_build && image->on_build)
                config->on_build = strv_copy(image->on_build);
        if (image->healthcheck)
                merge_health(config, image->healthcheck, warnings);
}
