#include "api/docker/container_json.h"

#include <time.h>

#include "api/api.h"
#include "api/reply.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/str.h"
#include "engine/engine.h"
#include "engine/exec.h"
#include "engine/instance.h"

const char *container_network(const struct instance *instance)
{
        const char *mode = instance->spec.host.network_mode;
        if (str_empty(mode) || streq(mode, "default") || streq(mode, "none"))
                return "none";
        return streq(mode, "host") ? "host" : NULL;
}

const char *network_id(const char *name)
{
        /* sha256 of "isle network none" and "isle network host" */
        if (streq(name, "host"))
                return "6602d612dc47d8f8ea39c0a59a7e7252d26197b43bb01c30448cfd1667bd32f0";
        return "33d8e9f8ebf1ad8ad50aeb152c2029e223b0d7009dc40aa1ef50f16fc0787305";
}

static struct json_object *endpoint_json(const char *network, bool running)
{
        struct json_object *endpoint = json_object_new_object();
        static const char *const nulls[] = { "IPAMConfig", "Links", "Aliases", "DriverOpts",
                                             "DNSNames" };
        static const char *const texts[] = { "MacAddress", "Gateway", "IPAddress", "IPv6Gateway",
                                             "GlobalIPv6Address" };
        for (size_t i = 0; i < ELEMENTS(nulls); i++)
                put_json(endpoint, nulls[i], NULL);
        for (size_t i = 0; i < ELEMENTS(texts); i++)
                put_string(endpoint, texts[i], "");
        put_string(endpoint, "NetworkID", network_id(network));
        put_string(endpoint, "EndpointID", running ? network_id(network) : "");
        put_int(endpoint, "IPPrefixLen", 0);
        put_int(endpoint, "GlobalIPv6PrefixLen", 0);
        return endpoint;
}

static void put_networks(struct json_object *object, const struct instance *instance)
{
        struct json_object *networks = put_object(object, "Networks");
        const char *network = container_network(instance);
        if (network)
                put_json(networks, network, endpoint_json(network, instance->pid > 0));
}

static void put_mounts(struct json_object *object, const struct instance *instance)
{
        struct json_object *list = put_array(object, "Mounts");
        for (size_t i = 0; i < instance->mounts_length; i++) {
                const struct instance_mount *mount = &instance->mounts[i];
                struct json_object *entry = json_object_new_object();
                put_string(entry, "Type", mount->type);
                if (mount->name)
                        put_string(entry, "Name", mount->name);
                put_string(entry, "Source", mount->source);
                put_string(entry, "Destination", mount->destination);
                if (mount->driver)
                        put_string(entry, "Driver", mount->driver);
                put_string(entry, "Mode", mount->mode);
                put_bool(entry, "RW", mount->read_write);
                put_string(entry, "Propagation", mount->propagation);
                push_json(list, entry);
        }
}

static void put_sizes(struct json_object *object, const struct container_sizes *sizes)
{
        if (!sizes || !sizes->known)
                return;
        put_int(object, "SizeRw", (int64_t)sizes->rw_bytes);
        put_int(object, "SizeRootFs", (int64_t)sizes->total_bytes);
}

/* As docker's list shows it: arguments with blanks in quotes. */
static char *command_text(char *const *argv)
{
        struct buf text = { 0 };
        for (char *const *arg = argv; arg && *arg; arg++) {
                bool quote = arg != argv && strchr(*arg, ' ');
                buf_printf(&text, quote ? "%s'%s'" : "%s%s", arg == argv ? "" : " ", *arg);
        }
        return buf_take(&text);
}

/* Not docker's: of a virtual machine that runs. */
static void put_cpu(struct json_object *object, const struct instance *instance)
{
        auto_free char *cpu = instance_vm_cpu(instance);
        if (cpu)
                put_string(object, "Cpu", cpu);
}

/* Not docker's either: of a virtual machine. */
static void put_rootfs(struct json_object *object, const struct host_config *host)
{
        if (host_config_wants_vm(host))
                put_string(object, "Rootfs", host_config_wants_layers(host) ? "erofs" : "fs");
}

static void put_cpu_model(struct json_object *object, const struct host_config *host)
{
        const char *model = json_map_get(host->annotations, SPEC_VM_CPU_MODEL);
        if (host_config_wants_vm(host) && model)
                put_string(object, "CpuModel", model);
}

struct json_object *container_summary(struct instance *instance,
                                      const struct container_sizes *sizes, int64_t now_ns)
{
        auto_free char *command = command_text(instance->argv);
        auto_free char *status = instance_status_text(instance, now_ns);
        auto_free char *name = xasprintf("/%s", instance->name);
        const struct instance_spec *spec = &instance->spec;
        struct json_object *o = json_object_new_object();
        put_string(o, "Id", instance->id);
        push_string(put_array(o, "Names"), name);
        put_string(o, "Image", spec->config.image);
        put_string(o, "ImageID", instance->image_id);
        put_string(o, "Command", command);
        put_int(o, "Created", instance->created_ns / NS_PER_S);
        put_array(o, "Ports");
        put_sizes(o, sizes);
        put_map(o, "Labels", spec->config.labels);
        put_string(o, "State", instance_state_name(instance->state));
        put_cpu(o, instance);
        put_string(o, "Status", status);
        struct json_object *host = put_object(o, "HostConfig");
        put_string(host, "NetworkMode",
                   str_empty(spec->host.network_mode) ? "default" : spec->host.network_mode);
        put_networks(put_object(o, "NetworkSettings"), instance);
        put_mounts(o, instance);
        return o;
}

static void put_health(struct json_object *object, const struct health *health)
{
        if (health->status == HEALTH_NONE)
                return;
        struct json_object *o = put_object(object, "Health");
        put_string(o, "Status", health_status_name(health->status));
        put_int(o, "FailingStreak", health->failing_streak);
        struct json_object *list = put_array(o, "Log");
        for (size_t i = 0; i < health->log_length; i++) {
                const struct health_result *result = &health->log[i];
                struct json_object *entry = json_object_new_object();
                put_time(entry, "Start", result->start_ns);
                put_time(entry, "End", result->end_ns);
                put_int(entry, "ExitCode", result->exit_code);
                put_string(entry, "Output", result->output);
                push_json(list, entry);
        }
}

static void put_state(struct json_object *object, const struct instance *instance)
{
        struct json_object *state = put_object(object, "State");
        enum instance_state s = instance->state;
        put_string(state, "Status", instance_state_name(s));
        put_bool(state, "Running",
                 s == INSTANCE_RUNNING || s == INSTANCE_PAUSED || s == INSTANCE_RESTARTING);
        put_bool(state, "Paused", s == INSTANCE_PAUSED);
        put_bool(state, "Restarting", s == INSTANCE_RESTARTING);
        put_cpu(state, instance);
        put_rootfs(state, &instance->spec.host);
        put_cpu_model(state, &instance->spec.host);
        put_bool(state, "OOMKilled", instance->oom_killed);
        put_bool(state, "Dead", s == INSTANCE_DEAD);
        put_int(state, "Pid", instance->pid);
        put_int(state, "ExitCode", instance->exit_code);
        put_string(state, "Error", instance->error);
        put_time(state, "StartedAt", instance->started_ns);
        put_time(state, "FinishedAt", instance->finished_ns);
        put_health(state, &instance->health);
}

/* What can be told without touching the disk: the writable layer's place, and
 * while it runs the root file system as its init sees it. */
static void put_graph_driver(struct json_object *object, const struct api *api,
                             const struct instance *instance)
{
        struct json_object *driver = put_object(object, "GraphDriver");
        struct json_object *data = put_object(driver, "Data");
        const char *root = engine_settings(api->engine)->root_dir;
        auto_free char *upper = xasprintf("%s/snapshots/%s/upper", root, instance->id);
        auto_free char *work = xasprintf("%s/snapshots/%s/work", root, instance->id);
        auto_free char *merged = instance->pid > 0 ? xasprintf("/proc/%d/root", (int)instance->pid)
                                                   : NULL;
        put_string(data, "MergedDir", merged);
        put_string(data, "UpperDir", upper);
        put_string(data, "WorkDir", work);
        put_string(driver, "Name", "overlay2");
}

static void put_network_settings(struct json_object *object, const struct instance *instance)
{
        struct json_object *settings = put_object(object, "NetworkSettings");
        static const char *const texts[] = {
                "Bridge",  "SandboxID",         "SandboxKey", "LinkLocalIPv6Address", "EndpointID",
                "Gateway", "GlobalIPv6Address", "IPAddress",  "IPv6Gateway",          "MacAddress"
        };
        static const char *const numbers[] = { "LinkLocalIPv6PrefixLen", "GlobalIPv6PrefixLen",
                                               "IPPrefixLen" };
        for (size_t i = 0; i < ELEMENTS(texts); i++)
                put_string(settings, texts[i], "");
        for (size_t i = 0; i < ELEMENTS(numbers); i++)
                put_int(settings, numbers[i], 0);
        put_object(settings, "Ports");
        put_bool(settings, "HairpinMode", false);
        put_json(settings, "SecondaryIPAddresses", NULL);
        put_json(settings, "SecondaryIPv6Addresses", NULL);
        put_networks(settings, instance);
}

static void put_exec_ids(struct json_object *object, const struct instance *instance)
{
        auto_strv ids = exec_ids(instance);
        if (ids)
                put_strings(object, "ExecIDs", ids);
        else
                put_json(object, "ExecIDs", NULL);
}

/* docker fills what the user left out, and tools rely on it. */
static struct json_object *host_config_json(const struct host_config *host)
{
        struct json_object *o = json_encode(&host_config_shape, host);
        if (str_empty(host->network_mode))
                json_object_object_add(o, "NetworkMode", json_object_new_string("default"));
        struct json_object *log = json_object_object_get(o, "LogConfig");
        if (log && str_empty(host->log_config.type))
                json_object_object_add(log, "Type", json_object_new_string("json-file"));
        return o;
}

static struct json_object *config_json(const struct instance *instance)
{
        struct json_object *o = json_encode(&config_shape, &instance->spec.config);
        if (str_empty(instance->spec.config.hostname))
                json_object_object_add(o, "Hostname", json_object_new_string_len(instance->id, 12));
        return o;
}

struct json_object *container_details(const struct api *api, struct instance *instance,
                                      const struct container_sizes *sizes)
{
        auto_free char *name = xasprintf("/%s", instance->name);
        struct json_object *o = json_object_new_object();
        put_string(o, "Id", instance->id);
        put_time(o, "Created", instance->created_ns);
        put_string(o, "Path", instance->argv ? instance->argv[0] : "");
        put_strings(o, "Args", instance->argv && instance->argv[0] ? instance->argv + 1 : NULL);
        put_state(o, instance);
        put_string(o, "Image", instance->image_id);
        put_string(o, "ResolvConfPath", instance->resolv_conf_path);
        put_string(o, "HostnamePath", instance->hostname_path);
        put_string(o, "HostsPath", instance->hosts_path);
        put_string(o, "LogPath", instance->log_path);
        put_string(o, "Name", name);
        put_int(o, "RestartCount", instance->restart_count);
        put_string(o, "Driver", "overlay2");
        put_string(o, "Platform", "linux");
        put_string(o, "MountLabel", "");
        put_string(o, "ProcessLabel", "");
        put_string(o, "AppArmorProfile", "");
        put_exec_ids(o, instance);
        put_json(o, "HostConfig", host_config_json(&instance->spec.host));
        put_graph_driver(o, api, instance);
        put_sizes(o, sizes);
        put_mounts(o, instance);
        put_json(o, "Config", config_json(instance));
        put_network_settings(o, instance);
        return o;
}
