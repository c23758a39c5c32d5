/* Commands that move whole archives: save, load, import, export. */
#include <errno.h>
#include <fcntl.h>
#include <json-c/json_object.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/str.h"
#include "cli/command.h"
#include "cli/daemon.h"
#include "cli/field.h"
#include "cli/progress.h"
#include "cli/reference.h"
#include "cli/terminal.h"
#include "codec/json.h"

#define CHUNK_SIZE 65536

const struct option save_options[] = {
        { .name = "output",
          .letter = 'o',
          .kind = OPTION_TEXT,
          .help = "Write to a file instead of standard output",
          .completion = COMPLETE_FILE },
        { 0 },
};

const struct option export_options[] = {
        { .name = "output",
          .letter = 'o',
          .kind = OPTION_TEXT,
          .help = "Write to a file instead of standard output",
          .completion = COMPLETE_FILE },
        { 0 },
};

const struct option load_options[] = {
        { .name = "input",
          .letter = 'i',
          .kind = OPTION_TEXT,
          .help = "Read from a file instead of standard input",
          .completion = COMPLETE_FILE },
        { .name = "quiet", .letter = 'q', .kind = OPTION_BOOL, .help = "Show no progress" },
        { 0 },
};

const struct option import_options[] = {
        { .name = "change",
          .letter = 'c',
          .kind = OPTION_LIST,
          .help = "Apply a Dockerfile instruction to the image" },
        { .name = "message", .letter = 'm', .kind = OPTION_TEXT, .help = "Comment of the image" },
        { .name = "platform", .kind = OPTION_TEXT, .help = "Platform of the image (OS/ARCH)" },
        { 0 },
};

/* --- down --- */

/* Copies the reply into a file that appears only when it is whole. */
static int copy_to_file(struct http_exchange *exchange, const char *path, struct err *err)
{
        auto_free char *part = xasprintf("%s.part-%d", path, (int)getpid());
        struct stat st;
        bool regular = stat(path, &st) < 0 || S_ISREG(st.st_mode);
        const char *name = regular ? part : path;
        auto_fd fd = open(name, O_WRONLY | O_CREAT | O_CLOEXEC | (regular ? O_EXCL : 0), 0600);
        if (fd < 0)
                return err_set(err, errno, "failed to write to output file %s", path);
        int r = daemon_copy_body(exchange, fd, err);
        if (r == 0 && regular && rename(part, path) < 0)
                r = err_set(err, errno, "rename %s", part);
        if (r < 0 && regular)
                unlink(part);
        return r;
}

static int download(struct cli *cli, const struct buf *target, const char *output, const char *what,
                    struct err *err)
{
        auto_exchange exchange = NULL;
        struct stat st;
        if (!output && terminal_is(STDOUT_FILENO))
                return err_plain(err, EINVAL,
                                 "cowardly refusing to %s to a terminal. Use the -o flag or "
                                 "redirect",
                                 what);
        if (output && stat(output, &st) == 0 && S_ISDIR(st.st_mode))
                return err_plain(err, EISDIR, "failed to write to output file %s: is a directory",
                                 output);
        int r = daemon_begin(cli, "GET", target, NULL, NULL, &exchange, err);
        if (r < 0)
                return r;
        return output ? copy_to_file(exchange, output, err)
                      : daemon_copy_body(exchange, STDOUT_FILENO, err);
}

int cmd_save(struct cli *cli, const struct args *args, struct err *err)
{
        auto_buf target = { 0 };
        target_set(&target, "/images/get");
        for (char **name = args->rest; *name; name++)
                target_add(&target, "names", *name);
        return download(cli, &target, args_text(args, "output"), "save", err);
}

int cmd_export(struct cli *cli, const struct args *args, struct err *err)
{
        auto_buf target = { 0 };
        target_set(&target, "/containers/%s/export", args->rest[0]);
        return download(cli, &target, args_text(args, "output"), "export", err);
}

/* --- up --- */

static int send_file(struct http_exchange *exchange, int fd, const char *name, struct err *err)
{
        static char chunk[CHUNK_SIZE];
        for (;;) {
                ssize_t n = read(fd, chunk, sizeof(chunk));
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return err_set(err, errno, "read %s", name);
                int r = n ? http_exchange_write(exchange, chunk, (size_t)n, err)
                          : http_exchange_write_end(exchange, err);
                if (r == -EPIPE) /* it answered already */
                        return 0;
                if (r < 0 || n == 0)
                        return r;
        }
}

static int upload(struct cli *cli, const struct buf *target, int fd, const char *name, bool quiet,
                  struct err *err)
{
        auto_exchange exchange = NULL;
        char *headers[] = { "Content-Type: application/x-tar", NULL };
        int r = daemon_upload(cli, "POST", target, headers, &exchange, err);
        if (r == 0)
                r = send_file(exchange, fd, name, err);
        if (r == 0)
                r = daemon_check(cli, exchange, err);
        if (r < 0)
                return r;
        return progress_show(exchange, quiet ? -1 : STDOUT_FILENO, NULL, NULL, err);
}

int cmd_load(struct cli *cli, const struct args *args, struct err *err)
{
        auto_buf target = { 0 };
        const char *input = args_text(args, "input");
        auto_fd fd = -1;
        bool quiet = args_bool(args, "quiet") || !terminal_is(STDOUT_FILENO);
        if (!input && terminal_is(STDIN_FILENO))
                return err_plain(err, EINVAL, "requested load from stdin, but stdin is empty");
        if (input) {
                fd = open(input, O_RDONLY | O_CLOEXEC);
                if (fd < 0)
                        return err_set(err, errno, "open %s", input);
        }
        target_set(&target, "/images/load");
        target_add(&target, "quiet", quiet ? "1" : "0");
        return upload(cli, &target, fd >= 0 ? fd : STDIN_FILENO, input ? input : "standard input",
                      false, err);
}

int cmd_import(struct cli *cli, const struct args *args, struct err *err)
{
        auto_buf target = { 0 };
        auto_fd fd = -1;
        const char *source = args->rest[0];
        bool remote = str_starts(source, "http://") || str_starts(source, "https://");
        bool standard = streq(source, "-");
        if (!remote && !standard) {
                fd = open(source, O_RDONLY | O_CLOEXEC);
                if (fd < 0)
                        return err_set(err, errno, "open %s", source);
        }
        target_set(&target, "/images/create");
        target_add(&target, "fromSrc", remote ? source : "-");
        if (args->length > 1) {
                auto_image_name name = { 0 };
                int r = image_name_parse(args->rest[1], &name, err);
                if (r < 0)
                        return r;
                auto_free char *familiar = image_name_familiar(&name);
                target_add(&target, "repo", familiar);
                target_add(&target, "tag", name.tag ? name.tag : "latest");
        }
        if (args_text(args, "message"))
                target_add(&target, "message", args_text(args, "message"));
        if (args_text(args, "platform"))
                target_add(&target, "platform", args_text(args, "platform"));
        for (char *const *change = args_list(args, "change"); *change; change++)
                target_add(&target, "changes", *change);
        if (remote) {
                auto_exchange exchange = NULL;
                int r = daemon_begin(cli, "POST", &target, NULL, NULL, &exchange, err);
                return r < 0 ? r : progress_show(exchange, STDOUT_FILENO, NULL, NULL, err);
        }
        return upload(cli, &target, standard ? STDIN_FILENO : fd,
                      standard ? "standard input" : source, false, err);
}
