#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/auto.h"
#include "base/str.h"
#include "runtime/cli.h"

/* "1000:1000" */
static int parse_owner(const char *text, struct extract_options *options, struct err *err)
{
        auto_strv ids = str_split(text, ':');
        if (strv_length(ids) != 2 || str_to_u32(ids[0], &options->uid) < 0 ||
            str_to_u32(ids[1], &options->gid) < 0)
                return err_plain(err, EINVAL, "--owner '%s' is not two numbers, UID:GID", text);
        options->has_owner = true;
        return 0;
}

int cli_extract(const struct cli *cli, int argc, char **argv, int *ret_code, struct err *err)
{
        enum { OWNER = 1, NAME, NO_OVERWRITE };
        static const struct option longs[] = {
                { "owner", required_argument, NULL, OWNER },
                { "name", required_argument, NULL, NAME },
                { "no-overwrite-dir-non-dir", no_argument, NULL, NO_OVERWRITE },
                { NULL, 0, NULL, 0 },
        };
        struct extract_options options = { 0 };
        int flag, r = 0;
        while (r == 0 && (flag = cli_next(argc, argv, "+:", longs, err)) != -1) {
                if (flag == OWNER)
                        r = parse_owner(optarg, &options, err);
                else if (flag == NAME)
                        options.place.name = optarg;
                else if (flag == NO_OVERWRITE)
                        options.no_overwrite_dir_non_dir = true;
                else
                        r = -EINVAL;
        }
        if (r == 0)
                r = cli_machine_place(cli, argc, argv, "unpack the archive at its root",
                                      &options.place, err);
        if (r < 0)
                return r;
        r = cli->machines->extract(&options, err);
        *ret_code = -r; /* to an engine the text says nothing */
        return r;
}
