#include <errno.h>

#include "runtime/cli.h"

int cli_archive(const struct cli *cli, int argc, char **argv, int *ret_code, struct err *err)
{
        enum { NAME = 1, LOOK };
        static const struct option longs[] = {
                { "name", required_argument, NULL, NAME },
                { "look", no_argument, NULL, LOOK },
                { NULL, 0, NULL, 0 },
        };
        struct archive_options options = { .root = cli->root };
        int flag, r = 0;
        while (r == 0 && (flag = cli_next(argc, argv, "+:", longs, err)) != -1) {
                if (flag == NAME)
                        options.name = optarg;
                else if (flag == LOOK)
                        options.look = true;
                else
                        r = -EINVAL;
        }
        if (r == 0)
                r = cli_expect(argc, argv, 2, false, err);
        if (r < 0)
                return r;
        options.id = argv[optind];
        options.path = argv[optind + 1];
        if (!options.name)
                options.name = options.id;
        if (!state_has_machine(cli->root, options.id))
                return err_plain(err, EOPNOTSUPP,
                                 "archive is for virtual machines, and %s is none; archive its "
                                 "root",
                                 options.id);
        r = cli->machines->archive(&options, err);
        *ret_code = -r; /* to an engine the text says nothing */
        return r;
}
