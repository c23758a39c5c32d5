#include <errno.h>
#include <json-c/json_object.h>
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

#define NONE        "<none>"
#define STEP_LENGTH 45

const struct option images_options[] = {
        { .name = "all",
          .letter = 'a',
          .kind = OPTION_BOOL,
          .help = "Show all images, also intermediate ones" },
        { .name = "digests", .kind = OPTION_BOOL, .help = "Show digests" },
        OPTION_FILTER("dangling=true, reference=busy*, label=a=b"),
        OPTION_FORMAT,
        OPTION_JSON,
        { .name = "no-trunc", .kind = OPTION_BOOL, .help = "Do not cut text short" },
        { .name = "quiet", .letter = 'q', .kind = OPTION_BOOL, .help = "Show only IDs" },
        { 0 },
};

const struct option history_options[] = {
        OPTION_FORMAT,
        { .name = "human",
          .letter = 'H',
          .kind = OPTION_BOOL,
          .initial = "true",
          .help = "Print sizes and dates for people" },
        OPTION_JSON,
        { .name = "no-trunc", .kind = OPTION_BOOL, .help = "Do not cut text short" },
        { .name = "quiet", .letter = 'q', .kind = OPTION_BOOL, .help = "Show only IDs" },
        { 0 },
};

static const struct heading image_headings[] = {
        { "Containers", "CONTAINERS" },
        { "CreatedAt", "CREATED AT" },
        { "CreatedSince", "CREATED" },
        { "Digest", "DIGEST" },
        { "ID", "IMAGE ID" },
        { "Repository", "REPOSITORY" },
        { "SharedSize", "SHARED SIZE" },
        { "Size", "SIZE" },
        { "Tag", "TAG" },
        { "UniqueSize", "UNIQUE SIZE" },
        { "VirtualSize", "SIZE" },
        { 0 },
};

/* Where a name's tag or digest starts; its end where there is none. */
static size_t split_name(const char *name, char mark)
{
        const char *slash = strrchr(name, '/');
        const char *found = strrchr(slash ? slash : name, mark);
        return found ? (size_t)(found - name) : strlen(name);
}

static void add_size(struct json_object *row, const char *field, int64_t bytes, int digits)
{
        char text[UNITS_TEXT_SIZE];
        row_add(row, field, bytes < 0 ? "N/A" : size_decimal(text, (double)bytes, digits));
}

static struct json_object *image_row(struct json_object *image, const char *repository,
                                     const char *tag, const char *digest, bool whole)
{
        struct json_object *row = json_object_new_object();
        char text[UNITS_TEXT_SIZE], count[24];
        int64_t created_ns = field_int(image, "Created") * NS_PER_S;
        int64_t containers = field_int(image, "Containers");
        auto_free char *id = text_short_id(field_text(image, "Id"), whole);
        snprintf(count, sizeof(count), "%lld", (long long)containers);
        row_add(row, "Containers", containers < 0 ? "N/A" : count);
        row_add(row, "CreatedAt", time_local(text, created_ns));
        age_text(text, clock_realtime_ns() - created_ns);
        auto_free char *since = created_ns > 0 ? xasprintf("%s ago", text) : xstrdup("N/A");
        row_add(row, "CreatedSince", since);
        row_add(row, "Digest", digest);
        row_add(row, "ID", id);
        row_add(row, "Repository", repository);
        int64_t bytes = field_int(image, "Size"), shared = field_int(image, "SharedSize");
        add_size(row, "SharedSize", shared, 4);
        add_size(row, "Size", bytes, 3);
        row_add(row, "Tag", tag);
        add_size(row, "UniqueSize", shared < 0 ? -1 : bytes - shared, 4);
        add_size(row, "VirtualSize", bytes, 4);
        return row;
}

/* The digest under a repository among "repo@sha256:…"; <none> where there is none. */
static const char *digest_of(struct json_object *image, const char *repository)
{
        struct json_object *digests = field_get(image, "RepoDigests");
        for (size_t i = 0; i < field_length(image, "RepoDigests"); i++) {
                const char *name = json_object_get_string(json_object_array_get_idx(digests, i));
                size_t at = split_name(name, '@');
                if (strlen(repository) == at && memcmp(name, repository, at) == 0 && name[at])
                        return name + at + 1;
        }
        return NONE;
}

static bool has_tag_of(struct json_object *image, const char *repository, size_t length)
{
        struct json_object *tags = field_get(image, "RepoTags");
        for (size_t i = 0; i < field_length(image, "RepoTags"); i++) {
                const char *name = json_object_get_string(json_object_array_get_idx(tags, i));
                if (split_name(name, ':') == length && memcmp(name, repository, length) == 0)
                        return true;
        }
        return false;
}

/* A row for each tag; one for each repository that is known by digest only. */
static void add_image_rows(struct json_object *rows, struct json_object *image, bool whole)
{
        struct json_object *tags = field_get(image, "RepoTags");
        struct json_object *digests = field_get(image, "RepoDigests");
        size_t before = json_object_array_length(rows);
        for (size_t i = 0; i < field_length(image, "RepoTags"); i++) {
                const char *name = json_object_get_string(json_object_array_get_idx(tags, i));
                size_t at = split_name(name, ':');
                auto_free char *repository = xstrndup(name, at);
                if (streq(name, NONE ":" NONE))
                        continue;
                json_object_array_add(rows,
                                      image_row(image, repository, name[at] ? name + at + 1 : NONE,
                                                digest_of(image, repository), whole));
        }
        for (size_t i = 0; i < field_length(image, "RepoDigests"); i++) {
                const char *name = json_object_get_string(json_object_array_get_idx(digests, i));
                size_t at = split_name(name, '@');
                auto_free char *repository = xstrndup(name, at);
                if (streq(name, NONE "@" NONE) || has_tag_of(image, name, at))
                        continue;
                json_object_array_add(rows, image_row(image, repository, NONE,
                                                      name[at] ? name + at + 1 : NONE, whole));
        }
        if (json_object_array_length(rows) == before)
                json_object_array_add(rows, image_row(image, NONE, NONE, NONE, whole));
}

struct json_object *image_rows(struct json_object *images, bool whole)
{
        struct json_object *rows = json_object_new_array();
        for (size_t i = 0; i < field_length(images, ""); i++)
                add_image_rows(rows, json_object_array_get_idx(images, i), whole);
        return rows;
}

const struct listing image_listing = { image_headings, NULL };

static int fetch_images(struct cli *cli, const struct args *args, struct json_object **ret,
                        struct err *err)
{
        auto_buf target = { 0 };
        auto_strv filters = strv_copy(args_list(args, "filter"));
        target_set(&target, "/images/json");
        target_add_flag(&target, "all", args_bool(args, "all"));
        if (args->length)
                strv_push_take(&filters, xasprintf("reference=%s", args->rest[0]));
        int r = target_add_filters(&target, filters, err);
        return r < 0 ? r : daemon_call(cli, "GET", &target, NULL, ret, err);
}

int cmd_images(struct cli *cli, const struct args *args, struct err *err)
{
        auto_json list = NULL;
        int r = fetch_images(cli, args, &list, err);
        if (r < 0)
                return r;
        if (args_bool(args, "json")) {
                listing_json(list);
                return 0;
        }
        auto_json rows = image_rows(list, args_bool(args, "no-trunc"));
        const char *format = args_text(args, "format");
        if (args_bool(args, "quiet") && str_empty(format))
                format = "{{.ID}}";
        return listing_print(&image_listing, format,
                             args_bool(args, "digests")
                                     ? "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t"
                                       "{{.CreatedSince}}\t{{.Size}}"
                                     : "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t"
                                       "{{.Size}}",
                             rows, err);
}

/* --- history --- */

static const struct heading history_headings[] = {
        { "Comment", "COMMENT" },
        { "CreatedAt", "CREATED AT" },
        { "CreatedBy", "CREATED BY" },
        { "CreatedSince", "CREATED" },
        { "ID", "IMAGE" },
        { "Size", "SIZE" },
        { 0 },
};

static struct json_object *history_row(struct json_object *step, const struct args *args)
{
        struct json_object *row = json_object_new_object();
        char text[UNITS_TEXT_SIZE], when[CLOCK_TEXT_SIZE];
        bool whole = args_bool(args, "no-trunc"), human = args_bool(args, "human");
        int64_t created_ns = field_int(step, "Created") * NS_PER_S;
        int64_t bytes = field_int(step, "Size");
        auto_free char *created_by = xstrdup(field_text(step, "CreatedBy"));
        for (char *at = created_by; *at; at++)
                *at = (char)(*at == '\t' ? ' ' : *at);
        auto_free char *cut = whole ? xstrdup(created_by) : text_ellipsis(created_by, STEP_LENGTH);
        auto_free char *id = text_short_id(field_text(step, "Id"), whole);
        clock_format(created_ns, when);
        strcpy(strchr(when, '.'), "Z"); /* whole seconds */
        row_add(row, "Comment", field_text(step, "Comment"));
        row_add(row, "CreatedAt", when);
        row_add(row, "CreatedBy", cut);
        age_text(text, clock_realtime_ns() - created_ns);
        auto_free char *since = created_ns <= 0 ? xstrdup("N/A")
                                : human         ? xasprintf("%s ago", text)
                                                : xstrdup(when);
        row_add(row, "CreatedSince", since);
        row_add(row, "ID", id);
        if (human)
                size_decimal(text, (double)bytes, 3);
        else
                snprintf(text, sizeof(text), "%lld", (long long)bytes);
        row_add(row, "Size", text);
        return row;
}

int cmd_history(struct cli *cli, const struct args *args, struct err *err)
{
        static const struct listing listing = { history_headings, NULL };
        auto_buf target = { 0 };
        auto_json list = NULL;
        auto_json rows = json_object_new_array();
        target_set(&target, "/images/%s/history", args->rest[0]);
        int r = daemon_call(cli, "GET", &target, NULL, &list, err);
        if (r < 0)
                return r;
        if (args_bool(args, "json")) {
                listing_json(list);
                return 0;
        }
        for (size_t i = 0; i < field_length(list, ""); i++)
                json_object_array_add(rows, history_row(json_object_array_get_idx(list, i), args));
        const char *format = args_text(args, "format");
        if (args_bool(args, "quiet") && str_empty(format))
                format = "{{.ID}}";
        return listing_print(&listing, format,
                             args_bool(args, "human")
                                     ? "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t"
                                       "{{.Comment}}"
                                     : "{{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t"
                                       "{{.Comment}}",
                             rows, err);
}
