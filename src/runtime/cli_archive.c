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
        struct archive_options options = { 0 };
        int flag, r = 0;
        while (r == 0 && (flag = cli_next(argc, argv, "+:", longs, err)) != -1) {
                if (flag == NAME)
                        options.place.name = optarg;
                else if (flag == LOOK)
                        options.look = true;
                else
                        r = -EINVAL;
        }
        if (r == 0)
                r = cli_machine_place(cli, argc, argv, "archive its root", &options.place, err);
        if (r < 0)
                return r;
        r = cli->machines->archive(&options, err);
        *ret_code = -r; /* to an engine the text says nothing */
        return r;
}
