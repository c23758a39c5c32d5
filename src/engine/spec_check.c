/* What an instance may ask for. One function a topic; the table at the end runs them all. */
#include <errno.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/str.h"
#include "engine/health.h"
#include "engine/security.h"
#include "engine/spec.h"
#include "sys/process.h"

#define MEMORY_MIN_BYTES (6LL << 20)

struct check {
        const struct instance_spec *spec;
        const struct instance_config *config;
        const struct host_config *host;
        char ***warnings;
        struct err *err;
};

static bool one_of(const char *text, const char *const *list)
{
        for (; *list; list++)
                if (streq(text, *list))
                        return true;
        return false;
}

#define ONE_OF(text, ...) one_of((text) ? (text) : "", (const char *const[]){ __VA_ARGS__, NULL })

static bool is_absolute(const char *path)
{
        return path && path[0] == '/';
}

static int check_config(struct check *c)
{
        const struct instance_config *config = c->config;
        if (str_empty(config->image))
                return err_plain(c->err, EINVAL, "no command or image: an image must be named");
        if (config->hostname && strlen(config->hostname) > 63)
                return err_plain(c->err, EINVAL, "invalid hostname '%s': longer than 63 characters",
                                 config->hostname);
        if (!str_empty(config->working_dir) && !is_absolute(config->working_dir))
                return err_plain(
                        c->err, EINVAL,
                        "the working directory '%s' is invalid, it needs to be an absolute path",
                        config->working_dir);
        for (char **env = config->env; env && *env; env++)
                if (!**env || **env == '=')
                        return err_plain(c->err, EINVAL, "invalid environment variable: '%s'",
                                         *env);
        int signo;
        if (!str_empty(config->stop_signal) &&
            process_signal_parse(config->stop_signal, &signo) < 0)
                return err_plain(c->err, EINVAL, "Invalid signal: %s", config->stop_signal);
        return health_config_check(config->healthcheck, c->err);
}

static int check_network(struct check *c)
{
        const char *mode = c->host->network_mode;
        if (!ONE_OF(mode, "", "default", "none", "host") && !str_after(mode, "container:"))
                return err_plain(c->err, ENOTSUP,
                                 "network %s not found: networks are not implemented yet; use "
                                 "--network none or --network host",
                                 mode);
        const struct json_object *bindings = c->host->port_bindings;
        if ((bindings && json_object_get_type(bindings) == json_type_object &&
             json_object_object_length(bindings) > 0) ||
            c->host->publish_all_ports)
                return err_plain(c->err, ENOTSUP,
                                 "publishing ports needs a network, which is not implemented yet; "
                                 "use --network host");
        if (c->host->links && *c->host->links)
                return err_plain(c->err, ENOTSUP, "links are not implemented");
        if (!str_empty(c->config->mac_address))
                return err_plain(c->err, ENOTSUP,
                                 "a MAC address needs a network, which is not "
                                 "implemented yet");
        struct json_object *endpoints;
        if (!c->spec->networking ||
            !json_object_object_get_ex(c->spec->networking, "EndpointsConfig", &endpoints) ||
            json_object_get_type(endpoints) != json_type_object)
                return 0;
        json_object_object_foreach(endpoints, name, endpoint)
        {
                (void)endpoint;
                if (!ONE_OF(name, "default", "none", "host") && !streq(name, mode))
                        return err_plain(c->err, ENOTSUP,
                                         "network %s not found: networks are not implemented yet",
                                         name);
        }
        return 0;
}

bool runtime_is_known(const char *name)
{
        return ONE_OF(name, "isle-runtime", "isle-vm", "runc");
}

bool host_config_wants_vm(const struct host_config *host)
{
        return streq(host->isolation, "vm") || streq(host->runtime, "isle-vm");
}

bool vm_rootfs_is_known(const char *rootfs)
{
        return ONE_OF(rootfs, "fs", "erofs");
}

bool host_config_wants_layers(const struct host_config *host)
{
        const char *rootfs = json_map_get(host->annotations, SPEC_VM_ROOTFS);
        return host_config_wants_vm(host) && rootfs && streq(rootfs, "erofs");
}

static bool vm_cpu_is_known(const char *cpu)
{
        return ONE_OF(cpu, "auto", "kvm", "soft");
}

bool vm_cpu_model_is_known(const char *model)
{
        return ONE_OF(model, "host", "x86-64", "x86-64-v2", "x86-64-v3");
}

/* What is said of a machine by annotations. */
static int check_machine_words(struct check *c)
{
        static const struct {
                const char *annotation, *flag;
                bool (*is_known)(const char *word);
                const char *known;
        } words[] = {
                { SPEC_VM_CPU, "--cpu", vm_cpu_is_known, "auto, kvm and soft" },
                { SPEC_VM_CPU_MODEL, "--cpu-model", vm_cpu_model_is_known, SPEC_VM_CPU_MODELS },
                { SPEC_VM_ROOTFS, "--vm-rootfs", vm_rootfs_is_known, "fs and erofs" },
        };
        for (size_t i = 0; i < ELEMENTS(words); i++) {
                const char *said = json_map_get(c->host->annotations, words[i].annotation);
                if (said && !words[i].is_known(said))
                        return err_plain(c->err, EINVAL, "annotation %s (%s) '%s': there are %s",
                                         words[i].annotation, words[i].flag, said, words[i].known);
                if (said && !host_config_wants_vm(c->host))
                        return err_plain(c->err, EINVAL,
                                         "annotation %s (%s) is for virtual machines; add --vm",
                                         words[i].annotation, words[i].flag);
        }
        return 0;
}

/* A machine shares nothing with the host's kernel, nor with other instances. */
static int check_machine(struct check *c)
{
        const struct host_config *h = c->host;
        const struct {
                const char *mode, *what;
        } modes[] = { { h->network_mode, "network" },
                      { h->pid_mode, "PID" },
                      { h->ipc_mode, "IPC" } };
        int r = check_machine_words(c);
        if (r < 0)
                return r;
        if (!host_config_wants_vm(h))
                return 0;
        for (size_t i = 0; i < ELEMENTS(modes); i++)
                if (streq(modes[i].mode, "host") || str_starts(modes[i].mode ?: "", "container:"))
                        return err_plain(c->err, ENOTSUP,
                                         "%s mode '%s' needs the kernel of the host or of another "
                                         "container, which a virtual machine does not share; leave "
                                         "out the mode, or run a container (--runtime "
                                         "isle-runtime)",
                                         modes[i].what, modes[i].mode);
        if (h->privileged)
                return err_plain(c->err, ENOTSUP,
                                 "--privileged is not supported in a virtual machine yet");
        if (h->devices_length)
                return err_plain(c->err, ENOTSUP,
                                 "devices of the host cannot be given to a virtual machine yet; "
                                 "leave out --device");
        return 0;
}

static int check_modes(struct check *c)
{
        const struct host_config *h = c->host;
        if (!ONE_OF(h->pid_mode, "", "host") && !str_after(h->pid_mode, "container:"))
                return err_plain(c->err, EINVAL, "invalid PID mode: %s", h->pid_mode);
        if (!ONE_OF(h->ipc_mode, "", "none", "private", "shareable", "host") &&
            !str_after(h->ipc_mode, "container:"))
                return err_plain(c->err, EINVAL, "invalid IPC mode: %s", h->ipc_mode);
        if (!ONE_OF(h->uts_mode, "", "host"))
                return err_plain(c->err, EINVAL, "invalid UTS mode: %s", h->uts_mode);
        if (!ONE_OF(h->cgroupns_mode, "", "private", "host"))
                return err_plain(c->err, EINVAL, "invalid cgroup namespace mode: %s",
                                 h->cgroupns_mode);
        if (!ONE_OF(h->userns_mode, "", "host"))
                return err_plain(c->err, ENOTSUP, "user namespace mode '%s' is not implemented",
                                 h->userns_mode);
        if (!ONE_OF(h->isolation, "", "default", "vm"))
                return err_plain(c->err, EINVAL, "invalid isolation '%s' on linux", h->isolation);
        if (!str_empty(h->runtime) && !runtime_is_known(h->runtime))
                return err_plain(c->err, EINVAL, "unknown or invalid runtime name: %s", h->runtime);
        if (!str_empty(h->cgroup))
                return err_plain(c->err, ENOTSUP, "joining the cgroup '%s' is not implemented",
                                 h->cgroup);
        if (streq(h->uts_mode, "host") && !str_empty(c->config->hostname))
                return err_plain(c->err, EINVAL, "conflicting options: hostname and the UTS mode");
        return 0;
}

static int check_restart(struct check *c)
{
        const struct restart_policy *policy = &c->host->restart_policy;
        if (!ONE_OF(policy->name, "", "no", "always", "unless-stopped", "on-failure"))
                return err_plain(c->err, EINVAL, "invalid restart policy: unknown policy '%s'",
                                 policy->name);
        if (policy->maximum_retry_count < 0 ||
            (policy->maximum_retry_count > 0 && !streq(policy->name, "on-failure")))
                return err_plain(
                        c->err, EINVAL,
                        "invalid restart policy: maximum retry count can only be used with "
                        "'on-failure' and cannot be negative");
        if (c->host->auto_remove && !ONE_OF(policy->name, "", "no"))
                return err_plain(c->err, EINVAL,
                                 "can't create 'AutoRemove' container with restart policy");
        return 0;
}

static int check_memory(struct check *c)
{
        const struct host_config *h = c->host;
        if (h->memory < 0 || (h->memory > 0 && h->memory < MEMORY_MIN_BYTES))
                return err_plain(c->err, EINVAL, "Minimum memory limit allowed is 6MB");
        if (h->memory == 0 && h->memory_swap > 0)
                return err_plain(c->err, EINVAL,
                                 "You should always set the Memory limit when using "
                                 "Memoryswap limit, see usage");
        if (h->memory_swap > 0 && h->memory_swap < h->memory)
                return err_plain(c->err, EINVAL,
                                 "Minimum memoryswap limit should be larger than "
                                 "memory limit, see usage");
        if (h->memory_swap < -1)
                return err_plain(c->err, EINVAL, "invalid memoryswap limit %lld",
                                 (long long)h->memory_swap);
        if (h->memory_reservation < 0 || (h->memory > 0 && h->memory_reservation > h->memory))
                return err_plain(c->err, EINVAL,
                                 "Minimum memory limit can not be less than memory "
                                 "reservation limit, see usage");
        if (h->has_memory_swappiness && (h->memory_swappiness < -1 || h->memory_swappiness > 100))
                return err_plain(c->err, EINVAL,
                                 "Invalid value: %lld, valid memory swappiness "
                                 "range is 0-100",
                                 (long long)h->memory_swappiness);
        if (h->shm_size < 0)
                return err_plain(c->err, EINVAL, "SHM size can not be less than 0");
        if (h->has_oom_kill_disable && h->oom_kill_disable && h->memory == 0)
                strv_push(c->warnings, "OOM killer is disabled for the container, but no memory "
                                       "limit is set, this can result in the system running out of "
                                       "resources.");
        if (h->kernel_memory_tcp)
                strv_push(c->warnings, "The kernel TCP memory limit is deprecated and ignored.");
        return 0;
}

/* "0-3,7": numbers and ranges. */
static bool is_cpu_list(const char *text)
{
        if (str_empty(text))
                return true;
        auto_strv pieces = str_split(text, ',');
        for (char **piece = pieces; *piece; piece++) {
                uint32_t first, last;
                char *dash = strchr(*piece, '-');
                if (dash)
                        *dash = '\0';
                if (str_to_u32(*piece, &first) < 0 || (dash && str_to_u32(dash + 1, &last) < 0) ||
                    (dash && last < first) || first > 8191)
                        return false;
        }
        return true;
}

static int check_cpu(struct check *c)
{
        const struct host_config *h = c->host;
        long cpus = sysconf(_SC_NPROCESSORS_ONLN);
        if (h->nano_cpus > 0 && (h->cpu_period > 0 || h->cpu_quota > 0))
                return err_plain(c->err, EINVAL,
                                 "Conflicting options: Nano CPUs and CPU Period or "
                                 "Quota cannot both be set");
        if (h->nano_cpus < 0 || h->nano_cpus > cpus * 1000000000LL)
                return err_plain(c->err, EINVAL,
                                 "range of CPUs is from 0.01 to %ld.00, as there are "
                                 "only %ld CPUs available",
                                 cpus, cpus);
        if (h->cpu_period != 0 && (h->cpu_period < 1000 || h->cpu_period > 1000000))
                return err_plain(c->err, EINVAL,
                                 "CPU cfs period can not be less than 1ms (i.e. "
                                 "1000) or larger than 1s (i.e. 1000000)");
        if (h->cpu_quota > 0 && h->cpu_quota < 1000)
                return err_plain(c->err, EINVAL,
                                 "CPU cfs quota can not be less than 1ms (i.e. 1000)");
        if (h->cpu_realtime_period || h->cpu_realtime_runtime)
                return err_plain(c->err, ENOTSUP, "real-time CPU limits are not implemented");
        if (!is_cpu_list(h->cpuset_cpus))
                return err_plain(c->err, EINVAL, "Invalid value %s for cpuset cpus",
                                 h->cpuset_cpus);
        if (!is_cpu_list(h->cpuset_mems))
                return err_plain(c->err, EINVAL, "Invalid value %s for cpuset mems",
                                 h->cpuset_mems);
        return 0;
}

static const char *const ulimit_names[] = { "core",    "cpu",      "data",   "fsize",      "locks",
                                            "memlock", "msgqueue", "nice",   "nofile",     "nproc",
                                            "rss",     "rtprio",   "rttime", "sigpending", "stack",
                                            "as",      NULL };

static int check_limits(struct check *c)
{
        const struct host_config *h = c->host;
        if (h->blkio_weight != 0 && (h->blkio_weight < 10 || h->blkio_weight > 1000))
                return err_plain(c->err, EINVAL, "Range of blkio weight is from 10 to 1000");
        if (h->oom_score_adj < -1000 || h->oom_score_adj > 1000)
                return err_plain(c->err, EINVAL,
                                 "Invalid value %lld, range for oom score adj is [-1000, 1000]",
                                 (long long)h->oom_score_adj);
        for (size_t i = 0; i < h->ulimits_length; i++) {
                const struct ulimit *u = &h->ulimits[i];
                if (!one_of(u->name ? u->name : "", ulimit_names))
                        return err_plain(c->err, EINVAL, "invalid ulimit type: %s", u->name);
                if (u->hard != -1 && (u->soft > u->hard || u->soft == -1))
                        return err_plain(c->err, EINVAL,
                                         "ulimit soft limit must be less than or equal to hard "
                                         "limit: %lld > %lld",
                                         (long long)u->soft, (long long)u->hard);
        }
        if (h->device_requests_length)
                return err_plain(c->err, ENOTSUP,
                                 "could not select device driver \"%s\": device requests (--gpus) "
                                 "are not implemented",
                                 h->device_requests[0].driver ? h->device_requests[0].driver : "");
        for (size_t i = 0; i < h->devices_length; i++)
                if (!is_absolute(h->devices[i].path_on_host) ||
                    (!str_empty(h->devices[i].path_in_container) &&
                     !is_absolute(h->devices[i].path_in_container)))
                        return err_plain(c->err, EINVAL, "invalid device path '%s': not absolute",
                                         h->devices[i].path_on_host);
        if (h->storage_opt && *h->storage_opt)
                return err_plain(c->err, ENOTSUP, "storage options are not implemented");
        if (!ONE_OF(h->volume_driver, "", "local"))
                return err_plain(c->err, EINVAL,
                                 "error looking up volume plugin %s: plugin \"%s\" "
                                 "not found",
                                 h->volume_driver, h->volume_driver);
        return 0;
}

static int check_log(struct check *c)
{
        const struct log_config *log = &c->host->log_config;
        if (!ONE_OF(log->type, "", "json-file", "none"))
                return err_plain(c->err, EINVAL,
                                 "logger: no log driver named '%s' is registered; "
                                 "there are json-file and none",
                                 log->type);
        for (char **entry = log->config; entry && *entry; entry++) {
                const char *value;
                auto_free char *key = json_map_split(*entry, &value);
                uint64_t number;
                if (streq(log->type, "none"))
                        continue;
                if (streq(key, "max-size")) {
                        if (str_to_size(value, &number) < 0 && !streq(value, "-1"))
                                return err_plain(c->err, EINVAL, "invalid value '%s' for max-size",
                                                 value);
                } else if (streq(key, "max-file")) {
                        if (str_to_u64(value, &number) < 0 || number == 0 || number > 1000)
                                return err_plain(c->err, EINVAL, "max-file cannot be less than 1");
                } else if (streq(key, "mode")) {
                        if (!ONE_OF(value, "blocking", "non-blocking"))
                                return err_plain(c->err, EINVAL, "logger: invalid mode '%s'",
                                                 value);
                } else {
                        return err_plain(c->err, EINVAL,
                                         "unknown log opt '%s' for json-file log driver", key);
                }
        }
        if (json_map_get(log->config, "max-file") && !json_map_get(log->config, "max-size"))
                return err_plain(c->err, EINVAL, "max-file needs max-size");
        return 0;
}

static int check_security(struct check *c)
{
        struct security security;
        int r = security_parse(c->host, &security, c->warnings, c->err);
        if (r == 0)
                security_finish(&security);
        return r;
}

/* Kernel settings that belong to a name space; others would be the whole machine's. */
static bool is_own_sysctl(const struct host_config *host, const char *key)
{
        static const char *const ipc[] = {
                "kernel.msgmax", "kernel.msgmnb",          "kernel.msgmni",
                "kernel.sem",    "kernel.shmall",          "kernel.shmmax",
                "kernel.shmmni", "kernel.shm_rmid_forced", NULL
        };
        if (one_of(key, ipc) || str_starts(key, "fs.mqueue."))
                return !streq(host->ipc_mode, "host");
        if (str_starts(key, "net."))
                return !streq(host->network_mode, "host");
        return ONE_OF(key, "kernel.domainname", "kernel.hostname") &&
               !streq(host->uts_mode, "host");
}

static int check_sysctls(struct check *c)
{
        for (char **entry = c->host->sysctls; entry && *entry; entry++) {
                const char *value;
                auto_free char *key = json_map_split(*entry, &value);
                for (char *slash = key; (slash = strchr(slash, '/')); slash++)
                        *slash = '.';
                if (!is_own_sysctl(c->host, key))
                        return err_plain(c->err, EINVAL,
                                         "sysctl '%s' is not allowed: it is not in a name space of "
                                         "the container's own",
                                         key);
        }
        return 0;
}

static int (*const checks[])(struct check *) = {
        check_config, check_network, check_modes, check_machine,  check_restart, check_memory,
        check_cpu,    check_limits,  check_log,   check_security, check_sysctls,
};

int spec_check(const struct instance_spec *spec, char ***warnings, struct err *err)
{
        auto_strv kept = NULL;
        struct check check = { spec, &spec->config, &spec->host, &kept, err };
        for (size_t i = 0; i < ELEMENTS(checks); i++) {
                int r = checks[i](&check);
                if (r < 0)
                        return r;
        }
        for (char **warning = kept; warning && *warning; warning++)
                strv_push(warnings, *warning);
        return 0;
}
