/* isle-runtime: the OCI runtime's command line. All of it is in src/runtime. */
#include "runtime/cli.h"

int main(int argc, char **argv)
{
        return runtime_main(argc, argv);
}
