#include <errno.h>
#include <fcntl.h>
#include <json-c/json_object.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"
#include "cli/attachment.h"
#include "cli/command.h"
#include "cli/daemon.h"
#include "cli/field.h"
#include "cli/pull.h"
#include "cli/reference.h"
#include "cli/spec.h"
#include "cli/terminal.h"
#include "codec/json.h"

/* Theory of operation.
 *
 * `run` is four requests: create, attach, wait, start. They go over three
 * connections: create and start (and resize, kill) share one that is kept alive;
 * attach becomes the stream; wait stays open until the process has exited. Attach
 * and wait are there before start, so that neither output nor exit is missed
 * however short the process lives. When the stream ends, the answer to wait is
 * the exit status.
 */

#define EXIT_CANNOT_EXECUTE 126
#define EXIT_NOT_FOUND      127

/* --- creating --- */

static int request_create(struct cli *cli, const struct args *args, struct json_object *body,
                          struct json_object **ret, struct err *err)
{
        auto_buf target = { 0 };
        target_set(&target, "/containers/create");
        if (args_text(args, "name"))
                target_add(&target, "name", args_text(args, "name"));
        if (args_text(args, "platform"))
                target_add(&target, "platform", args_text(args, "platform"));
        return daemon_call(cli, "POST", &target, body, ret, err);
}

static int pull_for_create(struct cli *cli, const struct args *args, const struct image_name *name,
                           bool missing, struct err *err)
{
        bool quiet = args_bool(args, "quiet");
        auto_free char *full = image_name_full(name);
        if (missing && !quiet)
                fprintf(stderr, "Unable to find image '%s' locally\n", full);
        return image_pull(cli, name, args_text(args, "platform"), false, quiet ? -1 : STDERR_FILENO,
                          err);
}

/* Does a 404 mean the image (and not, say, a container named by --volumes-from)? */
static bool image_missing(const struct cli *cli, const struct err *err)
{
        return cli->http_status == 404 && strstr(err_text(err), "No such image");
}

static int check_pull(const char *when, struct err *err)
{
        if (streq(when, "always") || streq(when, "missing") || streq(when, "never"))
                return 0;
        return err_plain(err, EINVAL,
                         "invalid pull option: '%s': must be one of \"always\", \"missing\" or "
                         "\"never\"",
                         when);
}

static int create_pulling(struct cli *cli, const struct args *args, struct json_object *body,
                          struct json_object **ret, struct err *err)
{
        const char *when = args_text(args, "pull"), *image = args->rest[0];
        auto_image_name name = { 0 };
        int r = check_pull(when, err);
        if (r == 0 && !image_name_is_id(image))
                r = image_name_parse(image, &name, err);
        if (r == 0 && streq(when, "always") && name.path)
                r = pull_for_create(cli, args, &name, false, err);
        if (r < 0)
                return r;
        r = request_create(cli, args, body, ret, err);
        if (r < 0 && streq(when, "missing") && name.path && image_missing(cli, err)) {
                r = pull_for_create(cli, args, &name, true, err);
                if (r == 0)
                        r = request_create(cli, args, body, ret, err);
        }
        return r;
}

/* Refuses to overwrite the --cidfile before anything is created. */
static int cidfile_open(const struct args *args, int *ret_fd, struct err *err)
{
        const char *path = args_text(args, "cidfile");
        if (!path)
                return 0;
        auto_fd fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        if (fd < 0 && errno == EEXIST)
                return err_plain(err, EEXIST,
                                 "container ID file found, make sure the other container isn't "
                                 "running or delete %s",
                                 path);
        if (fd < 0)
                return err_set(err, errno, "create the container ID file %s", path);
        *ret_fd = take_fd(fd);
        return 0;
}

static void print_warnings(struct json_object *answer)
{
        struct json_object *warnings = field_get(answer, "Warnings");
        for (size_t i = 0; i < field_length(answer, "Warnings"); i++)
                fprintf(stderr, "WARNING: %s\n",
                        json_object_get_string(json_object_array_get_idx(warnings, i)));
}

static int container_create(struct cli *cli, const struct args *args, struct json_object *body,
                            char **ret_id, struct err *err)
{
        auto_json answer = NULL;
        auto_fd cid_fd = -1;
        int r = cidfile_open(args, &cid_fd, err);
        if (r < 0)
                return r;
        r = create_pulling(cli, args, body, &answer, err);
        const char *id = r < 0 ? "" : field_text(answer, "Id");
        if (r == 0 && !*id)
                r = err_plain(err, EBADMSG, "the daemon created a container without an ID");
        if (r < 0) {
                if (cid_fd >= 0)
                        unlink(args_text(args, "cidfile"));
                return r;
        }
        print_warnings(answer);
        if (cid_fd >= 0)
                io_write_full(cid_fd, id, strlen(id));
        *ret_id = xstrdup(id);
        return 0;
}

/* A mistake in the options that only showed when they were put together. */
static int bad_options(const struct cli *cli, const struct err *err)
{
        fprintf(stderr, "isle: %s\nSee 'isle %s --help'.\n", err_text(err), cli->path);
        return EXIT_USAGE;
}

int cmd_create(struct cli *cli, const struct args *args, struct err *err)
{
        auto_json body = NULL;
        auto_free char *id = NULL;
        int r = spec_build(args, &body, err);
        if (r < 0)
                return bad_options(cli, err);
        r = container_create(cli, args, body, &id, err);
        if (r < 0)
                return r;
        puts(id);
        return 0;
}

/* --- running --- */

/* 126 or 127 where the process could not be executed; 125 for all else. */
static int start_status(const struct err *err)
{
        const char *text = err_text(err);
        if (strstr(text, "executable file not found") || strstr(text, "no such file or directory"))
                return EXIT_NOT_FOUND;
        if (strstr(text, "permission denied") || strstr(text, "is a directory") ||
            strstr(text, "exec format error"))
                return EXIT_CANNOT_EXECUTE;
        return EXIT_USAGE;
}

static int start_container(struct cli *cli, const char *id, struct err *err)
{
        auto_buf target = { 0 };
        target_set(&target, "/containers/%s/start", id);
        return daemon_call(cli, "POST", &target, NULL, NULL, err);
}

static int run_detached(struct cli *cli, const struct args *args, struct json_object *body,
                        struct err *err)
{
        auto_free char *id = NULL;
        static const char *const streams[] = { "AttachStdin", "AttachStdout", "AttachStderr",
                                               "StdinOnce" };
        if (args_given(args, "attach")) {
                fprintf(stderr, "conflicting options: cannot specify both --attach and --detach\n");
                return 1;
        }
        for (size_t i = 0; i < ELEMENTS(streams); i++)
                field_set(body, streams[i], json_object_new_boolean(false));
        int r = container_create(cli, args, body, &id, err);
        if (r < 0)
                return r;
        r = start_container(cli, id, err);
        if (r < 0) {
                fprintf(stderr, "isle: %s\n", err_text(err));
                return start_status(err);
        }
        puts(id);
        return 0;
}

/* Created, attached and waited for: start, move bytes, tell the exit status. */
static int run_started(struct cli *cli, struct attachment *attachment,
                       struct http_exchange *waiting, struct err *err)
{
        enum session_end end;
        int status, r = start_container(cli, attachment->id, err);
        if (r < 0) {
                session_finish(&attachment->session);
                fprintf(stderr, "isle: %s\n", err_text(err));
                return start_status(err);
        }
        r = attachment_run(attachment, &end, err);
        if (r < 0)
                return r;
        if (end == SESSION_DETACHED)
                return 0;
        r = container_wait_finish(cli, attachment->id, waiting, &status, err);
        return r < 0 ? r : status;
}

static int run_attached(struct cli *cli, const struct args *args, struct json_object *body,
                        struct err *err)
{
        auto_free char *id = NULL;
        auto_exchange waiting = NULL;
        auto_buf target = { 0 };
        bool in = field_bool(body, "AttachStdin"), out = field_bool(body, "AttachStdout");
        bool errors = field_bool(body, "AttachStderr");
        struct attachment attachment = {
                .cli = cli,
                .resize = "/containers/%s/resize",
                .kill = "/containers/%s/kill",
                .session = {
                        .fd = -1,
                        .terminal = args_bool(args, "tty"),
                        .input_fd = in && args_bool(args, "interactive") ? STDIN_FILENO : -1,
                        .output_fd = out ? STDOUT_FILENO : -1,
                        .error_fd = errors ? STDERR_FILENO : -1,
                        .forward = args_bool(args, "sig-proxy"),
                },
        };
        int r = detach_parse(args_text(args, "detach-keys"), &attachment.session.detach, err);
        if (r < 0)
                return bad_options(cli, err);
        r = container_create(cli, args, body, &id, err);
        if (r < 0)
                return r;
        attachment.id = id;
        attachment_target(&target, id, in, out, errors, args_text(args, "detach-keys"));
        r = attachment_open(&attachment, &target, NULL, err);
        if (r == 0)
                r = container_wait_begin(cli, id, args_bool(args, "rm") ? "removed" : "next-exit",
                                         &waiting, err);
        if (r == 0)
                r = run_started(cli, &attachment, waiting, err);
        attachment_finish(&attachment);
        return r;
}

int cmd_run(struct cli *cli, const struct args *args, struct err *err)
{
        auto_json body = NULL;
        int r = spec_build(args, &body, err);
        if (r < 0)
                return bad_options(cli, err);
        if (args_bool(args, "detach"))
                return run_detached(cli, args, body, err);
        if (args_bool(args, "tty") && field_bool(body, "AttachStdin") &&
            !terminal_is(STDIN_FILENO)) {
                fprintf(stderr, "the input device is not a TTY\n");
                return 1;
        }
        return run_attached(cli, args, body, err);
}
