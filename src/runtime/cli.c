#include "runtime/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/log.h"
#include "base/str.h"
#include "oci/runtime_spec.h"

#define VM_NAME "isle-runtime-vm" /* called so, it has --vm: engines name programs, not flags */

static const struct cli_command commands[] = {
        { "create", "[flags]", "ID", "create a container", cli_create },
        { "run", "[flags]", "ID", "create and run a container", cli_run },
        { "start", "", "ID", "run the program of a created container", cli_start },
        { "state", "", "ID", "print a container's state as JSON", cli_state },
        { "kill", "[--all] [--regex]", "ID [SIGNAL]", "send a signal (default TERM)", cli_kill },
        { "delete", "[--force] [--regex]", "ID", "delete a stopped container", cli_delete },
        { "list", "[--quiet] [--format table|json]", "", "list containers", cli_list },
        { "exec", "[flags]", "ID COMMAND [ARG...]", "run one more process", cli_exec },
        { "ps", "[--format table|json]", "ID [PS OPTION...]", "list processes", cli_ps },
        { "extract", "[flags]", "ID DIRECTORY", "unpack an archive in a virtual machine",
          cli_extract },
        { "archive", "[flags]", "ID PATH", "a file of a virtual machine as an archive",
          cli_archive },
        { "pause", "", "ID", "suspend all processes", cli_pause },
        { "resume", "", "ID", "resume all processes", cli_resume },
        { "update", "[flags]", "ID", "change resource limits", cli_update },
        { "mounts", "", "add|remove ID FILE", "change mounts of a running container", cli_mounts },
        { "events", "[--stats] [--interval 5s]", "ID", "print events and statistics", cli_events },
        { "spec", "[--bundle DIR] [--file NAME] [--rootless]", "", "write an example config.json",
          cli_spec },
        { "features", "", "", "print what is supported as JSON", cli_features },
        { "checkpoint", "[flags]", "ID", "write its processes to images, and end it",
          cli_checkpoint },
        { "restore", "[flags]", "ID", "make a container from such images", cli_restore },
};

enum {
        FLAG_ROOT = 1000,
        FLAG_LOG,
        FLAG_LOG_FORMAT,
        FLAG_LOG_LEVEL,
        FLAG_SYSTEMD,
        FLAG_MANAGER,
        FLAG_ROOTLESS,
        FLAG_CRIU,
        FLAG_DEBUG,
        FLAG_VM,
};

static const struct option global_options[] = {
        { "root", required_argument, NULL, FLAG_ROOT },
        { "log", required_argument, NULL, FLAG_LOG },
        { "log-format", required_argument, NULL, FLAG_LOG_FORMAT },
        { "log-level", required_argument, NULL, FLAG_LOG_LEVEL },
        { "systemd-cgroup", no_argument, NULL, FLAG_SYSTEMD },
        { "cgroup-manager", required_argument, NULL, FLAG_MANAGER },
        { "rootless", required_argument, NULL, FLAG_ROOTLESS },
        { "criu", required_argument, NULL, FLAG_CRIU },
        { "vm", no_argument, NULL, FLAG_VM },
        { "debug", no_argument, NULL, FLAG_DEBUG },
        { "help", no_argument, NULL, 'h' },
        { "version", no_argument, NULL, 'v' },
        { NULL, 0, NULL, 0 },
};

/* getopt's own message cannot be had; this one names the flag as it was typed. */
int cli_next(int argc, char **argv, const char *shorts, const struct option *longs, struct err *err)
{
        int index = optind ? optind : 1; /* 0 makes getopt start anew */
        opterr = 0;
        int flag = getopt_long(argc, argv, shorts, longs, NULL);
        if (flag == ':')
                err_plain(err, EINVAL, "flag needs an argument: %s", argv[optind - 1]);
        if (flag == '?') {
                if (optopt && optopt < 256)
                        err_plain(err, EINVAL, "flag provided but not defined: -%c", optopt);
                else
                        err_plain(err, EINVAL, "flag provided but not defined: %s",
                                  argv[index < argc ? index : argc - 1]);
        }
        return flag == ':' ? '?' : flag;
}

int cli_expect(int argc, char **argv, int count, bool more, struct err *err)
{
        int left = argc - optind;
        if (left < count)
                return err_plain(err, EINVAL, "\"%s\" requires %s %d argument(s)", argv[0],
                                 more ? "a minimum of" : "exactly", count);
        if (left > count && !more)
                return err_plain(err, EINVAL, "\"%s\" requires exactly %d argument(s)", argv[0],
                                 count);
        return 0;
}

int cli_machine_place(const struct cli *cli, int argc, char **argv, const char *instead,
                      struct machine_place *place, struct err *err)
{
        int r = cli_expect(argc, argv, 2, false, err);
        if (r < 0)
                return r;
        place->root = cli->root;
        place->id = argv[optind];
        place->path = argv[optind + 1];
        if (!place->name)
                place->name = place->id;
        if (!state_has_machine(cli->root, place->id))
                return err_plain(err, EOPNOTSUPP, "%s is for virtual machines, and %s is none; %s",
                                 argv[0], place->id, instead);
        return 0;
}

char *cli_absolute(const char *path)
{
        if (!path || *path == '/')
                return path ? xstrdup(path) : NULL;
        auto_free char *here = realpath(".", NULL);
        return xasprintf("%s/%s", here ? here : ".", path);
}

int cli_refuse_machine(const struct cli *cli, const char *verb, const char *id, struct err *err)
{
        if (!state_has_machine(cli->root, id))
                return 0;
        return err_plain(err, EOPNOTSUPP,
                         "%s is not supported yet for %s, which runs in a virtual machine", verb,
                         id);
}

struct globals {
        struct cli cli;
        struct log_settings log;
        int log_fd;
        bool done; /* help or version was printed */
};

static enum log_style text_style(enum cli_dialect dialect)
{
        return dialect == CLI_RUNC ? LOG_STYLE_FIELDS : LOG_STYLE_TEXT;
}

static int set_log_format(const char *text, struct globals *globals, struct err *err)
{
        if (streq(text, "json"))
                globals->log.style = LOG_STYLE_JSON;
        else if (streq(text, "text") || *text == '\0')
                globals->log.style = text_style(globals->cli.dialect);
        else
                return err_plain(err, EINVAL, "invalid log-format: %s", text);
        return 0;
}

/* crun's "file:/path" and "journald:" forms too; the latter is standard error. */
static int open_log(struct globals *globals, struct err *err)
{
        const char *path = globals->cli.log_path;
        if (!path || str_starts(path, "journald:"))
                return 0;
        const char *file = str_after(path, "file:");
        globals->log_fd = open(file ? file : path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        if (globals->log_fd < 0)
                return err_set(err, errno, "open log '%s'", path);
        globals->log.fd = globals->log_fd;
        globals->log.program = NULL;
        return 0;
}

static int one_global(int flag, struct globals *globals, struct err *err)
{
        switch (flag) {
        case FLAG_ROOT:
                globals->cli.root = optarg;
                return 0;
        case FLAG_LOG:
                globals->cli.log_path = optarg;
                return 0;
        case FLAG_LOG_FORMAT:
                return set_log_format(optarg, globals, err);
        case FLAG_LOG_LEVEL:
                if (log_level_parse(optarg, &globals->log.level) < 0)
                        return err_plain(err, EINVAL, "invalid log-level: %s", optarg);
                return 0;
        case FLAG_DEBUG:
                globals->log.level = LOG_LEVEL_DEBUG;
                return 0;
        case FLAG_VM:
                globals->cli.vm = true;
                return 0;
        case FLAG_SYSTEMD:
                globals->cli.systemd_cgroup = true;
                return 0;
        case FLAG_MANAGER:
                globals->cli.systemd_cgroup = streq(optarg, "systemd");
                if (globals->cli.systemd_cgroup || streq(optarg, "cgroupfs") ||
                    streq(optarg, "disabled"))
                        return 0;
                return err_plain(err, EINVAL, "unknown cgroup manager: %s", optarg);
        case FLAG_CRIU:
                globals->cli.criu = optarg;
                return 0;
        case FLAG_ROOTLESS:
                return 0;
        case 'h':
                cli_print_help(globals->cli.dialect, commands, ELEMENTS(commands));
                globals->done = true;
                return 0;
        case 'v':
        case 'V': /* crun's */
                cli_print_version(&globals->cli);
                globals->done = true;
                return 0;
        default:
                return -EINVAL;
        }
}

static int parse_globals(int argc, char **argv, struct globals *globals, struct err *err)
{
        int flag;
        while (!globals->done &&
               (flag = cli_next(argc, argv, "+:hvV", global_options, err)) != -1) {
                int r = one_global(flag, globals, err);
                if (r < 0)
                        return r;
        }
        return globals->done ? 0 : open_log(globals, err);
}

static const struct cli_command *find_command(const char *name)
{
        for (size_t i = 0; i < ELEMENTS(commands); i++)
                if (streq(commands[i].name, name))
                        return &commands[i];
        return NULL;
}

/* Descriptors 0 to 2 are open, or what we open ourselves would take their place. */
static void open_standard_fds(void)
{
        for (int fd = 0; fd < 3; fd++)
                if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd)
                        abort();
}

static int run_command(struct globals *globals, int argc, char **argv, int *ret_code,
                       struct err *err)
{
        enum cli_dialect dialect = globals->cli.dialect;
        if (argc == 0 || streq(argv[0], "help")) {
                cli_print_help(dialect, commands, ELEMENTS(commands));
                return 0;
        }
        const struct cli_command *command = find_command(argv[0]);
        if (!command && dialect == CLI_RUNC)
                return err_plain(err, EINVAL, "No help topic for '%s'", argv[0]);
        if (!command)
                return err_plain(err, EINVAL, "unknown command %s; see %s --help", argv[0],
                                 cli_name(dialect));
        if (argc > 1 && (streq(argv[1], "--help") || streq(argv[1], "-h"))) {
                cli_print_command_help(dialect, command);
                return 0;
        }
        optind = 0;
        return command->run(&globals->cli, argc, argv, ret_code, err);
}

static const char *base_name(const char *path)
{
        const char *slash = strrchr(path, '/');
        return slash ? slash + 1 : path;
}

int runtime_main(int argc, char **argv, const struct runtime_vm *machines)
{
        struct err err = { 0 };
        uint32_t channel;
        if (argc == 3 && streq(argv[1], "vm-shim") && str_to_u32(argv[2], &channel) == 0)
                machines->shim((int)channel);
        enum cli_dialect dialect = cli_dialect_of(base_name(argv[0]));
        struct globals globals = {
                .cli = { .dialect = dialect,
                         .root = getenv("ISLE_RUNTIME_ROOT"),
                         .argv = argv,
                         .machines = machines,
                         .vm = streq(base_name(argv[0]), VM_NAME) },
                .log = { .fd = 2,
                         .level = LOG_LEVEL_INFO,
                         .program = cli_name(dialect),
                         .style = text_style(dialect) },
                .log_fd = -1,
        };
        int code = 0;
        open_standard_fds();
        umask(022); /* the modes of what we make are ours to choose */
        if (str_empty(globals.cli.root))
                globals.cli.root = CLI_DEFAULT_ROOT;
        int r = parse_globals(argc, argv, &globals, &err);
        log_configure(&globals.log);
        if (r == 0 && !globals.done) {
                int first = optind;
                r = run_command(&globals, argc - first, argv + first, &code, &err);
        }
        if (r == 0 && fflush(stdout) != 0)
                r = err_set(&err, errno, "write standard output");
        if (r == 0)
                return code;
        log_error("%s", err_text(&err));
        if (globals.log_fd >= 0)
                fprintf(stderr, "%s\n", err_text(&err));
        return code ? code : 1;
}
