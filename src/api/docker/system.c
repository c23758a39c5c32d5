/* The daemon about itself: ping, version, info. */
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <sys/statfs.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>

#include "api/reply.h"
#include "api/routes.h"
#include "api/task.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/str.h"
#include "engine/engine.h"
#include "image/image.h"

#define OS_RELEASE_SIZE_MAX 65536

static void ping_begin(struct http_request *request, void *arg)
{
        (void)arg;
        http_reply_header(request, "Cache-Control", "no-cache, no-store, must-revalidate");
        http_reply_header(request, "Pragma", "no-cache");
        http_reply_header(request, "Swarm", "inactive");
        http_reply(request, 200, "text/plain; charset=utf-8", "OK", 2);
}

static void version_begin(struct http_request *request, void *arg)
{
        (void)arg;
        struct utsname host;
        uname(&host);
        struct json_object *o = json_object_new_object();
        put_string(put_object(o, "Platform"), "Name", "Isle");
        struct json_object *component = json_object_new_object();
        put_string(component, "Name", "Engine");
        put_string(component, "Version", ISLE_VERSION);
        struct json_object *details = put_object(component, "Details");
        put_string(details, "ApiVersion", API_VERSION);
        put_string(details, "MinAPIVersion", API_VERSION_MIN);
        put_string(details, "Os", "linux");
        put_string(details, "Arch", "amd64");
        put_string(details, "KernelVersion", host.release);
        put_string(details, "Experimental", "false");
        push_json(put_array(o, "Components"), component);
        put_string(o, "Version", ISLE_VERSION);
        put_string(o, "ApiVersion", API_VERSION);
        put_string(o, "MinAPIVersion", API_VERSION_MIN);
        put_string(o, "GitCommit", "");
        put_string(o, "GoVersion", "");
        put_string(o, "Os", "linux");
        put_string(o, "Arch", "amd64");
        put_string(o, "KernelVersion", host.release);
        put_string(o, "BuildTime", "");
        http_reply_json(request, 200, o);
}

/* --- info --- */

struct info {
        struct task task;
        size_t images;
        char *os_name, *os_version;
};

static void info_finish(struct task *task)
{
        struct info *info = (struct info *)task;
        free(info->os_name);
        free(info->os_version);
}

/* KEY="value" of os-release(5); heap, NULL where missing. */
static char *os_release_value(const char *text, const char *key)
{
        for (const char *line = text; line; line = strchr(line, '\n')) {
                line += *line == '\n';
                const char *value = str_after(line, key);
                if (!value || *value != '=')
                        continue;
                size_t length = strcspn(++value, "\n");
                if (length >= 2 && (*value == '"' || *value == '\'')) {
                        value++;
                        length -= 2;
                }
                return xstrndup(value, length);
        }
        return NULL;
}

static void info_run(struct task *task)
{
        struct info *info = (struct info *)task;
        struct image **images = NULL;
        auto_free char *release = NULL;
        task->r = image_list(task->api->images, NULL, &images, &info->images, &task->err);
        if (task->r >= 0)
                image_list_free(images, info->images);
        if (file_read(AT_FDCWD, "/etc/os-release", OS_RELEASE_SIZE_MAX, &release, NULL, NULL) < 0)
                return;
        info->os_name = os_release_value(release, "PRETTY_NAME");
        info->os_version = os_release_value(release, "VERSION_ID");
}

static void put_host(struct json_object *o, const struct info *info)
{
        struct utsname host;
        struct sysinfo memory;
        struct statfs cgroups;
        uname(&host);
        sysinfo(&memory);
        bool unified = statfs("/sys/fs/cgroup", &cgroups) == 0 &&
                       cgroups.f_type == CGROUP2_SUPER_MAGIC;
        put_string(o, "CgroupDriver", "cgroupfs");
        put_string(o, "CgroupVersion", unified ? "2" : "1");
        put_string(o, "KernelVersion", host.release);
        put_string(o, "OperatingSystem", info->os_name ? info->os_name : "Linux");
        put_string(o, "OSVersion", info->os_version);
        put_string(o, "OSType", "linux");
        put_string(o, "Architecture", host.machine);
        put_int(o, "NCPU", get_nprocs());
        put_int(o, "MemTotal", (int64_t)memory.totalram * memory.mem_unit);
        put_string(o, "Name", host.nodename);
}

static void put_limits(struct json_object *o)
{
        static const char *const yes[] = { "MemoryLimit",      "SwapLimit",      "CpuCfsPeriod",
                                           "CpuCfsQuota",      "CPUShares",      "CPUSet",
                                           "PidsLimit",        "IPv4Forwarding", "BridgeNfIptables",
                                           "BridgeNfIp6tables" };
        static const char *const no[] = { "Debug", "OomKillDisable", "ExperimentalBuild",
                                          "LiveRestoreEnabled" };
        for (size_t i = 0; i < ELEMENTS(yes); i++)
                put_bool(o, yes[i], true);
        for (size_t i = 0; i < ELEMENTS(no); i++)
                put_bool(o, no[i], streq(no[i], "LiveRestoreEnabled"));
}

static void put_plugins(struct json_object *o, const struct engine_settings *settings)
{
        struct json_object *plugins = put_object(o, "Plugins");
        push_string(put_array(plugins, "Volume"), "local");
        struct json_object *networks = put_array(plugins, "Network");
        push_string(networks, "host");
        push_string(networks, "null");
        put_json(plugins, "Authorization", NULL);
        struct json_object *logs = put_array(plugins, "Log");
        push_string(logs, "json-file");
        push_string(logs, "none");
        struct json_object *runtimes = put_object(o, "Runtimes");
        put_string(put_object(runtimes, "isle-runtime"), "path", settings->runtime_path);
        put_string(put_object(runtimes, "isle-vm"), "path", settings->runtime_path);
        put_string(o, "DefaultRuntime", settings->default_runtime);
        put_string(o, "InitBinary", settings->init_path);
        struct json_object *swarm = put_object(o, "Swarm");
        put_string(swarm, "NodeID", "");
        put_string(swarm, "NodeAddr", "");
        put_string(swarm, "LocalNodeState", "inactive");
        put_bool(swarm, "ControlAvailable", false);
        put_string(swarm, "Error", "");
        put_json(swarm, "RemoteManagers", NULL);
}

static void put_registries(struct json_object *o, char *const *insecure)
{
        struct json_object *config = put_object(o, "RegistryConfig");
        struct json_object *networks = put_array(config, "InsecureRegistryCIDRs");
        push_string(networks, "::1/128");
        push_string(networks, "127.0.0.0/8");
        struct json_object *indexes = put_object(config, "IndexConfigs");
        for (; insecure && *insecure; insecure++) {
                struct json_object *entry = json_object_new_object();
                put_string(entry, "Name", *insecure);
                put_array(entry, "Mirrors");
                put_bool(entry, "Secure", false);
                put_bool(entry, "Official", false);
                json_object_object_add(indexes, *insecure, entry);
        }
        put_json(config, "Mirrors", NULL);
        put_string(o, "IndexServerAddress", "https://index.docker.io/v1/");
}

static void info_reply(struct task *task)
{
        const struct info *info = (struct info *)task;
        const struct api *api = task->api;
        const struct engine_settings *settings = engine_settings(api->engine);
        struct engine_counts counts = engine_counts(api->engine);
        struct json_object *o = json_object_new_object();
        put_string(o, "ID", api->settings.id);
        put_int(o, "Containers", counts.total);
        put_int(o, "ContainersRunning", counts.running);
        put_int(o, "ContainersPaused", counts.paused);
        put_int(o, "ContainersStopped", counts.stopped);
        put_int(o, "Images", (int64_t)info->images);
        put_string(o, "Driver", "overlay2");
        put_array(o, "DriverStatus");
        put_string(o, "LoggingDriver", "json-file");
        put_host(o, info);
        put_limits(o);
        put_plugins(o, settings);
        put_registries(o, api->settings.insecure_registries);
        put_time(o, "SystemTime", clock_realtime_ns());
        put_int(o, "NFd", 0);
        put_int(o, "NGoroutines", 0);
        put_int(o, "NEventsListener", 0);
        put_string(o, "DockerRootDir", settings->root_dir);
        put_string(o, "HttpProxy", "");
        put_string(o, "HttpsProxy", "");
        put_string(o, "NoProxy", "");
        put_array(o, "Labels");
        put_string(o, "ServerVersion", ISLE_VERSION);
        push_string(put_array(o, "SecurityOptions"), "name=seccomp,profile=builtin");
        put_string(o, "Isolation", "");
        put_array(o, "Warnings");
        http_reply_json(task->request, 200, o);
}

static void info_begin(struct http_request *request, void *arg)
{
        struct info *info = new0(struct info);
        info->task.run = info_run;
        info->task.reply = info_reply;
        info->task.finish = info_finish;
        task_submit(arg, request, &info->task);
}

const struct http_route docker_system_routes[] = {
        { "GET", "/_ping", ping_begin, HTTP_BODY_NONE },
        { "GET", "/version", version_begin, HTTP_BODY_NONE },
        { "GET", "/info", info_begin, HTTP_BODY_NONE },
};
const size_t docker_system_routes_length = ELEMENTS(docker_system_routes);
