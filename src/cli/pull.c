#include "cli/pull.h"

#include <errno.h>
#include <json-c/json_object.h>
#include <stdio.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/str.h"
#include "cli/credentials.h"
#include "cli/daemon.h"
#include "cli/field.h"
#include "cli/progress.h"
#include "cli/terminal.h"
#include "cli/units.h"

const struct option pull_options[] = {
        { .name = "all-tags",
          .letter = 'a',
          .kind = OPTION_BOOL,
          .help = "Download every tag of the repository" },
        { .name = "platform",
          .kind = OPTION_TEXT,
          .help = "Platform to choose, where there are several (OS/ARCH)" },
        { .name = "quiet",
          .letter = 'q',
          .kind = OPTION_BOOL,
          .help = "Print only the name of the image" },
        { 0 },
};

const struct option push_options[] = {
        { .name = "all-tags",
          .letter = 'a',
          .kind = OPTION_BOOL,
          .help = "Upload every tag of the repository" },
        { .name = "platform", .kind = OPTION_TEXT, .help = "Platform to upload (OS/ARCH)" },
        { .name = "quiet",
          .letter = 'q',
          .kind = OPTION_BOOL,
          .help = "Print only the name of the image" },
        { 0 },
};

int image_pull(struct cli *cli, const struct image_name *name, const char *platform, bool all,
               int fd, struct err *err)
{
        auto_buf target = { 0 };
        auto_exchange exchange = NULL;
        auto_free char *familiar = image_name_familiar(name);
        auto_free char *login = credentials_header(cli, name->domain);
        char *headers[] = { login, NULL };
        target_set(&target, "/images/create");
        target_add(&target, "fromImage", familiar);
        if (!all)
                target_add(&target, "tag",
                           name->digest ? name->digest
                           : name->tag  ? name->tag
                                        : "latest");
        if (!str_empty(platform))
                target_add(&target, "platform", platform);
        int r = daemon_begin(cli, "POST", &target, headers, NULL, &exchange, err);
        return r < 0 ? r : progress_show(exchange, fd, NULL, NULL, err);
}

int cmd_pull(struct cli *cli, const struct args *args, struct err *err)
{
        auto_image_name name = { 0 };
        bool all = args_bool(args, "all-tags"), quiet = args_bool(args, "quiet");
        int r = image_name_parse(args->rest[0], &name, err);
        if (r < 0)
                return r;
        if (all && (name.tag || name.digest))
                return err_plain(err, EINVAL, "tag can't be used with --all-tags/-a");
        if (!all && !name.tag && !name.digest) {
                name.tag = xstrdup("latest");
                if (!quiet)
                        printf("Using default tag: latest\n");
        }
        fflush(stdout);
        r = image_pull(cli, &name, args_text(args, "platform"), all, quiet ? -1 : STDOUT_FILENO,
                       err);
        if (r < 0)
                return r;
        printf("%s/%s%s%s%s%s\n", name.domain, name.path, name.tag ? ":" : "",
               name.tag ? name.tag : "", name.digest ? "@" : "", name.digest ? name.digest : "");
        return 0;
}

int cmd_push(struct cli *cli, const struct args *args, struct err *err)
{
        auto_image_name name = { 0 };
        auto_buf target = { 0 };
        auto_exchange exchange = NULL;
        bool all = args_bool(args, "all-tags"), quiet = args_bool(args, "quiet");
        int r = image_name_parse(args->rest[0], &name, err);
        if (r < 0)
                return r;
        if (all && (name.tag || name.digest))
                return err_plain(err, EINVAL, "tag can't be used with --all-tags/-a");
        if (!all && !name.tag) {
                name.tag = xstrdup("latest");
                if (!quiet)
                        printf("Using default tag: latest\n");
        }
        fflush(stdout);
        auto_free char *familiar = image_name_familiar(&name);
        auto_free char *login = credentials_header(cli, name.domain);
        char *headers[] = { login, NULL };
        target_set(&target, "/images/%s/push", familiar);
        if (name.tag)
                target_add(&target, "tag", name.tag);
        if (args_text(args, "platform"))
                target_add(&target, "platform", args_text(args, "platform"));
        r = daemon_begin(cli, "POST", &target, headers, NULL, &exchange, err);
        if (r == 0)
                r = progress_show(exchange, quiet ? -1 : STDOUT_FILENO, NULL, NULL, err);
        if (r < 0)
                return r;
        if (quiet)
                printf("%s/%s%s%s\n", name.domain, name.path, name.tag ? ":" : "",
                       name.tag ? name.tag : "");
        return 0;
}
