#include <errno.h>
#include <json-c/json_object.h>
#include <stdio.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/str.h"
#include "cli/attachment.h"
#include "cli/command.h"
#include "cli/daemon.h"
#include "cli/field.h"
#include "cli/spec.h"
#include "cli/terminal.h"
#include "codec/json.h"

const struct option exec_options[] = {
        { .name = "detach",
          .letter = 'd',
          .kind = OPTION_BOOL,
          .help = "Leave the command running in the background" },
        { .name = "detach-keys",
          .kind = OPTION_TEXT,
          .help = "Keys that leave the command's terminal (ctrl-p,ctrl-q)" },
        { .name = "env", .letter = 'e', .kind = OPTION_LIST, .help = "Set environment variables" },
        { .name = "env-file",
          .kind = OPTION_LIST,
          .help = "Read environment variables from a file",
          .completion = COMPLETE_FILE },
        { .name = "interactive",
          .letter = 'i',
          .kind = OPTION_BOOL,
          .help = "Keep standard input open even if not attached" },
        { .name = "privileged",
          .kind = OPTION_BOOL,
          .help = "Give the command all privileges of the host" },
        { .name = "tty", .letter = 't', .kind = OPTION_BOOL, .help = "Allocate a terminal" },
        { .name = "user",
          .letter = 'u',
          .kind = OPTION_TEXT,
          .help = "User and group of the command (NAME|UID[:GROUP|GID])" },
        { .name = "workdir",
          .letter = 'w',
          .kind = OPTION_TEXT,
          .help = "Working directory in the container" },
        { 0 },
};

static int build(const struct args *args, struct json_object *body, struct err *err)
{
        auto_strv env = NULL;
        bool attached = !args_bool(args, "detach");
        field_set(body, "Tty", json_object_new_boolean(args_bool(args, "tty")));
        field_set(body, "Privileged", json_object_new_boolean(args_bool(args, "privileged")));
        field_set(body, "AttachStdin",
                  json_object_new_boolean(attached && args_bool(args, "interactive")));
        field_set(body, "AttachStdout", json_object_new_boolean(attached));
        field_set(body, "AttachStderr", json_object_new_boolean(attached));
        if (args_text(args, "user"))
                field_set_text(body, "User", args_text(args, "user"));
        if (args_text(args, "workdir"))
                field_set_text(body, "WorkingDir", args_text(args, "workdir"));
        if (args_text(args, "detach-keys"))
                field_set_text(body, "DetachKeys", args_text(args, "detach-keys"));
        for (char *const *path = args_list(args, "env-file"); *path; path++) {
                int r = spec_read_file(*path, true, &env, err);
                if (r < 0)
                        return r;
        }
        for (char *const *text = args_list(args, "env"); *text; text++)
                strv_push_take(&env, spec_env(*text));
        for (char **text = env; text && *text; text++)
                field_add(body, "Env", json_object_new_string(*text));
        for (char **word = args->rest + 1; *word; word++)
                field_add(body, "Cmd", json_object_new_string(*word));
        return 0;
}

static int exec_create(struct cli *cli, const struct args *args, char **ret_id, struct err *err)
{
        auto_buf target = { 0 };
        auto_json body = json_object_new_object();
        auto_json answer = NULL;
        int r = build(args, body, err);
        if (r < 0)
                return r;
        target_set(&target, "/containers/%s/exec", args->rest[0]);
        r = daemon_call(cli, "POST", &target, body, &answer, err);
        if (r < 0)
                return r;
        if (!*field_text(answer, "Id"))
                return err_plain(err, EBADMSG, "exec ID empty");
        *ret_id = xstrdup(field_text(answer, "Id"));
        return 0;
}

static struct json_object *start_body(const struct args *args)
{
        struct json_object *body = json_object_new_object();
        unsigned rows, columns;
        field_set(body, "Detach", json_object_new_boolean(args_bool(args, "detach")));
        field_set(body, "Tty", json_object_new_boolean(args_bool(args, "tty")));
        if (args_bool(args, "tty") && terminal_size(STDOUT_FILENO, &rows, &columns) == 0) {
                field_add(body, "ConsoleSize", json_object_new_int64(rows));
                field_add(body, "ConsoleSize", json_object_new_int64(columns));
        }
        return body;
}

static int exec_status(struct cli *cli, const char *id, struct err *err)
{
        auto_buf target = { 0 };
        auto_json answer = NULL;
        target_set(&target, "/exec/%s/json", id);
        int r = daemon_call(cli, "GET", &target, NULL, &answer, err);
        return r < 0 ? r : (int)field_int(answer, "ExitCode");
}

static int exec_attached(struct cli *cli, const struct args *args, const char *id,
                         struct attachment *attachment, struct err *err)
{
        auto_buf target = { 0 };
        auto_json body = start_body(args);
        enum session_end end;
        attachment->id = id;
        target_set(&target, "/exec/%s/start", id);
        int r = attachment_open(attachment, &target, body, err);
        if (r == 0)
                r = attachment_run(attachment, &end, err);
        attachment_finish(attachment);
        if (r < 0)
                return r;
        if (end == SESSION_DETACHED) {
                fprintf(stderr, "read escape sequence\n");
                return 0;
        }
        return exec_status(cli, id, err);
}

int cmd_exec(struct cli *cli, const struct args *args, struct err *err)
{
        auto_free char *id = NULL;
        struct attachment attachment = {
                .cli = cli,
                .resize = "/exec/%s/resize",
                .session = {
                        .fd = -1,
                        .terminal = args_bool(args, "tty"),
                        .input_fd = args_bool(args, "interactive") ? STDIN_FILENO : -1,
                        .output_fd = STDOUT_FILENO,
                        .error_fd = STDERR_FILENO,
                },
        };
        int r = detach_parse(args_text(args, "detach-keys"), &attachment.session.detach, err);
        if (r < 0)
                return r;
        if (!args_bool(args, "detach") && args_bool(args, "tty") &&
            args_bool(args, "interactive") && !terminal_is(STDIN_FILENO))
                return err_plain(err, ENOTTY, "the input device is not a TTY");
        r = exec_create(cli, args, &id, err);
        if (r < 0)
                return r;
        if (!args_bool(args, "detach"))
                return exec_attached(cli, args, id, &attachment, err);
        auto_buf target = { 0 };
        auto_json body = start_body(args);
        target_set(&target, "/exec/%s/start", id);
        return daemon_call(cli, "POST", &target, body, NULL, err);
}
