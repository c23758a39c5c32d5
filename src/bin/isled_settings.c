#include "bin/isled_settings.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdlib.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"
#include "codec/json.h"

#define CONFIG_SIZE_MAX (1u << 20)

const char isled_usage[] =
        "Usage: isled [OPTION...]\n"
        "The Isle daemon: runs containers, and serves the Docker Engine API.\n"
        "\n"
        "      --root DIR                 state: images, containers, volumes [/var/lib/isle]\n"
        "      --run DIR                  runtime files, lost at boot [/run/isle]\n"
        "  -H, --host URL                 unix://PATH or tcp://HOST:PORT; may be repeated\n"
        "                                 [unix://RUN/docker.sock]\n"
        "      --insecure-registry HOST   HOST[:PORT] or CIDR reached without TLS; may be "
        "repeated\n"
        "      --registry-ca FILE         certificates (PEM) trusted beside the system's\n"
        "      --log-level LEVEL          error, warning, info, debug [info]\n"
        "      --log-format FORMAT        text, json, journal [text; journal under systemd]\n"
        "      --runtime PATH             OCI runtime [isle-runtime beside this program]\n"
        "      --monitor PATH             instance monitor [isle-monitor beside this program]\n"
        "      --init PATH                init process of --init\n"
        "      --cgroup-parent PATH       cgroup that holds the containers' [/isle]\n"
        "      --default-runtime NAME     of containers that name none: isle-runtime, or isle-vm\n"
        "                                 for virtual machines [isle-runtime]\n"
        "      --vm-rootfs KIND           root file system of virtual machines that name none: "
        "fs,\n"
        "                                 shared, or erofs, made of layers [fs]\n"
        "      --vm-cpu-model NAME        processor of virtual machines that name none: host,\n"
        "                                 x86-64, x86-64-v2, x86-64-v3 [host]\n"
        "      --userns-remap USER[:GROUP]  run containers in user namespaces, with the ids that\n"
        "                                 /etc/subuid and /etc/subgid give USER; default: isle\n"
        "      --config FILE              settings in JSON [" ISLED_CONFIG_PATH "]\n"
        "      --version                  print the version\n"
        "  -h, --help                     print this\n";

static const struct json_field config_fields[] = {
        JSON_FIELD(struct isled_settings, "root", JSON_STRING, root_dir, 0),
        JSON_FIELD(struct isled_settings, "run", JSON_STRING, run_dir, 0),
        JSON_FIELD(struct isled_settings, "hosts", JSON_STRV, hosts, 0),
        JSON_FIELD(struct isled_settings, "log-level", JSON_STRING, log_level, 0),
        JSON_FIELD(struct isled_settings, "log-format", JSON_STRING, log_format, 0),
        JSON_FIELD(struct isled_settings, "insecure-registries", JSON_STRV, insecure_registries, 0),
        JSON_FIELD(struct isled_settings, "registry-ca", JSON_STRING, registry_ca, 0),
        JSON_FIELD(struct isled_settings, "runtime", JSON_STRING, runtime_path, 0),
        JSON_FIELD(struct isled_settings, "monitor", JSON_STRING, monitor_path, 0),
        JSON_FIELD(struct isled_settings, "init", JSON_STRING, init_path, 0),
        JSON_FIELD(struct isled_settings, "cgroup-parent", JSON_STRING, cgroup_parent, 0),
        JSON_FIELD(struct isled_settings, "default-runtime", JSON_STRING, default_runtime, 0),
        JSON_FIELD(struct isled_settings, "vm-rootfs", JSON_STRING, vm_rootfs, 0),
        JSON_FIELD(struct isled_settings, "vm-cpu-model", JSON_STRING, vm_cpu_model, 0),
        JSON_FIELD(struct isled_settings, "userns-remap", JSON_STRING, userns_remap, 0),
};
static const struct json_shape config_file_shape = JSON_SHAPE("configuration",
                                                              struct isled_settings, config_fields);

void isled_settings_finish(struct isled_settings *settings)
{
        json_free(&config_file_shape, settings);
        free(settings->config_path);
        *settings = (struct isled_settings){ 0 };
}

/* --- the command line --- */

enum option_key {
        OPTION_ROOT = 256,
        OPTION_RUN,
        OPTION_INSECURE,
        OPTION_CA,
        OPTION_LEVEL,
        OPTION_FORMAT,
        OPTION_RUNTIME,
        OPTION_MONITOR,
        OPTION_INIT,
        OPTION_CGROUP,
        OPTION_DEFAULT_RUNTIME,
        OPTION_VM_ROOTFS,
        OPTION_VM_CPU_MODEL,
        OPTION_USERNS,
        OPTION_CONFIG,
        OPTION_VERSION,
};

static const struct option options[] = {
        { "root", required_argument, NULL, OPTION_ROOT },
        { "run", required_argument, NULL, OPTION_RUN },
        { "host", required_argument, NULL, 'H' },
        { "insecure-registry", required_argument, NULL, OPTION_INSECURE },
        { "registry-ca", required_argument, NULL, OPTION_CA },
        { "log-level", required_argument, NULL, OPTION_LEVEL },
        { "log-format", required_argument, NULL, OPTION_FORMAT },
        { "runtime", required_argument, NULL, OPTION_RUNTIME },
        { "monitor", required_argument, NULL, OPTION_MONITOR },
        { "init", required_argument, NULL, OPTION_INIT },
        { "cgroup-parent", required_argument, NULL, OPTION_CGROUP },
        { "default-runtime", required_argument, NULL, OPTION_DEFAULT_RUNTIME },
        { "vm-rootfs", required_argument, NULL, OPTION_VM_ROOTFS },
        { "vm-cpu-model", required_argument, NULL, OPTION_VM_CPU_MODEL },
        { "userns-remap", required_argument, NULL, OPTION_USERNS },
        { "config", required_argument, NULL, OPTION_CONFIG },
        { "version", no_argument, NULL, OPTION_VERSION },
        { "help", no_argument, NULL, 'h' },
        { 0 },
};

static char **text_setting(struct isled_settings *settings, int key)
{
        switch (key) {
        case OPTION_ROOT:
                return &settings->root_dir;
        case OPTION_RUN:
                return &settings->run_dir;
        case OPTION_CA:
                return &settings->registry_ca;
        case OPTION_LEVEL:
                return &settings->log_level;
        case OPTION_FORMAT:
                return &settings->log_format;
        case OPTION_RUNTIME:
                return &settings->runtime_path;
        case OPTION_MONITOR:
                return &settings->monitor_path;
        case OPTION_INIT:
                return &settings->init_path;
        case OPTION_CGROUP:
                return &settings->cgroup_parent;
        case OPTION_DEFAULT_RUNTIME:
                return &settings->default_runtime;
        case OPTION_VM_ROOTFS:
                return &settings->vm_rootfs;
        case OPTION_VM_CPU_MODEL:
                return &settings->vm_cpu_model;
        case OPTION_USERNS:
                return &settings->userns_remap;
        case OPTION_CONFIG:
                return &settings->config_path;
        }
        return NULL;
}

static void set_text(char **slot, const char *text)
{
        free(*slot);
        *slot = xstrdup(text);
}

static int parse_arguments(int argc, char **argv, struct isled_settings *s, struct err *err)
{
        int key;
        optind = 0;
        while ((key = getopt_long(argc, argv, "+:H:h", options, NULL)) != -1) {
                char **text = text_setting(s, key);
                if (text)
                        set_text(text, optarg);
                else if (key == 'H')
                        strv_push(&s->hosts, optarg);
                else if (key == OPTION_INSECURE)
                        strv_push(&s->insecure_registries, optarg);
                else if (key == OPTION_VERSION)
                        s->show_version = true;
                else if (key == 'h')
                        s->show_help = true;
                else
                        return err_plain(err, EINVAL,
                                         key == ':' ? "option %s needs a value; see isled --help"
                                                    : "unknown option %s; see isled --help",
                                         argv[optind - 1]);
        }
        if (optind < argc)
                return err_plain(err, EINVAL, "isled takes no argument '%s'; see isled --help",
                                 argv[optind]);
        return 0;
}

/* --- the file --- */

static int check_keys(struct json_object *object, struct err *err)
{
        json_object_object_foreach(object, key, value)
        {
                (void)value;
                bool known = false;
                for (size_t i = 0; i < ELEMENTS(config_fields) && !known; i++)
                        known = streq(config_fields[i].name, key);
                if (!known)
                        return err_plain(err, EINVAL, "unknown key '%s'", key);
        }
        return 0;
}

static int parse_file(const char *path, bool must_exist, struct isled_settings *ret,
                      struct err *err)
{
        auto_free char *text = NULL;
        auto_json object = NULL;
        size_t size;
        int r = file_read(AT_FDCWD, path, CONFIG_SIZE_MAX, &text, &size, err);
        if (r == -ENOENT && !must_exist)
                return 0;
        if (r >= 0)
                r = json_parse(text, size, &object, err);
        if (r >= 0 && !json_object_is_type(object, json_type_object))
                r = err_plain(err, EINVAL, "expected an object");
        if (r >= 0)
                r = check_keys(object, err);
        if (r >= 0)
                r = json_decode(&config_file_shape, object, ret, err);
        return r < 0 ? err_wrap(err, "configuration %s", path) : 0;
}

/* Fills what `into` leaves open from `from`, which is emptied. */
static void merge(struct isled_settings *into, struct isled_settings *from)
{
        for (int key = OPTION_ROOT; key < OPTION_CONFIG; key++) {
                char **slot = text_setting(into, key);
                if (slot && !*slot)
                        *slot = take_ptr(*text_setting(from, key));
        }
        if (!into->hosts)
                into->hosts = take_ptr(from->hosts);
        for (char **registry = from->insecure_registries; registry && *registry; registry++)
                strv_push(&into->insecure_registries, *registry);
        isled_settings_finish(from);
}

static int check_settings(const struct isled_settings *s, struct err *err)
{
        enum log_level level;
        if (log_level_parse(s->log_level, &level) < 0)
                return err_plain(err, EINVAL,
                                 "unknown log level '%s'; use error, warning, info or debug",
                                 s->log_level);
        if (!streq(s->log_format, "text") && !streq(s->log_format, "json") &&
            !streq(s->log_format, "journal"))
                return err_plain(err, EINVAL, "unknown log format '%s'; use text, json or journal",
                                 s->log_format);
        if (s->root_dir[0] != '/' || s->run_dir[0] != '/')
                return err_plain(err, EINVAL, "--root and --run take absolute paths, not '%s'",
                                 s->root_dir[0] != '/' ? s->root_dir : s->run_dir);
        for (char **host = s->hosts; host && *host; host++)
                if (!str_starts(*host, "unix:///") && !str_starts(*host, "tcp://"))
                        return err_plain(err, EINVAL,
                                         "host '%s' is neither unix:///PATH nor tcp://HOST:PORT",
                                         *host);
        return 0;
}

int isled_settings_load(int argc, char **argv, struct isled_settings *ret, struct err *err)
{
        struct isled_settings s = { 0 }, file = { 0 };
        int r = parse_arguments(argc, argv, &s, err);
        if (r >= 0 && !s.show_help && !s.show_version)
                r = parse_file(s.config_path ? s.config_path : ISLED_CONFIG_PATH,
                               s.config_path != NULL, &file, err);
        if (r >= 0) {
                merge(&s, &file);
                if (!s.root_dir)
                        s.root_dir = xstrdup("/var/lib/isle");
                if (!s.run_dir)
                        s.run_dir = xstrdup("/run/isle");
                if (!s.log_level)
                        s.log_level = xstrdup("info");
                if (!s.log_format)
                        s.log_format = xstrdup(getenv("JOURNAL_STREAM") ? "journal" : "text");
                r = check_settings(&s, err);
        }
        if (r < 0) {
                isled_settings_finish(&s);
                return r;
        }
        *ret = s;
        return 0;
}

struct log_settings isled_log_settings(const struct isled_settings *settings)
{
        struct log_settings log = { .fd = 2, .level = LOG_LEVEL_INFO, .program = "isled" };
        log_level_parse(settings->log_level, &log.level);
        if (streq(settings->log_format, "json"))
                log.style = LOG_STYLE_JSON;
        else if (streq(settings->log_format, "journal"))
                log.style = LOG_STYLE_JOURNAL;
        return log;
}
