#include "cli/command.h"
const struct option cp_options[] = { { 0 } };
int cmd_cp(struct cli *cli, const struct args *args, struct err *err) { (void)cli; (void)args; return err_plain(err, 38, "cp is not there yet"); }
