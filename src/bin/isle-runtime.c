/* isle-runtime: the OCI runtime's command line. All of it is in src/runtime, and what
 * --vm does in src/guest. */
#include "guest/guest.h"
#include "runtime/cli.h"

int main(int argc, char **argv)
{
        static const struct runtime_vm vm = {
                .create = guest_create,
                .run = guest_run,
                .exec = guest_exec,
                .start = guest_start,
                .resume = guest_resume,
                .remove = guest_delete,
                .ps = guest_ps,
                .update = guest_update,
                .extract = guest_extract,
                .archive = guest_archive,
                .shim = shim_main,
        };
        return runtime_main(argc, argv, &vm);
}
