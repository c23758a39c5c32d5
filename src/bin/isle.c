/* isle: the command line of isled. See src/cli/command.h. */
#include "cli/command.h"

int main(int argc, char **argv)
{
        return cli_main(argc, argv);
}
