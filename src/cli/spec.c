#include "cli/spec.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <json-c/json_object.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/str.h"
#include "cli/field.h"
#include "cli/terminal.h"
#include "codec/json.h"

#define FILE_LIMIT_BYTES (16u << 20)

/* --- one option, one place --- */

enum form {
        FORM_TEXT,
        FORM_LIST,
        FORM_BOOL,
        FORM_INT,
        FORM_NANO, /* a decimal in billionths */
        FORM_MAP,  /* KEY=VALUE into an object */
        FORM_RATE, /* /DEVICE:NUMBER into { Path, Rate } */
        FORM_WEIGHT,
};

struct row {
        const char *option, *path;
        enum form form;
};

static const struct row config_rows[] = {
        { "hostname", "Hostname", FORM_TEXT },
        { "domainname", "Domainname", FORM_TEXT },
        { "user", "User", FORM_TEXT },
        { "tty", "Tty", FORM_BOOL },
        { "interactive", "OpenStdin", FORM_BOOL },
        { "workdir", "WorkingDir", FORM_TEXT },
        { "stop-signal", "StopSignal", FORM_TEXT },
        { "stop-timeout", "StopTimeout", FORM_INT },
        { "mac-address", "MacAddress", FORM_TEXT },
};

static const struct row host_rows[] = {
        { "cidfile", "ContainerIDFile", FORM_TEXT },
        { "rm", "AutoRemove", FORM_BOOL },
        { "privileged", "Privileged", FORM_BOOL },
        { "publish-all", "PublishAllPorts", FORM_BOOL },
        { "read-only", "ReadonlyRootfs", FORM_BOOL },
        { "init", "Init", FORM_BOOL },
        { "cap-add", "CapAdd", FORM_LIST },
        { "cap-drop", "CapDrop", FORM_LIST },
        { "cgroup-parent", "CgroupParent", FORM_TEXT },
        { "cgroupns", "CgroupnsMode", FORM_TEXT },
        { "device-cgroup-rule", "DeviceCgroupRules", FORM_LIST },
        { "device-read-bps", "BlkioDeviceReadBps", FORM_RATE },
        { "device-read-iops", "BlkioDeviceReadIOps", FORM_RATE },
        { "device-write-bps", "BlkioDeviceWriteBps", FORM_RATE },
        { "device-write-iops", "BlkioDeviceWriteIOps", FORM_RATE },
        { "blkio-weight-device", "BlkioWeightDevice", FORM_WEIGHT },
        { "dns", "Dns", FORM_LIST },
        { "dns-option", "DnsOptions", FORM_LIST },
        { "dns-search", "DnsSearch", FORM_LIST },
        { "add-host", "ExtraHosts", FORM_LIST },
        { "group-add", "GroupAdd", FORM_LIST },
        { "ipc", "IpcMode", FORM_TEXT },
        { "isolation", "Isolation", FORM_TEXT },
        { "memory-swappiness", "MemorySwappiness", FORM_INT },
        { "oom-kill-disable", "OomKillDisable", FORM_BOOL },
        { "oom-score-adj", "OomScoreAdj", FORM_INT },
        { "pid", "PidMode", FORM_TEXT },
        { "runtime", "Runtime", FORM_TEXT },
        { "shm-size", "ShmSize", FORM_INT },
        { "storage-opt", "StorageOpt", FORM_MAP },
        { "sysctl", "Sysctls", FORM_MAP },
        { "annotation", "Annotations", FORM_MAP },
        { "userns", "UsernsMode", FORM_TEXT },
        { "uts", "UTSMode", FORM_TEXT },
        { "volume-driver", "VolumeDriver", FORM_TEXT },
        { "volumes-from", "VolumesFrom", FORM_LIST },
};

static const struct row resource_rows[] = {
        { "blkio-weight", "BlkioWeight", FORM_INT },
        { "cpu-period", "CpuPeriod", FORM_INT },
        { "cpu-quota", "CpuQuota", FORM_INT },
        { "cpu-rt-period", "CpuRealtimePeriod", FORM_INT },
        { "cpu-rt-runtime", "CpuRealtimeRuntime", FORM_INT },
        { "cpu-shares", "CpuShares", FORM_INT },
        { "cpus", "NanoCpus", FORM_NANO },
        { "cpuset-cpus", "CpusetCpus", FORM_TEXT },
        { "cpuset-mems", "CpusetMems", FORM_TEXT },
        { "memory", "Memory", FORM_INT },
        { "memory-reservation", "MemoryReservation", FORM_INT },
        { "memory-swap", "MemorySwap", FORM_INT },
        { "pids-limit", "PidsLimit", FORM_INT },
};

/* The object at a path, made at need: for keys that may hold dots. */
static struct json_object *object_at(struct json_object *object, const char *path)
{
        struct json_object *map = field_get(object, path);
        if (!map) {
                map = json_object_new_object();
                field_set(object, path, map);
        }
        return map;
}

static void add_pair(struct json_object *map, const char *pair)
{
        size_t length = strcspn(pair, "=");
        auto_free char *key = xstrndup(pair, length);
        json_object_object_add(map, key,
                               json_object_new_string(pair[length] ? pair + length + 1 : ""));
}

static void add_device_number(struct json_object *body, const char *path, const char *member,
                              const char *text)
{
        const char *colon = strrchr(text, ':');
        struct json_object *limit = json_object_new_object();
        auto_free char *device = xstrndup(text, (size_t)(colon - text));
        uint64_t number = 0;
        str_to_size(colon + 1, &number);
        field_set_text(limit, "Path", device);
        field_set(limit, member, json_object_new_int64((int64_t)number));
        field_add(body, path, limit);
}

static void apply_list(const struct args *args, const struct row *row, struct json_object *body)
{
        for (char *const *text = args_list(args, row->option); *text; text++) {
                if (row->form == FORM_MAP)
                        add_pair(object_at(body, row->path), *text);
                else if (row->form == FORM_RATE)
                        add_device_number(body, row->path, "Rate", *text);
                else if (row->form == FORM_WEIGHT)
                        add_device_number(body, row->path, "Weight", *text);
                else
                        field_add(body, row->path, json_object_new_string(*text));
        }
}

static void apply_rows(const struct args *args, const struct row *rows, size_t length,
                       struct json_object *body)
{
        for (const struct row *row = rows; row < rows + length; row++) {
                struct json_object *value = NULL;
                if (!args_given(args, row->option))
                        continue;
                switch (row->form) {
                case FORM_TEXT:
                        value = json_object_new_string(args_text(args, row->option));
                        break;
                case FORM_BOOL:
                        value = json_object_new_boolean(args_bool(args, row->option));
                        break;
                case FORM_INT:
                        value = json_object_new_int64(args_int(args, row->option));
                        break;
                case FORM_NANO:
                        value = json_object_new_int64(
                                (int64_t)(args_decimal(args, row->option) * 1e9 + 0.5));
                        break;
                case FORM_LIST:
                case FORM_MAP:
                case FORM_RATE:
                case FORM_WEIGHT:
                        apply_list(args, row, body);
                        continue;
                }
                field_set(body, row->path, value);
        }
}

/* --- grammars --- */

int spec_ulimit(const char *text, struct json_object **ret, struct err *err)
{
        static const char *const names[] = {
                "core",   "cpu",   "data", "fsize",  "locks",  "memlock",    "msgqueue", "nice",
                "nofile", "nproc", "rss",  "rtprio", "rttime", "sigpending", "stack",
        };
        const char *equals = strchr(text, '=');
        if (!equals)
                return err_plain(err, EINVAL, "invalid ulimit argument: %s", text);
        auto_free char *name = xstrndup(text, (size_t)(equals - text));
        bool known = false;
        for (size_t i = 0; i < ELEMENTS(names); i++)
                known = known || streq(names[i], name);
        if (!known)
                return err_plain(err, EINVAL, "invalid ulimit type: %s", name);
        const char *colon = strchr(equals, ':');
        auto_free char *first = xstrndup(equals + 1,
                                         colon ? (size_t)(colon - equals - 1) : strlen(equals + 1));
        int64_t soft, hard;
        if (str_to_i64(first, &soft) < 0 || str_to_i64(colon ? colon + 1 : first, &hard) < 0)
                return err_plain(err, EINVAL, "invalid ulimit argument: %s (limits are numbers)",
                                 text);
        if (hard != -1 && (soft == -1 || soft > hard))
                return err_plain(err, EINVAL,
                                 "ulimit soft limit must be less than or equal to hard limit: "
                                 "%lld > %lld",
                                 (long long)soft, (long long)hard);
        *ret = json_object_new_object();
        field_set_text(*ret, "Name", name);
        field_set(*ret, "Hard", json_object_new_int64(hard));
        field_set(*ret, "Soft", json_object_new_int64(soft));
        return 0;
}

static bool is_device_mode(const char *text)
{
        return *text && strspn(text, "rwm") == strlen(text);
}

int spec_device(const char *text, struct json_object **ret, struct err *err)
{
        auto_strv parts = str_split(text, ':');
        size_t length = strv_length(parts);
        const char *outside = parts[0], *inside = parts[0], *mode = "rwm";
        if (length == 2 && is_device_mode(parts[1])) {
                mode = parts[1];
        } else if (length >= 2) {
                inside = *parts[1] ? parts[1] : parts[0];
                mode = length > 2 ? parts[2] : mode;
        }
        if (length > 3 || !*outside)
                return err_plain(err, EINVAL, "invalid device specification: %s", text);
        if (inside[0] != '/')
                return err_plain(err, EINVAL, "%s is not an absolute path", inside);
        if (!is_device_mode(mode))
                return err_plain(err, EINVAL, "bad mode specified: %s", mode);
        *ret = json_object_new_object();
        field_set_text(*ret, "PathOnHost", outside);
        field_set_text(*ret, "PathInContainer", inside);
        field_set_text(*ret, "CgroupPermissions", mode);
        return 0;
}

int spec_restart(const char *text, struct json_object **ret, struct err *err)
{
        size_t length = strcspn(text, ":");
        auto_free char *name = xstrndup(text, length);
        uint32_t count = 0;
        if (text[length] && str_to_u32(text + length + 1, &count) < 0)
                return err_plain(err, EINVAL,
                                 "invalid restart policy format: maximum retry count must be an "
                                 "integer");
        if (length == 0 && *text)
                return err_plain(err, EINVAL,
                                 "invalid restart policy format: no policy provided before colon");
        *ret = json_object_new_object();
        field_set_text(*ret, "Name", name);
        field_set(*ret, "MaximumRetryCount", json_object_new_int64(count));
        return 0;
}

char *spec_env(const char *text)
{
        const char *value = strchr(text, '=') ? NULL : getenv(text);
        return value ? xasprintf("%s=%s", text, value) : xstrdup(text);
}

/* One line of an environment or label file. */
static int take_file_line(const char *path, const char *line, bool env, char ***list,
                          struct err *err)
{
        line += strspn(line, " \t");
        if (!*line || *line == '#')
                return 0;
        size_t length = strcspn(line, "=");
        auto_free char *name = xstrndup(line, length);
        if (!*name)
                return err_plain(err, EINVAL,
                                 "invalid environment file '%s': no variable name on "
                                 "line '%s'",
                                 path, line);
        for (char *end = name + strlen(name);
             !line[length] && end > name && isspace((unsigned char)end[-1]);)
                *--end = '\0';
        if (strpbrk(name, " \t"))
                return err_plain(err, EINVAL,
                                 "invalid environment file '%s': variable '%s' contains "
                                 "whitespaces",
                                 path, name);
        if (line[length]) {
                strv_push(list, line);
                return 0;
        }
        const char *value = env ? getenv(name) : "";
        if (value)
                strv_push_take(list, env ? xasprintf("%s=%s", name, value) : xstrdup(name));
        return 0;
}

int spec_read_file(const char *path, bool env, char ***list, struct err *err)
{
        auto_free char *text = NULL;
        struct err why = { 0 };
        int r = file_read(AT_FDCWD, path, FILE_LIMIT_BYTES, &text, NULL, &why);
        if (r < 0)
                return err_set(err, -r, "open %s", path);
        char *rest = text + (str_starts(text, "\xef\xbb\xbf") ? 3 : 0);
        for (char *line; (line = strsep(&rest, "\n"));) {
                size_t length = strlen(line);
                if (length && line[length - 1] == '\r')
                        line[length - 1] = '\0';
                r = take_file_line(path, line, env, list, err);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* --- groups of options --- */

int spec_resources(const struct args *args, struct json_object *host, struct err *err)
{
        apply_rows(args, resource_rows, ELEMENTS(resource_rows), host);
        if (!args_given(args, "restart"))
                return 0;
        struct json_object *policy = NULL;
        int r = spec_restart(args_text(args, "restart"), &policy, err);
        if (r == 0)
                field_set(host, "RestartPolicy", policy);
        return r;
}

static int build_env(const struct args *args, struct json_object *body, struct err *err)
{
        auto_strv env = NULL;
        for (char *const *path = args_list(args, "env-file"); *path; path++) {
                int r = spec_read_file(*path, true, &env, err);
                if (r < 0)
                        return r;
        }
        for (char *const *text = args_list(args, "env"); *text; text++) {
                if (!**text || **text == '=')
                        return err_plain(err, EINVAL, "invalid environment variable: %s", *text);
                strv_push_take(&env, spec_env(*text));
        }
        for (char **text = env; text && *text; text++)
                field_add(body, "Env", json_object_new_string(*text));
        return 0;
}

static int build_labels(const struct args *args, struct json_object *body, struct err *err)
{
        auto_strv labels = NULL;
        for (char *const *path = args_list(args, "label-file"); *path; path++) {
                int r = spec_read_file(*path, false, &labels, err);
                if (r < 0)
                        return r;
        }
        for (char *const *text = args_list(args, "label"); *text; text++)
                strv_push(&labels, *text);
        for (char **text = labels; text && *text; text++)
                add_pair(object_at(body, "Labels"), *text);
        return 0;
}

static int build_mounts(const struct args *args, struct json_object *body, struct json_object *host,
                        struct err *err)
{
        for (char *const *text = args_list(args, "volume"); *text; text++) {
                auto_free char *bind = NULL;
                int r = spec_volume(*text, &bind, err);
                if (r < 0)
                        return r;
                if (bind)
                        field_add(host, "Binds", json_object_new_string(bind));
                else
                        json_object_object_add(object_at(body, "Volumes"), *text,
                                               json_object_new_object());
        }
        for (char *const *text = args_list(args, "mount"); *text; text++) {
                struct json_object *mount = NULL;
                int r = spec_mount(*text, &mount, err);
                if (r < 0)
                        return r;
                field_add(host, "Mounts", mount);
        }
        for (char *const *text = args_list(args, "tmpfs"); *text; text++) {
                size_t length = strcspn(*text, ":");
                auto_free char *path = xstrndup(*text, length);
                const char *options = (*text)[length] ? *text + length + 1 : "";
                json_object_object_add(object_at(host, "Tmpfs"), path,
                                       json_object_new_string(options));
        }
        return 0;
}

static int build_devices(const struct args *args, struct json_object *host, struct err *err)
{
        for (char *const *text = args_list(args, "device"); *text; text++) {
                struct json_object *device = NULL;
                int r = spec_device(*text, &device, err);
                if (r < 0)
                        return r;
                field_add(host, "Devices", device);
        }
        for (char *const *text = args_list(args, "ulimit"); *text; text++) {
                struct json_object *limit = NULL;
                int r = spec_ulimit(*text, &limit, err);
                if (r < 0)
                        return r;
                field_add(host, "Ulimits", limit);
        }
        return 0;
}

/* A profile in a file is sent as its text, without blanks. */
static int read_profile(const char *path, char **ret, struct err *err)
{
        auto_free char *text = NULL;
        auto_json profile = NULL;
        size_t size;
        struct err why = { 0 };
        int r = file_read(AT_FDCWD, path, FILE_LIMIT_BYTES, &text, &size, &why);
        if (r < 0)
                return err_set(err, -r, "opening seccomp profile (%s) failed", path);
        r = json_parse(text, size, &profile, &why);
        if (r < 0)
                return err_plain(err, EINVAL, "compacting json for seccomp profile (%s) failed: %s",
                                 path, err_text(&why));
        auto_free char *compact = json_text(profile, false);
        *ret = xasprintf("seccomp=%s", compact);
        return 0;
}

static int build_security(const struct args *args, struct json_object *host, struct err *err)
{
        for (char *const *text = args_list(args, "security-opt"); *text; text++) {
                auto_free char *profile = NULL;
                const char *name = str_after(*text, "seccomp=");
                if (!strpbrk(*text, "=:") && !streq(*text, "no-new-privileges"))
                        return err_plain(err, EINVAL, "invalid --security-opt: \"%s\"", *text);
                if (name && !streq(name, "unconfined") && !streq(name, "builtin")) {
                        int r = read_profile(name, &profile, err);
                        if (r < 0)
                                return r;
                }
                if (streq(*text, "systempaths=unconfined")) {
                        field_set(host, "MaskedPaths", json_object_new_array());
                        field_set(host, "ReadonlyPaths", json_object_new_array());
                } else {
                        field_add(host, "SecurityOpt",
                                  json_object_new_string(profile ? profile : *text));
                }
        }
        return 0;
}

static int build_log(const struct args *args, struct json_object *host, struct err *err)
{
        const char *driver = args_text(args, "log-driver");
        if (driver && streq(driver, "none") && args_given(args, "log-opt"))
                return err_plain(err, EINVAL, "invalid logging opts for driver none");
        if (!driver && !args_given(args, "log-opt"))
                return 0;
        field_set_text(host, "LogConfig.Type", driver ? driver : "");
        for (char *const *text = args_list(args, "log-opt"); *text; text++)
                add_pair(object_at(host, "LogConfig.Config"), *text);
        return 0;
}

static int build_health(const struct args *args, struct json_object *body, struct err *err)
{
        static const struct {
                const char *option, *path;
        } times[] = {
                { "health-interval", "Healthcheck.Interval" },
                { "health-timeout", "Healthcheck.Timeout" },
                { "health-start-period", "Healthcheck.StartPeriod" },
                { "health-start-interval", "Healthcheck.StartInterval" },
        };
        bool given = args_given(args, "health-cmd") || args_given(args, "health-retries");
        for (size_t i = 0; i < ELEMENTS(times); i++)
                given = given || args_given(args, times[i].option);
        if (args_bool(args, "no-healthcheck")) {
                if (given)
                        return err_plain(err, EINVAL,
                                         "--no-healthcheck conflicts with --health-* options");
                field_add(body, "Healthcheck.Test", json_object_new_string("NONE"));
                return 0;
        }
        if (args_given(args, "health-cmd")) {
                field_add(body, "Healthcheck.Test", json_object_new_string("CMD-SHELL"));
                field_add(body, "Healthcheck.Test",
                          json_object_new_string(args_text(args, "health-cmd")));
        }
        for (size_t i = 0; i < ELEMENTS(times); i++) {
                if (!args_given(args, times[i].option))
                        continue;
                int64_t time_ns = args_duration(args, times[i].option);
                if (time_ns < 0)
                        return err_plain(err, EINVAL, "--%s cannot be negative", times[i].option);
                field_set(body, times[i].path, json_object_new_int64(time_ns));
        }
        if (args_given(args, "health-retries"))
                field_set(body, "Healthcheck.Retries",
                          json_object_new_int64(args_int(args, "health-retries")));
        return 0;
}

static int build_network(const struct args *args, struct json_object *body,
                         struct json_object *host, struct err *err)
{
        char *const *names = args_list(args, args_given(args, "network") ? "network" : "net");
        if (args_given(args, "link"))
                return err_plain(err, EINVAL,
                                 "links are not supported: containers on one network reach each "
                                 "other by name");
        if (*names && names[1])
                return err_plain(err, EINVAL, "only one --network is supported");
        field_set_text(host, "NetworkMode", *names ? *names : "default");
        auto_json endpoint = json_object_new_object();
        if (args_given(args, "ip"))
                field_set_text(endpoint, "IPAMConfig.IPv4Address", args_text(args, "ip"));
        if (args_given(args, "ip6"))
                field_set_text(endpoint, "IPAMConfig.IPv6Address", args_text(args, "ip6"));
        for (char *const *alias = args_list(args, "network-alias"); *alias; alias++)
                field_add(endpoint, "Aliases", json_object_new_string(*alias));
        if (json_object_object_length(endpoint) > 0)
                json_object_object_add(object_at(body, "NetworkingConfig.EndpointsConfig"),
                                       *names ? *names : "default", json_object_get(endpoint));
        struct json_object *exposed = json_object_new_object();
        struct json_object *bindings = json_object_new_object();
        int r = 0;
        for (char *const *text = args_list(args, "publish"); r == 0 && *text; text++)
                r = spec_publish(*text, exposed, bindings, err);
        for (char *const *text = args_list(args, "expose"); r == 0 && *text; text++)
                r = spec_expose(*text, exposed, err);
        if (r == 0 && json_object_object_length(exposed) > 0)
                field_set(body, "ExposedPorts", json_object_get(exposed));
        if (r == 0 && json_object_object_length(bindings) > 0)
                field_set(host, "PortBindings", json_object_get(bindings));
        json_object_put(exposed);
        json_object_put(bindings);
        return r;
}

/* Which streams: those of --attach, or all that there are. */
static void build_streams(const struct args *args, struct json_object *body)
{
        bool in = false, out = false, errors = false;
        for (char *const *name = args_list(args, "attach"); *name; name++) {
                in = in || strcasecmp(*name, "stdin") == 0;
                out = out || strcasecmp(*name, "stdout") == 0;
                errors = errors || strcasecmp(*name, "stderr") == 0;
        }
        if (!args_given(args, "attach")) {
                out = errors = true;
                in = args_bool(args, "interactive");
        }
        field_set(body, "AttachStdin", json_object_new_boolean(in));
        field_set(body, "AttachStdout", json_object_new_boolean(out));
        field_set(body, "AttachStderr", json_object_new_boolean(errors));
        field_set(body, "StdinOnce", json_object_new_boolean(in && args_bool(args, "interactive")));
}

static void build_command(const struct args *args, struct json_object *body)
{
        field_set_text(body, "Image", args->rest[0]);
        for (char **word = args->rest + 1; *word; word++)
                field_add(body, "Cmd", json_object_new_string(*word));
        if (!args_given(args, "entrypoint"))
                return;
        /* An empty entry point is sent as [""]: it takes the image's away. */
        field_add(body, "Entrypoint", json_object_new_string(args_text(args, "entrypoint")));
}

static int check_conflicts(const struct args *args, struct err *err)
{
        const char *restart = args_text(args, "restart");
        if (args_bool(args, "rm") && !str_empty(restart) && !streq(restart, "no"))
                return err_plain(err, EINVAL,
                                 "conflicting options: cannot specify both --restart and --rm");
        int64_t swappiness = args_int(args, "memory-swappiness");
        if (swappiness < -1 || swappiness > 100)
                return err_plain(err, EINVAL,
                                 "invalid value: %lld. Valid memory swappiness range is 0-100",
                                 (long long)swappiness);
        return 0;
}

static void build_console(const struct args *args, struct json_object *host)
{
        unsigned rows, columns;
        if (!args_bool(args, "tty") || terminal_size(STDOUT_FILENO, &rows, &columns) < 0)
                return;
        field_add(host, "ConsoleSize", json_object_new_int64(rows));
        field_add(host, "ConsoleSize", json_object_new_int64(columns));
}

/* Its name has dots, which a path would take for levels. */
static void set_annotation(struct json_object *host, const char *name, const char *value)
{
        if (!field_get(host, "Annotations"))
                field_set(host, "Annotations", json_object_new_object());
        json_object_object_add(field_get(host, "Annotations"), name, json_object_new_string(value));
}

int spec_build(const struct args *args, struct json_object **ret, struct err *err)
{
        auto_json body = json_object_new_object();
        struct json_object *host = json_object_new_object();
        json_object_object_add(body, "HostConfig", host);
        apply_rows(args, config_rows, ELEMENTS(config_rows), body);
        apply_rows(args, host_rows, ELEMENTS(host_rows), host);
        if (args_bool(args, "vm"))
                field_set_text(host, "Isolation", "vm");
        if (!str_empty(args_text(args, "cpu")))
                set_annotation(host, "isle.vm.cpu", args_text(args, "cpu"));
        if (!str_empty(args_text(args, "cpu-model")))
                set_annotation(host, "isle.vm.cpu-model", args_text(args, "cpu-model"));
        if (!str_empty(args_text(args, "vm-rootfs")))
                set_annotation(host, "isle.vm.rootfs", args_text(args, "vm-rootfs"));
        build_command(args, body);
        build_streams(args, body);
        build_console(args, host);
        int r = check_conflicts(args, err);
        r = r < 0 ? r : spec_resources(args, host, err);
        r = r < 0 ? r : build_env(args, body, err);
        r = r < 0 ? r : build_labels(args, body, err);
        r = r < 0 ? r : build_mounts(args, body, host, err);
        r = r < 0 ? r : build_devices(args, host, err);
        r = r < 0 ? r : build_security(args, host, err);
        r = r < 0 ? r : build_log(args, host, err);
        r = r < 0 ? r : build_health(args, body, err);
        r = r < 0 ? r : build_network(args, body, host, err);
        if (r < 0)
                return r;
        *ret = take_ptr(body);
        return 0;
}
