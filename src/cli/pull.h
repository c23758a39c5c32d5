/* Pulling, for `pull` and for `run` and `create` that miss an image. */
#pragma once

#include "cli/command.h"
#include "cli/reference.h"

/* Pulls; progress goes to `fd` (-1: none). With `all` every tag of the name. */
int image_pull(struct cli *cli, const struct image_name *name, const char *platform, bool all,
               int fd, struct err *err);
