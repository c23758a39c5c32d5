#include <errno.h>
#include <json-c/json_object.h>
#include <json-c/linkhash.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/str.h"
#include "cli/command.h"
#include "cli/daemon.h"
#include "cli/field.h"
#include "cli/listing.h"
#include "cli/rows.h"
#include "cli/units.h"
#include "codec/json.h"

#define COMMAND_LENGTH 20
#define MOUNT_LENGTH   15

const struct option ps_options[] = {
        { .name = "all",
          .letter = 'a',
          .kind = OPTION_BOOL,
          .help = "Show all containers, not only running ones" },
        OPTION_FILTER("name=web, status=exited, label=a=b, ancestor=IMAGE"),
        OPTION_FORMAT,
        OPTION_JSON,
        { .name = "last",
          .letter = 'n',
          .kind = OPTION_INT,
          .initial = "-1",
          .help = "Show the N containers created last, in any state" },
        { .name = "latest",
          .letter = 'l',
          .kind = OPTION_BOOL,
          .help = "Show the container created last, in any state" },
        { .name = "no-trunc", .kind = OPTION_BOOL, .help = "Do not cut text short" },
        { .name = "quiet", .letter = 'q', .kind = OPTION_BOOL, .help = "Show only IDs" },
        { .name = "size", .letter = 's', .kind = OPTION_BOOL, .help = "Show sizes" },
        { 0 },
};

static const struct heading headings[] = {
        { "Command", "COMMAND" },
        { "Cpu", "CPU" },
        { "CreatedAt", "CREATED AT" },
        { "ID", "CONTAINER ID" },
        { "Image", "IMAGE" },
        { "Labels", "LABELS" },
        { "LocalVolumes", "LOCAL VOLUMES" },
        { "Mounts", "MOUNTS" },
        { "Names", "NAMES" },
        { "Networks", "NETWORKS" },
        { "Platform", "PLATFORM" },
        { "Ports", "PORTS" },
        { "RunningFor", "CREATED" },
        { "Size", "SIZE" },
        { "State", "STATE" },
        { "Status", "STATUS" },
        { 0 },
};

/* {{.Label "key"}}; as a heading, the key itself. */
static int label_method(struct json_object *self, const char *name, const char *argument,
                        struct json_object **ret)
{
        const char *labels = field_text(self, "Labels");
        if (!streq(name, "Label"))
                return -ENOENT;
        if (streq(labels, "LABELS")) {
                *ret = json_object_new_string(argument);
                return 0;
        }
        auto_strv words = str_split(labels, ',');
        auto_free char *prefix = xasprintf("%s=", argument);
        const char *value = "";
        for (char **word = words; *word; word++)
                value = str_starts(*word, prefix) ? str_after(*word, prefix) : value;
        *ret = json_object_new_string(value);
        return 0;
}

const struct listing container_listing = { headings, label_method };

static char *command_text(struct json_object *container, bool whole)
{
        auto_free char *cut = whole ? xstrdup(field_text(container, "Command"))
                                    : text_ellipsis(field_text(container, "Command"),
                                                    COMMAND_LENGTH);
        auto_buf quoted = { 0 };
        buf_putc(&quoted, '"');
        for (const char *at = cut; *at; at++) {
                if (*at == '"' || *at == '\\')
                        buf_printf(&quoted, "\\%c", *at);
                else if (*at == '\n' || *at == '\t')
                        buf_puts(&quoted, *at == '\n' ? "\\n" : "\\t");
                else if ((unsigned char)*at < 0x20 || *at == 0x7f)
                        buf_printf(&quoted, "\\x%02x", (unsigned char)*at);
                else
                        buf_putc(&quoted, *at);
        }
        buf_putc(&quoted, '"');
        return buf_take(&quoted);
}

/* Names without the leading slash; those of links ("/a/b") only when whole. */
static char *names_text(struct json_object *container, bool whole)
{
        auto_strv names = NULL;
        struct json_object *list = field_get(container, "Names");
        for (size_t i = 0; i < field_length(container, "Names"); i++) {
                const char *name = json_object_get_string(json_object_array_get_idx(list, i));
                name += *name == '/';
                if (whole || !strchr(name, '/'))
                        strv_push(&names, name);
        }
        return strv_join(names, ",");
}

static char *size_text(struct json_object *container)
{
        char own[UNITS_TEXT_SIZE], all[UNITS_TEXT_SIZE];
        int64_t whole = field_int(container, "SizeRootFs");
        size_decimal(own, (double)field_int(container, "SizeRw"), 3);
        if (whole <= 0)
                return xstrdup(own);
        return xasprintf("%s (virtual %s)", own, size_decimal(all, (double)whole, 3));
}

static char *mounts_text(struct json_object *container, bool whole, size_t *ret_volumes)
{
        auto_strv mounts = NULL;
        struct json_object *list = field_get(container, "Mounts");
        *ret_volumes = 0;
        for (size_t i = 0; i < field_length(container, "Mounts"); i++) {
                struct json_object *mount = json_object_array_get_idx(list, i);
                const char *name = field_text(mount, "Name");
                *ret_volumes += streq(field_text(mount, "Driver"), "local");
                name = *name ? name : field_text(mount, "Source");
                strv_push_take(&mounts, whole ? xstrdup(name) : text_ellipsis(name, MOUNT_LENGTH));
        }
        return strv_join(mounts, ",");
}

static char *networks_text(struct json_object *container)
{
        auto_strv names = NULL;
        struct json_object *networks = field_get(container, "NetworkSettings.Networks");
        if (json_object_is_type(networks, json_type_object)) {
                json_object_object_foreach(networks, key, ignored)
                {
                        (void)ignored;
                        strv_push(&names, key);
                }
        }
        return strv_join(names, ",");
}

static char *ports_text(struct json_object *container)
{
        auto_strv ports = NULL;
        struct json_object *list = field_get(container, "Ports");
        for (size_t i = 0; i < field_length(container, "Ports"); i++) {
                struct json_object *port = json_object_array_get_idx(list, i);
                int inner = (int)field_int(port, "PrivatePort");
                int outer = (int)field_int(port, "PublicPort");
                const char *type = field_text(port, "Type"), *ip = field_text(port, "IP");
                if (outer)
                        strv_push_take(&ports, xasprintf(strchr(ip, ':') ? "[%s]:%d->%d/%s"
                                                                         : "%s:%d->%d/%s",
                                                         ip, outer, inner, type));
                else
                        strv_push_take(&ports, xasprintf("%d/%s", inner, type));
        }
        return strv_join(ports, ", ");
}

static void add_owned(struct json_object *row, const char *field, char *taken)
{
        row_add(row, field, taken);
        free(taken);
}

static struct json_object *make_row(struct json_object *container, bool whole)
{
        struct json_object *row = json_object_new_object();
        char text[UNITS_TEXT_SIZE], number[24];
        int64_t created_ns = field_int(container, "Created") * NS_PER_S;
        size_t volumes;
        auto_free char *mounts = mounts_text(container, whole, &volumes);
        snprintf(number, sizeof(number), "%zu", volumes);
        add_owned(row, "Command", command_text(container, whole));
        if (*field_text(container, "Cpu")) /* docker's rows have no such field */
                row_add(row, "Cpu", field_text(container, "Cpu"));
        row_add(row, "CreatedAt", time_local(text, created_ns));
        add_owned(row, "ID", text_short_id(field_text(container, "Id"), whole));
        const char *image = field_text(container, "Image");
        bool by_id = str_starts(image, "sha256:");
        add_owned(row, "Image", by_id ? text_short_id(image, whole) : xstrdup(image));
        add_owned(row, "Labels", text_join_map(field_get(container, "Labels"), ","));
        row_add(row, "LocalVolumes", number);
        row_add(row, "Mounts", mounts);
        add_owned(row, "Names", names_text(container, whole));
        add_owned(row, "Networks", networks_text(container));
        json_object_object_add(row, "Platform", NULL);
        add_owned(row, "Ports", ports_text(container));
        age_text(text, clock_realtime_ns() - created_ns);
        add_owned(row, "RunningFor", xasprintf("%s ago", text));
        add_owned(row, "Size", size_text(container));
        row_add(row, "State", field_text(container, "State"));
        row_add(row, "Status", field_text(container, "Status"));
        return row;
}

struct json_object *container_rows(struct json_object *containers, bool whole)
{
        struct json_object *rows = json_object_new_array();
        for (size_t i = 0; i < field_length(containers, ""); i++)
                json_object_array_add(rows,
                                      make_row(json_object_array_get_idx(containers, i), whole));
        return rows;
}

/* Where a format asks for it, containers have it too. */
static void complete_cpus(struct json_object *rows, const char *format)
{
        if (!format || !strstr(format, ".Cpu"))
                return;
        for (size_t i = 0; i < field_length(rows, ""); i++) {
                struct json_object *row = json_object_array_get_idx(rows, i);
                if (!field_get(row, "Cpu"))
                        row_add(row, "Cpu", "");
        }
}

static bool wants_size(const struct args *args)
{
        const char *format = args_text(args, "format");
        return args_bool(args, "size") || (format && strstr(format, ".Size"));
}

static int fetch(struct cli *cli, const struct args *args, struct json_object **ret,
                 struct err *err)
{
        auto_buf target = { 0 };
        int64_t last = args_bool(args, "latest") ? 1 : args_int(args, "last");
        target_set(&target, "/containers/json");
        target_add_flag(&target, "all", args_bool(args, "all"));
        if (last > 0) {
                char number[24];
                snprintf(number, sizeof(number), "%lld", (long long)last);
                target_add(&target, "limit", number);
        }
        target_add_flag(&target, "size", wants_size(args));
        int r = target_add_filters(&target, args_list(args, "filter"), err);
        return r < 0 ? r : daemon_call(cli, "GET", &target, NULL, ret, err);
}

int cmd_ps(struct cli *cli, const struct args *args, struct err *err)
{
        auto_json list = NULL;
        int r = fetch(cli, args, &list, err);
        if (r < 0)
                return r;
        if (args_bool(args, "json")) {
                listing_json(list);
                return 0;
        }
        auto_json rows = container_rows(list, args_bool(args, "no-trunc"));
        const char *format = args_text(args, "format");
        complete_cpus(rows, format);
        if (args_bool(args, "quiet") && str_empty(format))
                format = "{{.ID}}";
        return listing_print(&container_listing, format,
                             args_bool(args, "size")
                                     ? "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t"
                                       "{{.Status}}\t{{.Ports}}\t{{.Names}}\t{{.Size}}"
                                     : "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t"
                                       "{{.Status}}\t{{.Ports}}\t{{.Names}}",
                             rows, err);
}
