/* What the types of a runtime specification do not say.
 *
 * Each function checks one object and tells, in the words of config.md, which
 * member is wrong, with its value. The order follows the specification.
 */
#include <ctype.h>

#include "base/clock.h"
#include "base/str.h"
#include "oci/runtime_spec.h"

#define DEVICE_MAJOR_MAX     4095    /* 12 bits, as the kernel's dev_t */
#define DEVICE_MINOR_MAX     1048575 /* 20 bits */
#define DEADLINE_RUNTIME_MIN 1024    /* ns; the kernel's */
#define MAPPINGS_MAX         340     /* the kernel's limit on lines of uid_map */
#define IFNAME_MAX           15      /* IFNAMSIZ - 1 */
#define SWAPPINESS_MAX       200

static bool is_absolute(const char *path)
{
        return path && path[0] == '/';
}

static int check_absolute(const char *what, const char *path, struct err *err)
{
        if (is_absolute(path))
                return 0;
        return err_plain(err, EINVAL, "%s: '%s' is not an absolute path", what, path ? path : "");
}

/* digits "." digits "." digits, then nothing or what "-" or "+" begins */
static int check_version(const char *version, struct err *err)
{
        const char *p = version;
        for (int part = 0; part < 3; part++) {
                if (!isdigit((unsigned char)*p) || (part > 0 && p[-1] != '.'))
                        return err_plain(err, EINVAL, "ociVersion: '%s' is not a version (as %s)",
                                         version, OCI_RUNTIME_SPEC_VERSION);
                while (isdigit((unsigned char)*p))
                        p++;
                if (part < 2 && *p)
                        p++;
        }
        if (*p && *p != '-' && *p != '+')
                return err_plain(err, EINVAL, "ociVersion: '%s' is not a version (as %s)", version,
                                 OCI_RUNTIME_SPEC_VERSION);
        if (!str_starts(version, "1."))
                return err_plain(err, EINVAL,
                                 "ociVersion: '%s' is not supported; this runtime implements %s",
                                 version, OCI_RUNTIME_SPEC_VERSION);
        return 0;
}

/* Process */

static int check_env(char *const *env, struct err *err)
{
        for (size_t i = 0; env && env[i]; i++) {
                const char *equals = strchr(env[i], '=');
                if (!equals || equals == env[i])
                        return err_plain(err, EINVAL, "process.env[%zu]: '%s' is not NAME=value", i,
                                         env[i]);
        }
        return 0;
}

static int check_rlimits(const struct oci_process *process, struct err *err)
{
        for (size_t i = 0; i < process->rlimits_length; i++) {
                const struct oci_rlimit *limit = &process->rlimits[i];
                if (!str_starts(limit->type, "RLIMIT_"))
                        return err_plain(err, EINVAL,
                                         "process.rlimits[%zu].type: '%s' is no resource limit", i,
                                         limit->type);
                if (limit->soft > limit->hard)
                        return err_plain(err, EINVAL,
                                         "process.rlimits[%zu]: %s: soft limit is above hard limit",
                                         i, limit->type);
                for (size_t j = 0; j < i; j++)
                        if (streq(process->rlimits[j].type, limit->type))
                                return err_plain(err, EINVAL,
                                                 "process.rlimits[%zu]: %s is given twice", i,
                                                 limit->type);
        }
        return 0;
}

/* What the kernel would refuse without saying why. Source: sched(7), SCHED_DEADLINE. */
static int check_deadline(const struct oci_scheduler *s, struct err *err)
{
        static const char who[] = "process.scheduler: sched_setattr: `SCHED_DEADLINE`";
        unsigned long long runtime = s->runtime_ns, deadline = s->deadline_ns,
                           period = s->period_ns;
        if (!s->has_runtime_ns)
                return err_plain(err, EINVAL, "%s requires `runtime`", who);
        if (!s->has_deadline_ns)
                return err_plain(err, EINVAL, "%s requires `deadline`", who);
        if (runtime == 0)
                return err_plain(err, EINVAL, "%s runtime must be greater than 0", who);
        if (runtime < DEADLINE_RUNTIME_MIN || runtime > INT64_MAX)
                return err_plain(err, EINVAL, "%s runtime %llu must be between %d and 2^63 - 1",
                                 who, runtime, DEADLINE_RUNTIME_MIN);
        if (runtime > deadline)
                return err_plain(err, EINVAL, "%s runtime %llu must be <= its deadline %llu", who,
                                 runtime, deadline);
        if (period && deadline > period)
                return err_plain(err, EINVAL, "%s deadline %llu must be <= its period %llu", who,
                                 deadline, period);
        return 0;
}

static int check_scheduling(const struct oci_process *process, struct err *err)
{
        const struct oci_scheduler *s = process->scheduler;
        const struct oci_io_priority *io = process->io_priority;

        if (s && (s->nice < -20 || s->nice > 19))
                return err_plain(err, EINVAL, "process.scheduler.nice: %d is not in -20 … 19",
                                 s->nice);
        if (s && s->policy != OCI_SCHED_DEADLINE &&
            (s->runtime_ns || s->deadline_ns || s->period_ns))
                return err_plain(err, EINVAL,
                                 "process.scheduler: runtime, deadline and period need the policy "
                                 "SCHED_DEADLINE");
        if (s && s->policy == OCI_SCHED_DEADLINE) {
                int r = check_deadline(s, err);
                if (r < 0)
                        return r;
        }
        if (s && s->priority != 0 && s->policy != OCI_SCHED_FIFO && s->policy != OCI_SCHED_RR)
                return err_plain(err, EINVAL,
                                 "process.scheduler: priority needs the policy SCHED_FIFO or "
                                 "SCHED_RR");
        if (io && (io->priority < 0 || io->priority > 7))
                return err_plain(err, EINVAL, "process.ioPriority.priority: %d is not in 0 … 7",
                                 io->priority);
        return 0;
}

int oci_process_validate(const struct oci_process *process, struct err *err)
{
        if (!process->args || !process->args[0])
                return err_plain(err, EINVAL, "process.args: is missing or empty");
        int r = check_absolute("process.cwd", process->cwd, err);
        if (r < 0)
                return r;
        if (process->has_oom_score_adj &&
            (process->oom_score_adj < -1000 || process->oom_score_adj > 1000))
                return err_plain(err, EINVAL, "process.oomScoreAdj: %d is not in -1000 … 1000",
                                 process->oom_score_adj);
        r = check_env(process->env, err);
        if (r < 0)
                return r;
        r = check_rlimits(process, err);
        if (r < 0)
                return r;
        return check_scheduling(process, err);
}

/* Root, mounts, hooks */

static int check_mappings(const char *what, const struct oci_id_mapping *mappings, size_t length,
                          struct err *err)
{
        if (length > MAPPINGS_MAX)
                return err_plain(err, EINVAL, "%s: %zu mappings are more than the kernel's %d",
                                 what, length, MAPPINGS_MAX);
        for (size_t i = 0; i < length; i++) {
                const struct oci_id_mapping *a = &mappings[i];
                if (a->size == 0 || a->container_id + a->size - 1 < a->container_id ||
                    a->host_id + a->size - 1 < a->host_id)
                        return err_plain(err, EINVAL, "%s[%zu]: size %u is out of range", what, i,
                                         a->size);
                for (size_t j = 0; j < i; j++) {
                        const struct oci_id_mapping *b = &mappings[j];
                        bool in = a->container_id <= b->container_id + (b->size - 1) &&
                                  b->container_id <= a->container_id + (a->size - 1);
                        bool out = a->host_id <= b->host_id + (b->size - 1) &&
                                   b->host_id <= a->host_id + (a->size - 1);
                        if (in || out)
                                return err_plain(err, EINVAL, "%s: [%zu] and [%zu] overlap", what,
                                                 j, i);
                }
        }
        return 0;
}

static int check_mount(const struct oci_mount *mount, size_t i, struct err *err)
{
        char what[64];
        if (str_empty(mount->destination))
                return err_plain(err, EINVAL, "mounts[%zu].destination: is empty", i);
        if ((mount->uid_mappings_length == 0) != (mount->gid_mappings_length == 0))
                return err_plain(err, EINVAL,
                                 "mounts[%zu]: uidMappings and gidMappings need each other", i);
        snprintf(what, sizeof(what), "mounts[%zu].uidMappings", i);
        int r = check_mappings(what, mount->uid_mappings, mount->uid_mappings_length, err);
        if (r < 0)
                return r;
        snprintf(what, sizeof(what), "mounts[%zu].gidMappings", i);
        return check_mappings(what, mount->gid_mappings, mount->gid_mappings_length, err);
}

static int check_hook_list(const char *name, const struct oci_hook *hooks, size_t length,
                           struct err *err)
{
        for (size_t i = 0; i < length; i++) {
                if (!is_absolute(hooks[i].path))
                        return err_plain(err, EINVAL,
                                         "hooks.%s[%zu].path: '%s' is not an absolute path", name,
                                         i, hooks[i].path);
                if (hooks[i].has_timeout_s && hooks[i].timeout_s <= 0)
                        return err_plain(err, EINVAL,
                                         "hooks.%s[%zu].timeout: %d is not greater than zero", name,
                                         i, hooks[i].timeout_s);
        }
        return 0;
}

static int check_hooks(const struct oci_hooks *h, struct err *err)
{
        const struct {
                const char *name;
                const struct oci_hook *hooks;
                size_t length;
        } lists[] = {
                { "prestart", h->prestart, h->prestart_length },
                { "createRuntime", h->create_runtime, h->create_runtime_length },
                { "createContainer", h->create_container, h->create_container_length },
                { "startContainer", h->start_container, h->start_container_length },
                { "poststart", h->poststart, h->poststart_length },
                { "poststop", h->poststop, h->poststop_length },
        };
        for (size_t i = 0; i < ELEMENTS(lists); i++) {
                int r = check_hook_list(lists[i].name, lists[i].hooks, lists[i].length, err);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* Linux */

static int check_namespaces(const struct oci_linux *l, struct err *err)
{
        bool seen[OCI_NAMESPACE_KINDS] = { false };
        for (size_t i = 0; i < l->namespaces_length; i++) {
                const struct oci_namespace *ns = &l->namespaces[i];
                if (ns->kind <= OCI_NAMESPACE_UNSET || ns->kind >= OCI_NAMESPACE_KINDS)
                        return err_plain(err, EINVAL, "linux.namespaces[%zu].type: is missing", i);
                if (seen[ns->kind])
                        return err_plain(err, EINVAL, "linux.namespaces[%zu]: '%s' is given twice",
                                         i, oci_namespace_names[ns->kind]);
                seen[ns->kind] = true;
                if (!str_empty(ns->path) && !is_absolute(ns->path))
                        return err_plain(err, EINVAL,
                                         "linux.namespaces[%zu].path: '%s' is not an absolute path",
                                         i, ns->path);
        }
        return 0;
}

/* Members that make no sense, or do harm to the host, without a namespace of their own. */
static int check_namespace_needs(const struct oci_spec *spec, struct err *err)
{
        static const struct oci_linux none = { 0 };
        const struct oci_linux *l = spec->linux_ ? spec->linux_ : &none;
        const struct oci_namespace *time = oci_spec_namespace(spec, OCI_NAMESPACE_TIME);
        const struct {
                bool used;
                const char *member;
                enum oci_namespace_kind kind;
        } needs[] = {
                { !str_empty(spec->hostname), "hostname", OCI_NAMESPACE_UTS },
                { !str_empty(spec->domainname), "domainname", OCI_NAMESPACE_UTS },
                { l->uid_mappings_length > 0, "linux.uidMappings", OCI_NAMESPACE_USER },
                { l->gid_mappings_length > 0, "linux.gidMappings", OCI_NAMESPACE_USER },
                { l->time_offsets_length > 0, "linux.timeOffsets", OCI_NAMESPACE_TIME },
                { l->net_devices_length > 0, "linux.netDevices", OCI_NAMESPACE_NETWORK },
        };
        for (size_t i = 0; i < ELEMENTS(needs); i++)
                if (needs[i].used && !oci_spec_namespace(spec, needs[i].kind))
                        return err_plain(err, EINVAL,
                                         "%s: needs a namespace of type '%s' in linux.namespaces",
                                         needs[i].member, oci_namespace_names[needs[i].kind]);
        if (l->time_offsets_length > 0 && time && !str_empty(time->path))
                return err_plain(err, EINVAL,
                                 "linux.timeOffsets: the offsets of a time namespace that is "
                                 "joined cannot be changed");
        return 0;
}

static int check_time_offsets(const struct oci_linux *l, struct err *err)
{
        for (size_t i = 0; i < l->time_offsets_length; i++) {
                const struct oci_time_offset *offset = &l->time_offsets[i];
                if (!streq(offset->clock, "monotonic") && !streq(offset->clock, "boottime"))
                        return err_plain(err, EINVAL,
                                         "linux.timeOffsets: '%s' is no clock of a time namespace "
                                         "(known: monotonic, boottime)",
                                         offset->clock);
                if (offset->nanosecs >= NS_PER_S)
                        return err_plain(err, EINVAL,
                                         "linux.timeOffsets.%s.nanosecs: %u is a second or more",
                                         offset->clock, offset->nanosecs);
        }
        return 0;
}

static bool device_number_valid(int64_t major, int64_t minor)
{
        return major >= 0 && major <= DEVICE_MAJOR_MAX && minor >= 0 && minor <= DEVICE_MINOR_MAX;
}

static int check_devices(const struct oci_linux *l, struct err *err)
{
        for (size_t i = 0; i < l->devices_length; i++) {
                const struct oci_device *device = &l->devices[i];
                if (!is_absolute(device->path))
                        return err_plain(err, EINVAL,
                                         "linux.devices[%zu].path: '%s' is not an absolute path", i,
                                         device->path);
                if (strlen(device->type) != 1 || !strchr("bcup", device->type[0]))
                        return err_plain(err, EINVAL,
                                         "linux.devices[%zu].type: unknown value '%s' (known: b, "
                                         "c, u, p)",
                                         i, device->type);
                if (*device->type != 'p' && !device_number_valid(device->major, device->minor))
                        return err_plain(err, EINVAL,
                                         "linux.devices[%zu]: %s: bad device number %lld:%lld", i,
                                         device->path, (long long)device->major,
                                         (long long)device->minor);
        }
        return 0;
}

static int check_net_devices(const struct oci_linux *l, struct err *err)
{
        for (size_t i = 0; i < l->net_devices_length; i++) {
                const struct oci_net_device *device = &l->net_devices[i];
                const char *names[] = { device->host_name, device->name };
                for (size_t j = 0; j < ELEMENTS(names); j++) {
                        const char *name = names[j];
                        if (j == 1 && str_empty(name))
                                continue; /* keeps its name */
                        if (str_empty(name) || strlen(name) > IFNAME_MAX ||
                            strpbrk(name, "/: \t\n") || streq(name, ".") || streq(name, ".."))
                                return err_plain(err, EINVAL,
                                                 "linux.netDevices: '%s' is no name of a network "
                                                 "device",
                                                 name);
                }
        }
        return 0;
}

static int check_seccomp(const struct oci_seccomp *seccomp, struct err *err)
{
        for (size_t i = 0; i < seccomp->syscalls_length; i++) {
                const struct oci_syscall *call = &seccomp->syscalls[i];
                if (!call->names || !call->names[0])
                        return err_plain(err, EINVAL, "linux.seccomp.syscalls[%zu].names: is empty",
                                         i);
                for (size_t j = 0; j < call->args_length; j++)
                        if (call->args[j].index > 5)
                                return err_plain(err, EINVAL,
                                                 "linux.seccomp.syscalls[%zu].args[%zu].index: %u "
                                                 "is not in 0 … 5",
                                                 i, j, call->args[j].index);
        }
        if (!str_empty(seccomp->listener_metadata) && str_empty(seccomp->listener_path))
                return err_plain(err, EINVAL, "linux.seccomp.listenerMetadata: needs listenerPath");
        return 0;
}

static int check_paths(const char *what, char *const *paths, struct err *err)
{
        for (size_t i = 0; paths && paths[i]; i++)
                if (!is_absolute(paths[i]))
                        return err_plain(err, EINVAL, "%s[%zu]: '%s' is not an absolute path", what,
                                         i, paths[i]);
        return 0;
}

static int check_keys(const char *what, char *const *map, struct err *err)
{
        for (size_t i = 0; map && map[i]; i++)
                if (map[i][0] == '=')
                        return err_plain(err, EINVAL, "%s: a key is empty", what);
        return 0;
}

static int check_device_rules(const struct oci_resources *resources, struct err *err)
{
        for (size_t i = 0; i < resources->devices_length; i++) {
                const struct oci_device_rule *rule = &resources->devices[i];
                if (!str_empty(rule->type) &&
                    (strlen(rule->type) != 1 || !strchr("abc", rule->type[0])))
                        return err_plain(err, EINVAL,
                                         "linux.resources.devices[%zu].type: unknown value '%s' "
                                         "(known: a, b, c)",
                                         i, rule->type);
                if (rule->access && rule->access[strspn(rule->access, "rwma")])
                        return err_plain(err, EINVAL,
                                         "linux.resources.devices[%zu].access: '%s' is not made of "
                                         "r, w, m",
                                         i, rule->access);
                if ((rule->has_major && (rule->major < -1 || rule->major > DEVICE_MAJOR_MAX)) ||
                    (rule->has_minor && (rule->minor < -1 || rule->minor > DEVICE_MINOR_MAX)))
                        return err_plain(err, EINVAL,
                                         "linux.resources.devices[%zu]: bad device number", i);
        }
        return 0;
}

int oci_resources_validate(const struct oci_resources *resources, struct err *err)
{
        int r = check_device_rules(resources, err);
        if (r < 0)
                return r;
        const struct oci_memory *memory = resources->memory;
        if (memory && memory->has_swappiness && memory->swappiness > SWAPPINESS_MAX)
                return err_plain(err, EINVAL,
                                 "linux.resources.memory.swappiness: %llu is not in 0 … %d",
                                 (unsigned long long)memory->swappiness, SWAPPINESS_MAX);
        if (memory && memory->has_limit && memory->has_swap && memory->limit > 0 &&
            memory->swap > 0 && memory->swap < memory->limit)
                return err_plain(err, EINVAL,
                                 "linux.resources.memory.swap: %lld (memory and swap together) is "
                                 "less than limit %lld",
                                 (long long)memory->swap, (long long)memory->limit);
        for (char **file = resources->unified; file && *file; file++) {
                size_t length = strcspn(*file, "=");
                if (length == 0 || memchr(*file, '/', length) || !memchr(*file, '.', length))
                        return err_plain(err, EINVAL,
                                         "linux.resources.unified: '%.*s' is no cgroup file",
                                         (int)length, *file);
        }
        return 0;
}

static int check_linux(const struct oci_linux *l, struct err *err)
{
        int r = check_namespaces(l, err);
        if (r < 0)
                return r;
        r = check_mappings("linux.uidMappings", l->uid_mappings, l->uid_mappings_length, err);
        if (r < 0)
                return r;
        r = check_mappings("linux.gidMappings", l->gid_mappings, l->gid_mappings_length, err);
        if (r < 0)
                return r;
        r = check_time_offsets(l, err);
        if (r < 0)
                return r;
        r = check_devices(l, err);
        if (r < 0)
                return r;
        r = check_net_devices(l, err);
        if (r < 0)
                return r;
        r = l->resources ? oci_resources_validate(l->resources, err) : 0;
        if (r < 0)
                return r;
        r = l->seccomp ? check_seccomp(l->seccomp, err) : 0;
        if (r < 0)
                return r;
        r = check_keys("linux.sysctl", l->sysctl, err);
        if (r < 0)
                return r;
        r = check_paths("linux.maskedPaths", l->masked_paths, err);
        if (r < 0)
                return r;
        return check_paths("linux.readonlyPaths", l->readonly_paths, err);
}

int oci_spec_validate(const struct oci_spec *spec, struct err *err)
{
        if (str_empty(spec->oci_version))
                return err_plain(err, EINVAL, "ociVersion: is missing");
        int r = check_version(spec->oci_version, err);
        if (r < 0)
                return r;
        if (!spec->root || str_empty(spec->root->path))
                return err_plain(err, EINVAL, "root.path: is missing");
        /* Required when start is called. */
        r = spec->process ? oci_process_validate(spec->process, err) : 0;
        if (r < 0)
                return r;
        for (size_t i = 0; i < spec->mounts_length; i++) {
                r = check_mount(&spec->mounts[i], i, err);
                if (r < 0)
                        return r;
        }
        r = spec->hooks ? check_hooks(spec->hooks, err) : 0;
        if (r < 0)
                return r;
        r = check_keys("annotations", spec->annotations, err);
        if (r < 0)
                return r;
        r = spec->linux_ ? check_linux(spec->linux_, err) : 0;
        if (r < 0)
                return r;
        return check_namespace_needs(spec, err);
}
