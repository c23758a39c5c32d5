/* Help and version, as the program speaks under which name it was called. */
#include <stdio.h>
#include <string.h>

#include "base/auto.h"
#include "base/str.h"
#include "oci/runtime_spec.h"
#include "runtime/cli.h"
#include "runtime/criu.h"

#define COMMIT "isle_" ISLE_VERSION /* there is no other program under that name to tell apart */

static const char global_flags[] =
        "  --root DIR              state directory (default " CLI_DEFAULT_ROOT ")\n"
        "  --log FILE              write errors there too\n"
        "  --log-format text|json  of the log\n"
        "  --log-level LEVEL       error, warning, info, debug\n"
        "  --debug                 the same as --log-level debug\n"
        "  --cgroup-manager NAME   cgroupfs (default) or systemd\n"
        "  --systemd-cgroup        the same as --cgroup-manager systemd\n"
        "  --vm                    create, run: in a virtual machine\n"
        "  --criu PROGRAM          for checkpoint and restore (default criu, in PATH)\n"
        "  --rootless BOOL|auto    accepted; found out by itself\n"
        "  -v, --version\n  -h, --help\n";

enum cli_dialect cli_dialect_of(const char *name)
{
        return streq(name, "runc") ? CLI_RUNC : streq(name, "crun") ? CLI_CRUN : CLI_ISLE;
}

const char *cli_name(enum cli_dialect dialect)
{
        static const char *const names[] = {
                [CLI_ISLE] = "isle-runtime", [CLI_RUNC] = "runc", [CLI_CRUN] = "crun"
        };
        return names[dialect];
}

/* The words of an arguments column as each of the programs has them. */
static void print_arguments(enum cli_dialect dialect, const char *arguments)
{
        static const struct {
                const char *ours, *by[3];
        } words[] = {
                { "ID", { "ID", "<container-id>", "CONTAINER" } },
                { "COMMAND", { "COMMAND", "<command>", "cmd" } },
        };
        auto_strv parts = str_split(arguments, ' ');
        for (char **part = parts; *part && **part; part++) {
                const char *word = *part;
                for (size_t i = 0; i < ELEMENTS(words); i++)
                        if (streq(word, words[i].ours))
                                word = words[i].by[dialect];
                printf(" %s", word);
        }
        putchar('\n');
}

void cli_print_command_help(enum cli_dialect dialect, const struct cli_command *command)
{
        const char *space = *command->flags ? " " : "";
        switch (dialect) {
        case CLI_RUNC:
                printf("NAME:\n   runc %s - %s\n\nUSAGE:\n   runc %s%s%s", command->name,
                       command->help, command->name, space, command->flags);
                break;
        case CLI_CRUN:
                printf("Usage: crun [OPTION...] %s", command->name);
                break;
        case CLI_ISLE:
                printf("Usage: isle-runtime %s%s%s", command->name, space, command->flags);
                break;
        }
        print_arguments(dialect, command->arguments);
        if (dialect == CLI_CRUN && *command->flags)
                printf("Options: %s\n", command->flags);
        if (dialect != CLI_RUNC)
                printf("%s\n", command->help);
}

void cli_print_help(enum cli_dialect dialect, const struct cli_command *commands, size_t length)
{
        static const char *const heads[] = {
                [CLI_ISLE] = "isle-runtime - OCI container runtime\n\n"
                             "Usage: isle-runtime [global flags] COMMAND [flags] [arguments]\n\n"
                             "Commands:\n",
                [CLI_RUNC] = "NAME:\n   runc - Open Container Initiative runtime\n\nUSAGE:\n"
                             "   runc [global options] command [command options] [arguments...]\n\n"
                             "VERSION:\n   " ISLE_VERSION " (isle-runtime)\n\nCOMMANDS:\n",
                [CLI_CRUN] = "Usage: crun [OPTION...] COMMAND [OPTION...]\n\nCOMMANDS:\n",
        };
        fputs(heads[dialect], stdout);
        for (size_t i = 0; i < length; i++) {
                const struct cli_command *command = &commands[i];
                auto_free char *usage = xasprintf("%s%s%s", command->flags,
                                                  *command->flags ? " " : "", command->arguments);
                if (dialect == CLI_CRUN)
                        printf("\t%-11s - %s\n", command->name, command->help);
                else if (dialect == CLI_RUNC)
                        printf("   %-11s %s\n", command->name, command->help);
                else
                        printf("  %-11s %-38s %s\n", command->name, usage, command->help);
        }
        printf("\n%s:\n%s", dialect == CLI_RUNC ? "GLOBAL OPTIONS" : "Global flags", global_flags);
}

/* What crun lists with a plus, where it is here. */
static void print_parts(const char *criu_program)
{
        printf("+SYSTEMD +SELINUX +APPARMOR +CAP +SECCOMP +EBPF%s\n",
               criu_is_there(criu_program) ? " +CRIU" : "");
}

void cli_print_version(const struct cli *cli)
{
        printf("%s version %s\n", cli_name(cli->dialect), ISLE_VERSION);
        if (cli->dialect != CLI_ISLE)
                printf("commit: " COMMIT "\n");
        if (cli->dialect == CLI_CRUN)
                printf("rundir: %s\n", cli->root);
        printf("spec: %s\n", OCI_RUNTIME_SPEC_VERSION);
        if (cli->dialect == CLI_CRUN)
                print_parts(cli->criu);
}
