#include <errno.h>
#include <json-c/json_object.h>
#include <stdio.h>
#include <string.h>

#include "base/auto.h"
#include "base/str.h"
#include "cli/command.h"
#include "cli/daemon.h"
#include "cli/field.h"
#include "cli/listing.h"
#include "cli/rows.h"
#include "cli/units.h"
#include "codec/json.h"

const struct option volume_create_options[] = {
        { .name = "driver",
          .letter = 'd',
          .kind = OPTION_TEXT,
          .initial = "local",
          .help = "Driver of the volume" },
        { .name = "label", .kind = OPTION_LIST, .help = "Set a label" },
        { .name = "opt",
          .letter = 'o',
          .kind = OPTION_LIST,
          .word = "map",
          .help = "Options of the driver" },
        { 0 },
};

const struct option volume_ls_options[] = {
        OPTION_FILTER("dangling=true, name=data, label=a=b"),
        OPTION_FORMAT,
        OPTION_JSON,
        { .name = "quiet", .letter = 'q', .kind = OPTION_BOOL, .help = "Show only names" },
        { 0 },
};

const struct option volume_rm_options[] = {
        { .name = "force",
          .letter = 'f',
          .kind = OPTION_BOOL,
          .help = "Pass over volumes that do not exist" },
        { 0 },
};

static void add_pairs(struct json_object *body, const char *field, char *const *pairs)
{
        struct json_object *map = json_object_new_object();
        for (; *pairs; pairs++) {
                size_t length = strcspn(*pairs, "=");
                auto_free char *key = xstrndup(*pairs, length);
                json_object_object_add(
                        map, key,
                        json_object_new_string((*pairs)[length] ? *pairs + length + 1 : ""));
        }
        json_object_object_add(body, field, map);
}

int cmd_volume_create(struct cli *cli, const struct args *args, struct err *err)
{
        auto_buf target = { 0 };
        auto_json body = json_object_new_object();
        auto_json volume = NULL;
        field_set_text(body, "Name", args->length ? args->rest[0] : "");
        field_set_text(body, "Driver", args_text(args, "driver"));
        add_pairs(body, "DriverOpts", args_list(args, "opt"));
        add_pairs(body, "Labels", args_list(args, "label"));
        target_set(&target, "/volumes/create");
        int r = daemon_call(cli, "POST", &target, body, &volume, err);
        if (r == 0)
                puts(field_text(volume, "Name"));
        return r;
}

int cmd_volume_rm(struct cli *cli, const struct args *args, struct err *err)
{
        auto_buf query = { 0 };
        (void)err;
        target_add_flag(&query, "force", args_bool(args, "force"));
        return daemon_each(cli, "DELETE", "/volumes/%s", buf_text(&query), args->rest, NULL);
}

/* --- ls --- */

static const struct heading headings[] = {
        { "Availability", "AVAILABILITY" },
        { "Driver", "DRIVER" },
        { "Group", "GROUP" },
        { "Labels", "LABELS" },
        { "Links", "LINKS" },
        { "Mountpoint", "MOUNTPOINT" },
        { "Name", "VOLUME NAME" },
        { "Scope", "SCOPE" },
        { "Size", "SIZE" },
        { "Status", "STATUS" },
        { 0 },
};

static struct json_object *make_row(struct json_object *volume)
{
        struct json_object *row = json_object_new_object();
        char size[UNITS_TEXT_SIZE] = "N/A", links[24] = "N/A";
        if (field_get(volume, "UsageData")) {
                size_decimal(size, (double)field_int(volume, "UsageData.Size"), 4);
                snprintf(links, sizeof(links), "%lld",
                         (long long)field_int(volume, "UsageData.RefCount"));
        }
        auto_free char *labels = text_join_map(field_get(volume, "Labels"), ",");
        row_add(row, "Availability", "N/A");
        row_add(row, "Driver", field_text(volume, "Driver"));
        row_add(row, "Group", "N/A");
        row_add(row, "Labels", labels);
        row_add(row, "Links", links);
        row_add(row, "Mountpoint", field_text(volume, "Mountpoint"));
        row_add(row, "Name", field_text(volume, "Name"));
        row_add(row, "Scope", field_text(volume, "Scope"));
        row_add(row, "Size", size);
        row_add(row, "Status", "N/A");
        return row;
}

struct json_object *volume_rows(struct json_object *volumes)
{
        struct json_object *rows = json_object_new_array();
        for (size_t i = 0; i < field_length(volumes, ""); i++)
                json_object_array_add(rows, make_row(json_object_array_get_idx(volumes, i)));
        return rows;
}

const struct listing volume_listing = { headings, NULL };

int cmd_volume_ls(struct cli *cli, const struct args *args, struct err *err)
{
        auto_buf target = { 0 };
        auto_json answer = NULL;
        target_set(&target, "/volumes");
        int r = target_add_filters(&target, args_list(args, "filter"), err);
        if (r == 0)
                r = daemon_call(cli, "GET", &target, NULL, &answer, err);
        if (r < 0)
                return r;
        struct json_object *list = field_get(answer, "Volumes");
        if (args_bool(args, "json")) {
                listing_json(list);
                return 0;
        }
        auto_json rows = volume_rows(list);
        const char *format = args_text(args, "format");
        if (args_bool(args, "quiet") && str_empty(format))
                format = "{{.Name}}";
        return listing_print(&volume_listing, format, "{{.Driver}}\t{{.Name}}", rows, err);
}
