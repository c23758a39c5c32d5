#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/str.h"
#include "cli/command.h"
#include "http/client.h"

#define HOST_DEFAULT "unix:///run/isle/docker.sock"

static void cli_finish(struct cli *cli)
{
        http_client_destroy(cli->client);
        free(cli->host);
        free(cli->config_dir);
        free((char *)cli->path);
}

static const char *first_set(const char *a, const char *b, const char *c, const char *d)
{
        return !str_empty(a) ? a : !str_empty(b) ? b : !str_empty(c) ? c : d;
}

static void cli_init(struct cli *cli, const struct args *globals)
{
        const char *named = first_set(args_text(globals, "config"), getenv("ISLE_CONFIG"), NULL,
                                      "");
        cli->host = xstrdup(first_set(args_text(globals, "host"), getenv("ISLE_HOST"),
                                      getenv("DOCKER_HOST"), HOST_DEFAULT));
        cli->config_named = *named;
        cli->config_dir = *named ? xstrdup(named)
                                 : xasprintf("%s/.isle",
                                             first_set(getenv("HOME"), NULL, NULL, "/root"));
}

/* How many arguments a command wants, as docker says it. */
static int check_count(const struct cli *cli, const struct args *args, struct err *err)
{
        const struct command *command = cli->command;
        size_t least = command->least, most = command->most;
        if (args->length >= least && args->length <= most)
                return 0;
        if (most == 0)
                return err_plain(err, EINVAL, "'isle %s' accepts no arguments", cli->path);
        const char *how = least == most ? "" : args->length < least ? "at least " : "at most ";
        size_t wanted = args->length < least ? least : most;
        return err_plain(err, EINVAL, "'isle %s' requires %s%zu argument%s", cli->path, how, wanted,
                         wanted == 1 ? "" : "s");
}

/* Output that cannot be written is a failure, even if it only shows at the end. */
static int finish_output(int status)
{
        if ((fflush(stdout) == 0 && !ferror(stdout)) || errno == EPIPE || status != 0)
                return status;
        fprintf(stderr, "isle: write to standard output: %s\n", strerror(errno));
        return 1;
}

static int run_command(struct cli *cli, int argc, char **argv)
{
        const struct command *command = cli->command;
        auto_args args = { 0 };
        struct err err = { 0 };
        char *separator[] = { "--", NULL };
        int r;
        if (command->flags & COMMAND_RAW) {
                r = args_parse(command->options, true, 1, separator, &args, &err);
                args.rest = xrealloc(args.rest, (size_t)argc + 1, sizeof(char *));
                memcpy(args.rest, argv, ((size_t)argc + 1) * sizeof(char *));
                args.length = (size_t)argc;
        } else {
                r = args_parse(command->options, command->flags & COMMAND_STOP_EARLY, argc, argv,
                               &args, &err);
        }
        if (r < 0) {
                fprintf(stderr, "%s\nSee 'isle %s --help'.\n", err_text(&err), cli->path);
                return EXIT_USAGE;
        }
        if (args.help) {
                usage_command(command, cli->path);
                return 0;
        }
        if (check_count(cli, &args, &err) < 0) {
                fprintf(stderr, "isle: %s\nSee 'isle %s --help'.\n", err_text(&err), cli->path);
                return 1;
        }
        r = command->run(cli, &args, &err);
        if (r >= 0)
                return r;
        fflush(stdout);
        bool prefixed = command->flags & COMMAND_PREFIXED;
        fprintf(stderr, "%s%s\n", prefixed ? "isle: " : "", err_text(&err));
        return prefixed ? EXIT_USAGE : 1;
}

/* Words that are no command: a group alone, or a mistake. */
static int no_command(int argc, char **argv)
{
        const struct command_group *group = command_group_find(argv[0]);
        if (group && (argc == 1 || streq(argv[1], "--help") || streq(argv[1], "-h"))) {
                usage_group(group);
                return 0;
        }
        if (group)
                fprintf(stderr,
                        "isle: unknown command: isle %s %s\n"
                        "See 'isle %s --help'.\n",
                        argv[0], argv[1], argv[0]);
        else
                fprintf(stderr, "isle: unknown command: isle %s\nSee 'isle --help'.\n", argv[0]);
        return 1;
}

static int dispatch(struct cli *cli, int argc, char **argv)
{
        int words;
        const char *path;
        size_t length;
        bool help = streq(argv[0], "help");
        argc -= help;
        argv += help;
        if (argc == 0) {
                usage_program();
                return 0;
        }
        cli->command = command_find(argc, argv, &words, &path, &length);
        if (!cli->command)
                return no_command(argc, argv);
        cli->path = xstrndup(path, length);
        if (help) {
                usage_command(cli->command, cli->path);
                return 0;
        }
        return run_command(cli, argc - words, argv + words);
}

int cli_main(int argc, char **argv)
{
        auto_args globals = { 0 };
        struct err err = { 0 };
        signal(SIGPIPE, SIG_IGN);
        if (args_parse(global_options, true, argc - 1, argv + 1, &globals, &err) < 0) {
                fprintf(stderr, "%s\nSee 'isle --help'.\n", err_text(&err));
                return EXIT_USAGE;
        }
        if (args_bool(&globals, "version")) {
                printf("isle version " ISLE_VERSION "\n");
                return finish_output(0);
        }
        if (globals.help || globals.length == 0) {
                usage_program();
                return finish_output(0);
        }
        __attribute__((cleanup(cli_finish))) struct cli cli = { 0 };
        cli_init(&cli, &globals);
        return finish_output(dispatch(&cli, (int)globals.length, globals.rest));
}
