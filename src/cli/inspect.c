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
#include "codec/json.h"

const struct option inspect_options[] = {
        OPTION_INSPECT_FORMAT,
        { .name = "size",
          .letter = 's',
          .kind = OPTION_BOOL,
          .help = "Tell the sizes of containers" },
        { .name = "type",
          .kind = OPTION_TEXT,
          .help = "Only objects of this type: 'container', 'image', 'volume'",
          .completion = COMPLETE_WORDS,
          .words = "container image volume" },
        { 0 },
};

const struct option container_inspect_options[] = {
        OPTION_INSPECT_FORMAT,
        { .name = "size", .letter = 's', .kind = OPTION_BOOL, .help = "Tell their sizes" },
        { 0 },
};

const struct option image_inspect_options[] = {
        OPTION_INSPECT_FORMAT,
        { .name = "platform", .kind = OPTION_TEXT, .help = "Platform to show (OS/ARCH)" },
        { 0 },
};

const struct option volume_inspect_options[] = { OPTION_INSPECT_FORMAT, { 0 } };

static const struct kind {
        const char *name, *format;
} kinds[] = {
        { "container", "/containers/%s/json" },
        { "image", "/images/%s/json" },
        { "volume", "/volumes/%s" },
};

static int ask(struct cli *cli, const struct kind *kind, const char *name, bool size,
               struct json_object **ret, struct err *err)
{
        auto_buf target = { 0 };
        target_set(&target, kind->format, name);
        target_add_flag(&target, "size", size && kind == &kinds[0]);
        return daemon_call(cli, "GET", &target, NULL, ret, err);
}

/* The first kind that knows the name; `only` leaves no choice. */
static int find(struct cli *cli, const struct kind *only, const char *name, bool size,
                struct json_object **ret, struct err *err)
{
        if (only)
                return ask(cli, only, name, size, ret, err);
        for (size_t i = 0; i < ELEMENTS(kinds); i++) {
                /* A name of another kind may be no proper volume name: 400. */
                int r = ask(cli, &kinds[i], name, size, ret, err);
                if (r >= 0 || cli->http_status == 0 ||
                    (cli->http_status != 404 && cli->http_status != 400))
                        return r;
                cli->http_status = 0;
        }
        return err_plain(err, ENOENT, "Error: No such object: %s", name);
}

static int inspect_all(struct cli *cli, const struct args *args, const struct kind *only, bool size,
                       struct err *err)
{
        auto_json found = json_object_new_array();
        int status = 0;
        auto_buf failures = { 0 };
        if (listing_check_format(args_text(args, "format"), err) < 0) {
                fprintf(stderr, "%s\n", err_text(err));
                return EXIT_BAD_TEMPLATE;
        }
        for (char **name = args->rest; *name; name++) {
                struct json_object *object = NULL;
                struct err why = { 0 };
                if (find(cli, only, *name, size, &object, &why) == 0) {
                        json_object_array_add(found, object);
                        continue;
                }
                status = 1;
                buf_printf(&failures, "%s\n", err_text(&why));
        }
        int r = listing_inspect(args_text(args, "format"), found, err);
        fflush(stdout);
        fputs(buf_text(&failures), stderr);
        return r < 0 ? r : status;
}

int cmd_inspect(struct cli *cli, const struct args *args, struct err *err)
{
        const char *type = args_text(args, "type");
        const struct kind *only = NULL;
        for (size_t i = 0; type && i < ELEMENTS(kinds); i++)
                if (streq(kinds[i].name, type))
                        only = &kinds[i];
        if (type && !only)
                return err_plain(err, EINVAL,
                                 "\"%s\" is not a valid value for --type: container, image or "
                                 "volume",
                                 type);
        return inspect_all(cli, args, only, args_bool(args, "size"), err);
}

int cmd_container_inspect(struct cli *cli, const struct args *args, struct err *err)
{
        return inspect_all(cli, args, &kinds[0], args_bool(args, "size"), err);
}

int cmd_image_inspect(struct cli *cli, const struct args *args, struct err *err)
{
        return inspect_all(cli, args, &kinds[1], false, err);
}

int cmd_volume_inspect(struct cli *cli, const struct args *args, struct err *err)
{
        return inspect_all(cli, args, &kinds[2], false, err);
}
