/* Commands that change or check what images there are: rmi, tag, image verify. */
#include <errno.h>
#include <json-c/json_object.h>
#include <stdio.h>
#include <string.h>

#include "base/auto.h"
#include "base/str.h"
#include "cli/command.h"
#include "cli/daemon.h"
#include "cli/field.h"
#include "cli/reference.h"
#include "codec/json.h"

const struct option rmi_options[] = {
        { .name = "force",
          .letter = 'f',
          .kind = OPTION_BOOL,
          .help = "Remove images with several names, or used by stopped containers" },
        { .name = "no-prune", .kind = OPTION_BOOL, .help = "Keep parents without a name" },
        { 0 },
};

const struct option image_verify_options[] = {
        { .name = "quiet", .letter = 'q', .kind = OPTION_BOOL, .help = "Print only what is bad" },
        { 0 },
};

static void print_removed(struct json_object *list)
{
        for (size_t i = 0; i < field_length(list, ""); i++) {
                struct json_object *item = json_object_array_get_idx(list, i);
                if (*field_text(item, "Deleted"))
                        printf("Deleted: %s\n", field_text(item, "Deleted"));
                else
                        printf("Untagged: %s\n", field_text(item, "Untagged"));
        }
}

int cmd_rmi(struct cli *cli, const struct args *args, struct err *err)
{
        int status = 0;
        (void)err;
        for (char **name = args->rest; *name; name++) {
                auto_buf target = { 0 };
                auto_json removed = NULL;
                struct err why = { 0 };
                target_set(&target, "/images/%s", *name);
                target_add_flag(&target, "force", args_bool(args, "force"));
                target_add_flag(&target, "noprune", args_bool(args, "no-prune"));
                if (daemon_call(cli, "DELETE", &target, NULL, &removed, &why) == 0) {
                        print_removed(removed);
                        continue;
                }
                fprintf(stderr, "%s\n", err_text(&why));
                if (!(cli->http_status == 404 && args_bool(args, "force")))
                        status = 1;
        }
        return status;
}

int cmd_tag(struct cli *cli, const struct args *args, struct err *err)
{
        auto_buf target = { 0 };
        auto_image_name name = { 0 };
        int r = image_name_parse(args->rest[1], &name, err);
        if (r < 0)
                return err_plain(err, EINVAL,
                                 "Error parsing reference: \"%s\" is not a valid "
                                 "repository/tag: %s",
                                 args->rest[1], strdupa(err_text(err)));
        if (name.digest)
                return err_plain(err, EINVAL, "refusing to create a tag with a digest reference");
        auto_free char *familiar = image_name_familiar(&name);
        target_set(&target, "/images/%s/tag", args->rest[0]);
        target_add(&target, "repo", familiar);
        target_add(&target, "tag", name.tag ? name.tag : "latest");
        return daemon_call(cli, "POST", &target, NULL, NULL, err);
}

/* --- verify --- */

/* Prints the records as they come; returns 1 where something is bad. */
static int show_checks(struct http_exchange *exchange, bool quiet, struct err *err)
{
        struct daemon_lines lines = { .exchange = exchange };
        int r, status = 0;
        for (;;) {
                auto_json record = NULL;
                r = daemon_next(&lines, &record, err);
                if (r <= 0)
                        break;
                const char *error = field_text(record, "errorDetail.message");
                if (*error) {
                        r = err_plain(err, EREMOTEIO, DAEMON_ERROR "%s", error);
                        break;
                }
                if (!field_get(record, "digest")) {
                        if (!quiet)
                                printf("%lld checked, %lld bad\n",
                                       (long long)field_int(record, "checked"),
                                       (long long)field_int(record, "bad"));
                        status = status || field_int(record, "bad") > 0;
                        continue;
                }
                bool good = field_bool(record, "good");
                status = status || !good;
                if (!good || !quiet)
                        printf("%-4s %s %s%s%s\n", good ? "ok" : "BAD",
                               field_text(record, "digest"), field_text(record, "kind"),
                               good ? "" : ": ", field_text(record, "problem"));
                fflush(stdout);
        }
        daemon_lines_finish(&lines);
        return r < 0 ? r : status;
}

int cmd_image_verify(struct cli *cli, const struct args *args, struct err *err)
{
        char *all[] = { NULL, NULL };
        int status = 0;
        size_t length = args->length ? args->length : 1;
        char **names = args->length ? args->rest : all;
        for (size_t i = 0; i < length; i++) {
                auto_buf target = { 0 };
                auto_exchange exchange = NULL;
                target_set_own(&target, "/isle/v1/images/verify");
                if (names[i])
                        target_add(&target, "name", names[i]);
                int r = daemon_begin(cli, "POST", &target, NULL, NULL, &exchange, err);
                if (r == 0)
                        r = show_checks(exchange, args_bool(args, "quiet"), err);
                if (r < 0)
                        return r;
                status |= r;
        }
        return status;
}
