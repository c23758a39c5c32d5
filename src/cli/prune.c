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
#include "cli/units.h"
#include "codec/json.h"

#define OPTION_PRUNE_FILTER                                                                        \
        {                                                                                          \
                .name = "filter", .kind = OPTION_LIST, .word = "filter",                           \
                .check = listing_check_filter,                                                     \
                .help = "Only what matches, e.g. until=24h, label=a=b"                             \
        }
#define OPTION_PRUNE_FORCE                                                                         \
        {                                                                                          \
                .name = "force", .letter = 'f', .kind = OPTION_BOOL, .help = "Do not ask"          \
        }

const struct option prune_options[] = { OPTION_PRUNE_FILTER, OPTION_PRUNE_FORCE, { 0 } };

const struct option image_prune_options[] = {
        { .name = "all",
          .letter = 'a',
          .kind = OPTION_BOOL,
          .help = "Remove all unused images, not only those without a name" },
        OPTION_PRUNE_FILTER,
        OPTION_PRUNE_FORCE,
        { 0 },
};

const struct option volume_prune_options[] = {
        { .name = "all",
          .letter = 'a',
          .kind = OPTION_BOOL,
          .help = "Remove all unused volumes, not only anonymous ones" },
        OPTION_PRUNE_FILTER,
        OPTION_PRUNE_FORCE,
        { 0 },
};

const struct option system_prune_options[] = {
        { .name = "all",
          .letter = 'a',
          .kind = OPTION_BOOL,
          .help = "Remove all unused images, not only those without a name" },
        OPTION_PRUNE_FILTER,
        OPTION_PRUNE_FORCE,
        { .name = "volumes", .kind = OPTION_BOOL, .help = "Remove anonymous volumes too" },
        { 0 },
};

/* True for "y". */
static bool confirm(const struct args *args, const char *warning)
{
        char answer[16];
        if (args_bool(args, "force"))
                return true;
        printf("%s\nAre you sure you want to continue? [y/N] ", warning);
        fflush(stdout);
        return fgets(answer, sizeof(answer), stdin) && (answer[0] == 'y' || answer[0] == 'Y');
}

struct prune {
        const char *path, *title; /* "/containers/prune", "Deleted Containers" */
        const char *field;        /* of the answer: "ContainersDeleted" */
        const char *filter;       /* a further filter, or NULL */
};

static void print_deleted(struct json_object *list)
{
        for (size_t i = 0; i < field_length(list, ""); i++) {
                struct json_object *item = json_object_array_get_idx(list, i);
                if (json_object_is_type(item, json_type_string))
                        puts(json_object_get_string(item));
                else if (*field_text(item, "Untagged"))
                        printf("untagged: %s\n", field_text(item, "Untagged"));
                else
                        printf("deleted: %s\n", field_text(item, "Deleted"));
        }
}

static int prune_one(struct cli *cli, const struct prune *prune, const struct args *args,
                     int64_t *bytes, struct err *err)
{
        auto_buf target = { 0 };
        auto_json answer = NULL;
        auto_strv filters = strv_copy(args_list(args, "filter"));
        if (prune->filter)
                strv_push(&filters, prune->filter);
        target_set(&target, prune->path);
        int r = target_add_filters(&target, filters, err);
        if (r == 0)
                r = daemon_call(cli, "POST", &target, NULL, &answer, err);
        if (r < 0)
                return r;
        if (field_length(answer, prune->field)) {
                printf("%s:\n", prune->title);
                print_deleted(field_get(answer, prune->field));
                printf("\n");
        }
        *bytes += field_int(answer, "SpaceReclaimed");
        return 0;
}

static const struct prune containers = { "/containers/prune", "Deleted Containers",
                                         "ContainersDeleted", NULL };
static const struct prune dangling_images = { "/images/prune", "Deleted Images", "ImagesDeleted",
                                              "dangling=true" };
static const struct prune all_images = { "/images/prune", "Deleted Images", "ImagesDeleted",
                                         "dangling=false" };
static const struct prune volumes = { "/volumes/prune", "Deleted Volumes", "VolumesDeleted", NULL };
static const struct prune all_volumes = { "/volumes/prune", "Deleted Volumes", "VolumesDeleted",
                                          "all=true" };

static int prune_and_tell(struct cli *cli, const struct args *args, const char *warning,
                          const struct prune *const *prunes, struct err *err)
{
        int64_t bytes = 0;
        char text[UNITS_TEXT_SIZE];
        if (!confirm(args, warning))
                return 0;
        for (; *prunes; prunes++) {
                int r = prune_one(cli, *prunes, args, &bytes, err);
                if (r < 0)
                        return r;
        }
        printf("Total reclaimed space: %s\n", size_decimal(text, (double)bytes, 4));
        return 0;
}

int cmd_container_prune(struct cli *cli, const struct args *args, struct err *err)
{
        const struct prune *const prunes[] = { &containers, NULL };
        return prune_and_tell(cli, args, "WARNING! This will remove all stopped containers.",
                              prunes, err);
}

int cmd_image_prune(struct cli *cli, const struct args *args, struct err *err)
{
        bool all = args_bool(args, "all");
        const struct prune *const prunes[] = { all ? &all_images : &dangling_images, NULL };
        return prune_and_tell(cli, args,
                              all ? "WARNING! This will remove all images without at least one "
                                    "container associated to them."
                                  : "WARNING! This will remove all dangling images.",
                              prunes, err);
}

int cmd_volume_prune(struct cli *cli, const struct args *args, struct err *err)
{
        bool all = args_bool(args, "all");
        const struct prune *const prunes[] = { all ? &all_volumes : &volumes, NULL };
        return prune_and_tell(cli, args,
                              all ? "WARNING! This will remove all local volumes not used by at "
                                    "least one container."
                                  : "WARNING! This will remove anonymous local volumes not used by "
                                    "at least one container.",
                              prunes, err);
}

int cmd_system_prune(struct cli *cli, const struct args *args, struct err *err)
{
        bool all = args_bool(args, "all"), with_volumes = args_bool(args, "volumes");
        const struct prune *prunes[4] = { &containers };
        auto_free char *warning = xasprintf(
                "WARNING! This will remove:\n"
                "  - all stopped containers\n"
                "%s"
                "  - %s\n",
                with_volumes ? "  - all anonymous volumes not used by at least one "
                               "container\n"
                             : "",
                all ? "all images without at least one container associated to them"
                    : "all dangling images");
        size_t length = 1;
        if (with_volumes)
                prunes[length++] = &volumes;
        prunes[length] = all ? &all_images : &dangling_images;
        return prune_and_tell(cli, args, warning, prunes, err);
}
