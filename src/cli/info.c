#include <errno.h>
#include <json-c/json_object.h>
#include <json-c/linkhash.h>
#include <stdio.h>
#include <string.h>

#include "base/auto.h"
#include "base/str.h"
#include "cli/command.h"
#include "cli/daemon.h"
#include "cli/field.h"
#include "cli/listing.h"
#include "cli/units.h"
#include "codec/json.h"

const struct option info_options[] = { OPTION_INSPECT_FORMAT, OPTION_JSON, { 0 } };

#if defined(__x86_64__)
#define ISLE_MACHINE "amd64"
#elif defined(__aarch64__)
#define ISLE_MACHINE "arm64"
#else
#define ISLE_MACHINE "unknown"
#endif

/* --- version --- */

static struct json_object *client_version(void)
{
        struct json_object *client = json_object_new_object();
        field_set_text(client, "Version", ISLE_VERSION);
        field_set_text(client, "ApiVersion", DAEMON_API_VERSION);
        field_set_text(client, "Os", "linux");
        field_set_text(client, "Arch", ISLE_MACHINE);
        return client;
}

static void print_client(struct json_object *client)
{
        printf("Client:\n"
               " Version:           %s\n"
               " API version:       %s\n"
               " OS/Arch:           %s/%s\n",
               field_text(client, "Version"), field_text(client, "ApiVersion"),
               field_text(client, "Os"), field_text(client, "Arch"));
}

static void print_component(struct json_object *component)
{
        struct json_object *details = field_get(component, "Details");
        static const struct {
                const char *field, *label;
        } rows[] = { { "GitCommit", "Git commit" },
                     { "BuildTime", "Built" },
                     { "Experimental", "Experimental" } };
        printf(" %s:\n  Version:          %s\n", field_text(component, "Name"),
               field_text(component, "Version"));
        if (*field_text(details, "ApiVersion"))
                printf("  API version:      %s (minimum version %s)\n",
                       field_text(details, "ApiVersion"), field_text(details, "MinAPIVersion"));
        if (*field_text(details, "Os"))
                printf("  OS/Arch:          %s/%s\n", field_text(details, "Os"),
                       field_text(details, "Arch"));
        for (size_t i = 0; i < ELEMENTS(rows); i++)
                if (*field_text(details, rows[i].field))
                        printf("  %s:%*s%s\n", rows[i].label, (int)(17 - strlen(rows[i].label)), "",
                               field_text(details, rows[i].field));
}

static void print_server(struct json_object *server)
{
        const char *platform = field_text(server, "Platform.Name");
        printf("\nServer:%s%s\n", *platform ? " " : "", platform);
        struct json_object *components = field_get(server, "Components");
        for (size_t i = 0; i < field_length(server, "Components"); i++)
                print_component(json_object_array_get_idx(components, i));
}

int cmd_version(struct cli *cli, const struct args *args, struct err *err)
{
        auto_buf target = { 0 };
        auto_json both = json_object_new_object();
        struct json_object *server = NULL;
        const char *format = args_text(args, "format");
        target_set(&target, "/version");
        int r = daemon_call(cli, "GET", &target, NULL, &server, err);
        json_object_object_add(both, "Client", client_version());
        json_object_object_add(both, "Server", server);
        if (args_bool(args, "json")) {
                listing_json(both);
        } else if (!str_empty(format)) {
                auto_json one = json_object_new_array();
                json_object_array_add(one, json_object_get(both));
                int shown = listing_inspect(format, one, r < 0 ? NULL : err);
                r = r < 0 ? r : shown;
        } else {
                print_client(field_get(both, "Client"));
                if (r == 0)
                        print_server(server);
        }
        return r;
}

/* --- info --- */

enum info_form {
        INFO_TEXT,
        INFO_INT,
        INFO_BOOL,
        INFO_SIZE,
        INFO_LIST,
        INFO_KEYS,
        INFO_LINES,
        INFO_SECURITY
};

static const struct {
        const char *label, *field;
        enum info_form form;
} info_rows[] = {
        { " Containers", "Containers", INFO_INT },
        { "  Running", "ContainersRunning", INFO_INT },
        { "  Paused", "ContainersPaused", INFO_INT },
        { "  Stopped", "ContainersStopped", INFO_INT },
        { " Images", "Images", INFO_INT },
        { " Server Version", "ServerVersion", INFO_TEXT },
        { " Storage Driver", "Driver", INFO_TEXT },
        { " ", "DriverStatus", INFO_LINES },
        { " Logging Driver", "LoggingDriver", INFO_TEXT },
        { " Cgroup Driver", "CgroupDriver", INFO_TEXT },
        { " Cgroup Version", "CgroupVersion", INFO_TEXT },
        { " Plugins:\n  Volume", "Plugins.Volume", INFO_LIST },
        { "  Network", "Plugins.Network", INFO_LIST },
        { "  Log", "Plugins.Log", INFO_LIST },
        { " Runtimes", "Runtimes", INFO_KEYS },
        { " Default Runtime", "DefaultRuntime", INFO_TEXT },
        { " Init Binary", "InitBinary", INFO_TEXT },
        { "", "SecurityOptions", INFO_SECURITY },
        { " Kernel Version", "KernelVersion", INFO_TEXT },
        { " Operating System", "OperatingSystem", INFO_TEXT },
        { " OSType", "OSType", INFO_TEXT },
        { " Architecture", "Architecture", INFO_TEXT },
        { " CPUs", "NCPU", INFO_INT },
        { " Total Memory", "MemTotal", INFO_SIZE },
        { " Name", "Name", INFO_TEXT },
        { " ID", "ID", INFO_TEXT },
        { " Isle Root Dir", "DockerRootDir", INFO_TEXT },
        { " Debug Mode", "Debug", INFO_BOOL },
        { " Experimental", "ExperimentalBuild", INFO_BOOL },
        { " Live Restore Enabled", "LiveRestoreEnabled", INFO_BOOL },
};

static void put_words(struct buf *out, struct json_object *value)
{
        for (size_t i = 0; i < field_length(value, ""); i++)
                buf_printf(out, " %s", json_object_get_string(json_object_array_get_idx(value, i)));
        if (!json_object_is_type(value, json_type_object))
                return;
        json_object_object_foreach(value, key, ignored)
        {
                (void)ignored;
                buf_printf(out, " %s", key);
        }
}

/* Pairs ["Backing Filesystem", "extfs"], a line each. */
static void print_pairs(struct json_object *pairs)
{
        for (size_t i = 0; i < field_length(pairs, ""); i++) {
                struct json_object *pair = json_object_array_get_idx(pairs, i);
                if (field_length(pair, "") == 2)
                        printf("  %s: %s\n",
                               json_object_get_string(json_object_array_get_idx(pair, 0)),
                               json_object_get_string(json_object_array_get_idx(pair, 1)));
        }
}

/* "name=seccomp,profile=builtin": the name, and the rest below it. */
static void print_security(struct json_object *options)
{
        if (field_length(options, ""))
                printf(" Security Options:\n");
        for (size_t i = 0; i < field_length(options, ""); i++) {
                auto_strv words = str_split(
                        json_object_get_string(json_object_array_get_idx(options, i)), ',');
                for (char **word = words; *word; word++) {
                        size_t key = strcspn(*word, "=");
                        const char *value = (*word)[key] ? *word + key + 1 : "";
                        if (str_starts(*word, "name="))
                                printf("  %s\n", value);
                        else if (str_starts(*word, "profile="))
                                printf("   Profile: %s\n", value);
                        else
                                printf("   %.*s: %s\n", (int)key, *word, value);
                }
        }
}

static void print_info_row(struct json_object *info, size_t row)
{
        struct json_object *value = field_get(info, info_rows[row].field);
        char size[UNITS_TEXT_SIZE];
        auto_buf text = { 0 };
        if (!value)
                return;
        switch (info_rows[row].form) {
        case INFO_TEXT:
                buf_printf(&text, " %s", json_object_get_string(value));
                break;
        case INFO_INT:
                buf_printf(&text, " %lld", (long long)json_object_get_int64(value));
                break;
        case INFO_BOOL:
                buf_printf(&text, " %s", json_object_get_boolean(value) ? "true" : "false");
                break;
        case INFO_SIZE:
                buf_printf(&text, " %s", size_binary(size, (double)json_object_get_int64(value)));
                break;
        case INFO_LIST:
        case INFO_KEYS:
                put_words(&text, value);
                break;
        case INFO_LINES:
                print_pairs(value);
                return;
        case INFO_SECURITY:
                print_security(value);
                return;
        }
        printf("%s:%s\n", info_rows[row].label, buf_text(&text));
}

static void print_info(struct json_object *info)
{
        struct json_object *registries = field_get(info, "RegistryConfig.InsecureRegistryCIDRs");
        struct json_object *warnings = field_get(info, "Warnings");
        printf("Client:\n Version:    %s\n\nServer:\n", ISLE_VERSION);
        for (size_t i = 0; i < ELEMENTS(info_rows); i++)
                print_info_row(info, i);
        if (field_length(registries, ""))
                printf(" Insecure Registries:\n");
        for (size_t i = 0; i < field_length(registries, ""); i++)
                printf("  %s\n", json_object_get_string(json_object_array_get_idx(registries, i)));
        fflush(stdout);
        for (size_t i = 0; i < field_length(warnings, ""); i++)
                fprintf(stderr, "%s\n",
                        json_object_get_string(json_object_array_get_idx(warnings, i)));
}

int cmd_info(struct cli *cli, const struct args *args, struct err *err)
{
        auto_buf target = { 0 };
        auto_json info = NULL;
        const char *format = args_text(args, "format");
        target_set(&target, "/info");
        int r = daemon_call(cli, "GET", &target, NULL, &info, err);
        if (r < 0)
                return r;
        if (args_bool(args, "json")) {
                listing_json(info);
        } else if (!str_empty(format)) {
                auto_json one = json_object_new_array();
                json_object_array_add(one, json_object_get(info));
                r = listing_inspect(format, one, err);
        } else {
                print_info(info);
        }
        return r;
}
