/* system df */
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

const struct option system_df_options[] = {
        OPTION_FORMAT,
        OPTION_JSON,
        { .name = "verbose", .letter = 'v', .kind = OPTION_BOOL, .help = "Show each object" },
        { 0 },
};

static const struct heading headings[] = {
        { "Active", "ACTIVE" }, { "Reclaimable", "RECLAIMABLE" },
        { "Size", "SIZE" },     { "TotalCount", "TOTAL" },
        { "Type", "TYPE" },     { 0 },
};

struct usage {
        size_t total, active;
        int64_t bytes, reclaimable_bytes;
};

static struct usage images_usage(struct json_object *answer)
{
        struct json_object *list = field_get(answer, "Images");
        struct usage usage = { .total = field_length(list, ""),
                               .bytes = field_int(answer, "LayersSize") };
        int64_t used_bytes = 0;
        for (size_t i = 0; i < usage.total; i++) {
                struct json_object *image = json_object_array_get_idx(list, i);
                int64_t size = field_int(image, "Size"), shared = field_int(image, "SharedSize");
                if (field_int(image, "Containers") <= 0)
                        continue;
                usage.active++;
                if (size >= 0 && shared >= 0)
                        used_bytes += size - shared;
        }
        usage.reclaimable_bytes = usage.bytes - used_bytes;
        return usage;
}

static struct usage containers_usage(struct json_object *answer)
{
        struct json_object *list = field_get(answer, "Containers");
        struct usage usage = { .total = field_length(list, "") };
        for (size_t i = 0; i < usage.total; i++) {
                struct json_object *container = json_object_array_get_idx(list, i);
                const char *state = field_text(container, "State");
                bool active = streq(state, "running") || streq(state, "paused") ||
                              streq(state, "restarting");
                usage.active += active;
                usage.bytes += field_int(container, "SizeRw");
                usage.reclaimable_bytes += active ? 0 : field_int(container, "SizeRw");
        }
        return usage;
}

static struct usage volumes_usage(struct json_object *answer)
{
        struct json_object *list = field_get(answer, "Volumes");
        struct usage usage = { .total = field_length(list, "") };
        for (size_t i = 0; i < usage.total; i++) {
                struct json_object *volume = json_object_array_get_idx(list, i);
                int64_t size = field_int(volume, "UsageData.Size");
                bool active = field_int(volume, "UsageData.RefCount") > 0;
                size = size < 0 ? 0 : size;
                usage.active += active;
                usage.bytes += size;
                usage.reclaimable_bytes += active ? 0 : size;
        }
        return usage;
}

static struct usage cache_usage(struct json_object *answer)
{
        struct json_object *list = field_get(answer, "BuildCache");
        struct usage usage = { .total = field_length(list, "") };
        for (size_t i = 0; i < usage.total; i++) {
                struct json_object *entry = json_object_array_get_idx(list, i);
                bool active = field_bool(entry, "InUse");
                usage.active += active;
                usage.bytes += field_int(entry, "Size");
                usage.reclaimable_bytes += active ? 0 : field_int(entry, "Size");
        }
        return usage;
}

static const struct {
        const char *name;
        struct usage (*measure)(struct json_object *answer);
        bool percent;
} types[] = {
        { "Images", images_usage, true },
        { "Containers", containers_usage, true },
        { "Local Volumes", volumes_usage, true },
        { "Build Cache", cache_usage, false },
};

static struct json_object *summary_row(struct json_object *answer, size_t type)
{
        struct json_object *row = json_object_new_object();
        struct usage usage = types[type].measure(answer);
        char size[UNITS_TEXT_SIZE], number[24];
        size_decimal(size, (double)usage.reclaimable_bytes, 4);
        auto_free char *reclaimable = types[type].percent && usage.bytes > 0
                                              ? xasprintf("%s (%lld%%)", size,
                                                          (long long)(usage.reclaimable_bytes *
                                                                      100 / usage.bytes))
                                              : xstrdup(size);
        snprintf(number, sizeof(number), "%zu", usage.active);
        row_add(row, "Active", number);
        row_add(row, "Reclaimable", reclaimable);
        row_add(row, "Size", size_decimal(size, (double)usage.bytes, 4));
        snprintf(number, sizeof(number), "%zu", usage.total);
        row_add(row, "TotalCount", number);
        row_add(row, "Type", types[type].name);
        return row;
}

static int print_verbose(struct json_object *answer, struct err *err)
{
        auto_json images = image_rows(field_get(answer, "Images"), false);
        struct json_object *list = field_get(answer, "Containers");
        for (size_t i = 0; i < field_length(list, ""); i++) /* only their own size is shown */
                json_object_object_del(json_object_array_get_idx(list, i), "SizeRootFs");
        auto_json containers = container_rows(list, false);
        auto_json volumes = volume_rows(field_get(answer, "Volumes"));
        char size[UNITS_TEXT_SIZE];
        printf("Images space usage:\n\n");
        int r = listing_print(&image_listing, NULL,
                              "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t"
                              "{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}",
                              images, err);
        printf("\nContainers space usage:\n\n");
        if (r == 0)
                r = listing_print(&container_listing, NULL,
                                  "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}"
                                  "\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}",
                                  containers, err);
        printf("\nLocal Volumes space usage:\n\n");
        if (r == 0)
                r = listing_print(&volume_listing, NULL, "{{.Name}}\t{{.Links}}\t{{.Size}}",
                                  volumes, err);
        printf("\nBuild cache usage: %s\n\n"
               "CACHE ID   CACHE TYPE   SIZE      CREATED   LAST USED   USAGE     SHARED\n",
               size_decimal(size, (double)cache_usage(answer).bytes, 4));
        return r;
}

int cmd_system_df(struct cli *cli, const struct args *args, struct err *err)
{
        static const struct listing listing = { headings, NULL };
        auto_buf target = { 0 };
        auto_json answer = NULL;
        auto_json rows = json_object_new_array();
        target_set(&target, "/system/df");
        int r = daemon_call(cli, "GET", &target, NULL, &answer, err);
        if (r < 0)
                return r;
        if (args_bool(args, "json")) {
                listing_json(answer);
                return 0;
        }
        if (args_bool(args, "verbose"))
                return print_verbose(answer, err);
        for (size_t i = 0; i < ELEMENTS(types); i++)
                json_object_array_add(rows, summary_row(answer, i));
        return listing_print(&listing, args_text(args, "format"),
                             "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}",
                             rows, err);
}
