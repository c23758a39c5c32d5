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
#include "cli/terminal.h"
#include "codec/json.h"

const struct option start_options[] = {
        { .name = "attach",
          .letter = 'a',
          .kind = OPTION_BOOL,
          .help = "Attach standard output and error, pass signals on" },
        { .name = "detach-keys",
          .kind = OPTION_TEXT,
          .help = "Keys that leave the container's terminal (ctrl-p,ctrl-q)" },
        { .name = "interactive",
          .letter = 'i',
          .kind = OPTION_BOOL,
          .help = "Attach standard input" },
        { .name = "sig-proxy", .kind = OPTION_BOOL, .initial = "true", .flags = OPTION_HIDDEN },
        { 0 },
};

const struct option attach_options[] = {
        { .name = "detach-keys",
          .kind = OPTION_TEXT,
          .help = "Keys that leave the container's terminal (ctrl-p,ctrl-q)" },
        { .name = "no-stdin", .kind = OPTION_BOOL, .help = "Do not attach standard input" },
        { .name = "sig-proxy",
          .kind = OPTION_BOOL,
          .initial = "true",
          .help = "Pass signals on to the process" },
        { 0 },
};

static int inspect(struct cli *cli, const char *name, struct json_object **ret, struct err *err)
{
        auto_buf target = { 0 };
        target_set(&target, "/containers/%s/json", name);
        return daemon_call(cli, "GET", &target, NULL, ret, err);
}

static int check_terminal(const struct attachment *attachment, struct err *err)
{
        if (attachment->session.terminal && attachment->session.input_fd >= 0 &&
            !terminal_is(attachment->session.input_fd))
                return err_plain(err, ENOTTY, "the input device is not a TTY");
        return 0;
}

/* Streams of an existing container, with its exit status at the end. */
static int join(struct cli *cli, struct attachment *attachment, const char *condition, bool start,
                const char *detach_keys, struct err *err)
{
        auto_exchange waiting = NULL;
        auto_buf target = { 0 };
        enum session_end end;
        int status;
        attachment_target(&target, attachment->id, attachment->session.input_fd >= 0, true, true,
                          detach_keys);
        int r = check_terminal(attachment, err);
        if (r == 0)
                r = attachment_open(attachment, &target, NULL, err);
        if (r == 0)
                r = container_wait_begin(cli, attachment->id, condition, &waiting, err);
        if (r == 0 && start) {
                target_set(&target, "/containers/%s/start", attachment->id);
                r = daemon_call(cli, "POST", &target, NULL, NULL, err);
        }
        if (r == 0)
                r = attachment_run(attachment, &end, err);
        session_finish(&attachment->session);
        if (r < 0)
                return r;
        if (end == SESSION_DETACHED) {
                fprintf(stderr, "read escape sequence\n");
                return 0;
        }
        r = container_wait_finish(cli, attachment->id, waiting, &status, err);
        return r < 0 ? r : status;
}

static struct attachment attachment_to(struct cli *cli, struct json_object *container, bool input,
                                       bool forward)
{
        return (struct attachment){
                .cli = cli,
                .id = field_text(container, "Id"),
                .resize = "/containers/%s/resize",
                .kill = "/containers/%s/kill",
                .session = {
                        .fd = -1,
                        .terminal = field_bool(container, "Config.Tty"),
                        .input_fd = input && field_bool(container, "Config.OpenStdin")
                                            ? STDIN_FILENO
                                            : -1,
                        .output_fd = STDOUT_FILENO,
                        .error_fd = STDERR_FILENO,
                        .forward = forward,
                },
        };
}

static int start_attached(struct cli *cli, const struct args *args, struct err *err)
{
        auto_json container = NULL;
        if (args->length > 1)
                return err_plain(err, EINVAL,
                                 "you cannot start and attach multiple containers at once");
        int r = inspect(cli, args->rest[0], &container, err);
        if (r < 0)
                return r;
        struct attachment attachment = attachment_to(cli, container, args_bool(args, "interactive"),
                                                     args_bool(args, "sig-proxy"));
        bool removed = field_bool(container, "HostConfig.AutoRemove");
        r = detach_parse(args_text(args, "detach-keys"), &attachment.session.detach, err);
        if (r == 0)
                r = join(cli, &attachment, removed ? "removed" : "next-exit", true,
                         args_text(args, "detach-keys"), err);
        attachment_finish(&attachment);
        return r;
}

int cmd_start(struct cli *cli, const struct args *args, struct err *err)
{
        if (args_bool(args, "attach") || args_bool(args, "interactive"))
                return start_attached(cli, args, err);
        auto_strv failed = NULL;
        int status = daemon_each(cli, "POST", "/containers/%s/start", NULL, args->rest, &failed);
        if (failed) {
                auto_free char *names = strv_join(failed, ", ");
                fprintf(stderr, "Error: failed to start containers: %s\n", names);
        }
        return status;
}

static int check_running(struct json_object *container, struct err *err)
{
        if (!field_bool(container, "State.Running"))
                return err_plain(err, EINVAL,
                                 "You cannot attach to a stopped container, start it first");
        if (field_bool(container, "State.Paused"))
                return err_plain(err, EINVAL,
                                 "You cannot attach to a paused container, unpause it first");
        if (field_bool(container, "State.Restarting"))
                return err_plain(err, EINVAL,
                                 "You cannot attach to a restarting container, wait until it is "
                                 "running");
        return 0;
}

int cmd_attach(struct cli *cli, const struct args *args, struct err *err)
{
        auto_json container = NULL;
        int r = inspect(cli, args->rest[0], &container, err);
        if (r == 0)
                r = check_running(container, err);
        if (r < 0)
                return r;
        struct attachment attachment = attachment_to(cli, container, !args_bool(args, "no-stdin"),
                                                     args_bool(args, "sig-proxy"));
        attachment.twitch = true;
        r = detach_parse(args_text(args, "detach-keys"), &attachment.session.detach, err);
        if (r == 0)
                r = join(cli, &attachment, NULL, false, args_text(args, "detach-keys"), err);
        attachment_finish(&attachment);
        return r;
}
