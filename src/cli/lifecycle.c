/* Commands that do one thing to each of several containers. */
#include <errno.h>
#include <json-c/json_object.h>
#include <stdio.h>
#include <string.h>

#include "base/auto.h"
#include "base/str.h"
#include "cli/attachment.h"
#include "cli/command.h"
#include "cli/daemon.h"
#include "cli/field.h"
#include "cli/spec.h"
#include "codec/json.h"

const struct option stop_options[] = {
        { .name = "signal",
          .letter = 's',
          .kind = OPTION_TEXT,
          .help = "Signal to send (default: what the container asks for)" },
        { .name = "timeout",
          .letter = 't',
          .kind = OPTION_INT,
          .help = "Seconds to wait before killing; -1 waits for ever" },
        { .name = "time", .kind = OPTION_INT, .flags = OPTION_HIDDEN, .help = "As --timeout" },
        { 0 },
};

const struct option kill_options[] = {
        { .name = "signal",
          .letter = 's',
          .kind = OPTION_TEXT,
          .help = "Signal to send (default KILL)",
          .completion = COMPLETE_WORDS,
          .words = "HUP INT QUIT KILL TERM USR1 USR2 STOP CONT" },
        { 0 },
};

const struct option rm_options[] = {
        { .name = "force",
          .letter = 'f',
          .kind = OPTION_BOOL,
          .help = "Kill running containers, and pass over those that do not exist" },
        { .name = "link", .letter = 'l', .kind = OPTION_BOOL, .help = "Links are not supported" },
        { .name = "volumes",
          .letter = 'v',
          .kind = OPTION_BOOL,
          .help = "Remove their anonymous volumes too" },
        { 0 },
};

static int stop_each(struct cli *cli, const struct args *args, const char *format)
{
        auto_buf query = { 0 };
        const char *option = args_given(args, "timeout") ? "timeout" : "time";
        if (args_given(args, option))
                target_add(&query, "t", args_text(args, option));
        if (args_given(args, "signal"))
                target_add(&query, "signal", args_text(args, "signal"));
        return daemon_each(cli, "POST", format, buf_text(&query), args->rest, NULL);
}

int cmd_stop(struct cli *cli, const struct args *args, struct err *err)
{
        (void)err;
        return stop_each(cli, args, "/containers/%s/stop");
}

int cmd_restart(struct cli *cli, const struct args *args, struct err *err)
{
        (void)err;
        return stop_each(cli, args, "/containers/%s/restart");
}

int cmd_kill(struct cli *cli, const struct args *args, struct err *err)
{
        auto_buf query = { 0 };
        (void)err;
        if (args_given(args, "signal"))
                target_add(&query, "signal", args_text(args, "signal"));
        return daemon_each(cli, "POST", "/containers/%s/kill", buf_text(&query), args->rest, NULL);
}

int cmd_pause(struct cli *cli, const struct args *args, struct err *err)
{
        (void)err;
        return daemon_each(cli, "POST", "/containers/%s/pause", NULL, args->rest, NULL);
}

int cmd_unpause(struct cli *cli, const struct args *args, struct err *err)
{
        (void)err;
        return daemon_each(cli, "POST", "/containers/%s/unpause", NULL, args->rest, NULL);
}

int cmd_rename(struct cli *cli, const struct args *args, struct err *err)
{
        auto_buf target = { 0 };
        if (str_empty(args->rest[0]) || str_empty(args->rest[1]))
                return err_plain(err, EINVAL, "Error: Neither old nor new names may be empty");
        target_set(&target, "/containers/%s/rename", args->rest[0]);
        target_add(&target, "name", args->rest[1]);
        int r = daemon_call(cli, "POST", &target, NULL, NULL, err);
        if (r < 0)
                fprintf(stderr, "%s\nError: failed to rename container named %s\n", err_text(err),
                        args->rest[0]);
        return r < 0 ? 1 : 0;
}

/* With --force a name that does not exist is no failure. */
static int remove_one(struct cli *cli, const struct args *args, const char *name)
{
        auto_buf target = { 0 };
        struct err err = { 0 };
        target_set(&target, "/containers/%s", name);
        target_add_flag(&target, "force", args_bool(args, "force"));
        target_add_flag(&target, "v", args_bool(args, "volumes"));
        int r = daemon_call(cli, "DELETE", &target, NULL, NULL, &err);
        if (r == 0) {
                puts(name);
                return 0;
        }
        fprintf(stderr, "%s\n", err_text(&err));
        return r == -ENOENT && cli->http_status == 404 && args_bool(args, "force") ? 0 : 1;
}

int cmd_rm(struct cli *cli, const struct args *args, struct err *err)
{
        int status = 0;
        if (args_bool(args, "link"))
                return err_plain(err, EINVAL, "links are not supported");
        if (!args_bool(args, "force")) {
                auto_buf query = { 0 };
                target_add_flag(&query, "v", args_bool(args, "volumes"));
                return daemon_each(cli, "DELETE", "/containers/%s", buf_text(&query), args->rest,
                                   NULL);
        }
        for (char **name = args->rest; *name; name++)
                status |= remove_one(cli, args, *name);
        return status;
}

int cmd_wait(struct cli *cli, const struct args *args, struct err *err)
{
        int failed = 0;
        (void)err;
        for (char **name = args->rest; *name; name++) {
                auto_exchange exchange = NULL;
                struct err why = { 0 };
                int status, r = container_wait_begin(cli, *name, NULL, &exchange, &why);
                if (r == 0)
                        r = container_wait_finish(cli, *name, exchange, &status, &why);
                if (r == 0)
                        printf("%d\n", status);
                else
                        fprintf(stderr, "%s\n", err_text(&why));
                fflush(stdout);
                failed |= r < 0;
        }
        return failed;
}

int cmd_update(struct cli *cli, const struct args *args, struct err *err)
{
        auto_json body = json_object_new_object();
        int status = 0, r = spec_resources(args, body, err);
        if (r < 0)
                return r;
        if (json_object_object_length(body) == 0)
                return err_plain(err, EINVAL,
                                 "you must provide one or more flags when using this command");
        for (char **name = args->rest; *name; name++) {
                auto_buf target = { 0 };
                auto_json answer = NULL;
                struct err why = { 0 };
                target_set(&target, "/containers/%s/update", *name);
                if (daemon_call(cli, "POST", &target, body, &answer, &why) < 0) {
                        fprintf(stderr, "%s\n", err_text(&why));
                        status = 1;
                        continue;
                }
                puts(*name);
                struct json_object *warnings = field_get(answer, "Warnings");
                for (size_t i = 0; i < field_length(answer, "Warnings"); i++)
                        fprintf(stderr, "%s\n",
                                json_object_get_string(json_object_array_get_idx(warnings, i)));
        }
        return status;
}
