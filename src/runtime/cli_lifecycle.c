/* create run start kill delete pause resume exec */
#include <errno.h>
#include <regex.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/auto.h"
#include "base/log.h"
#include "base/str.h"
#include "runtime/cli.h"
#include "runtime/container.h"
#include "sys/process.h"

enum {
        FLAG_CONSOLE_SOCKET = 1000,
        FLAG_PID_FILE,
        FLAG_NO_PIVOT,
        FLAG_NO_NEW_KEYRING,
        FLAG_PRESERVE_FDS,
        FLAG_NO_SUBREAPER,
        FLAG_KEEP,
        FLAG_CWD,
        FLAG_PROCESS_LABEL,
        FLAG_APPARMOR,
        FLAG_NO_NEW_PRIVS,
        FLAG_CGROUP,
        FLAG_IGNORE_PAUSED,
};

#define LAUNCH_OPTIONS                                                                             \
        { "bundle", required_argument, NULL, 'b' }, { "config", required_argument, NULL, 'f' },    \
                { "console-socket", required_argument, NULL, FLAG_CONSOLE_SOCKET },                \
                { "pid-file", required_argument, NULL, FLAG_PID_FILE },                            \
                { "no-pivot", no_argument, NULL, FLAG_NO_PIVOT },                                  \
                { "no-new-keyring", no_argument, NULL, FLAG_NO_NEW_KEYRING },                      \
                { "preserve-fds", required_argument, NULL, FLAG_PRESERVE_FDS },                    \
        {                                                                                          \
                "no-subreaper", no_argument, NULL, FLAG_NO_SUBREAPER                               \
        }

static const struct option create_options[] = { LAUNCH_OPTIONS, { NULL, 0, NULL, 0 } };
static const struct option run_options[] = {
        LAUNCH_OPTIONS,
        { "detach", no_argument, NULL, 'd' },
        { "keep", no_argument, NULL, FLAG_KEEP },
        { NULL, 0, NULL, 0 },
};

/* With socket activation the sockets are passed on like --preserve-fds. */
static int set_preserve(const char *text, unsigned *ret, struct err *err)
{
        uint32_t count;
        if (str_to_u32(text, &count) < 0 || count > 4096)
                return err_plain(err, EINVAL, "--preserve-fds: '%s' is not a count", text);
        *ret = count;
        return 0;
}

static void add_listen_fds(unsigned *count)
{
        uint32_t sockets;
        const char *text = getenv("LISTEN_FDS");
        if (text && str_to_u32(text, &sockets) == 0 && sockets < 4096)
                *count += sockets;
}

static int launch_flag(int flag, struct launch_options *options, bool *keep, struct err *err)
{
        switch (flag) {
        case 'b':
                options->bundle = optarg;
                return 0;
        case 'f':
                options->config = optarg;
                return 0;
        case 'd':
                options->detach = true;
                return 0;
        case FLAG_CONSOLE_SOCKET:
                options->console_socket = optarg;
                return 0;
        case FLAG_PID_FILE:
                options->pid_file = optarg;
                return 0;
        case FLAG_NO_PIVOT:
                options->no_pivot = true;
                return 0;
        case FLAG_NO_NEW_KEYRING:
                options->no_new_keyring = true;
                return 0;
        case FLAG_PRESERVE_FDS:
                return set_preserve(optarg, &options->preserve_fds, err);
        case FLAG_KEEP:
                *keep = true;
                return 0;
        case FLAG_NO_SUBREAPER:
                return 0;
        default:
                return -EINVAL;
        }
}

static int launch(const struct cli *cli, int argc, char **argv, bool create, int *ret_code,
                  struct err *err)
{
        struct launch_options options = { .bundle = ".",
                                          .wait_for_start = create,
                                          .argv = cli->argv };
        bool keep = false;
        int flag;
        while ((flag = cli_next(argc, argv, create ? "+:b:f:" : "+:b:f:d",
                                create ? create_options : run_options, err)) != -1) {
                int r = launch_flag(flag, &options, &keep, err);
                if (r < 0)
                        return r;
        }
        int r = cli_expect(argc, argv, 1, false, err);
        if (r < 0)
                return r;
        add_listen_fds(&options.preserve_fds);
        auto_free char *root = cli_absolute(cli->root);
        auto_free char *socket = cli_absolute(options.console_socket);
        auto_free char *pid_file = cli_absolute(options.pid_file);
        options.systemd_cgroup = cli->systemd_cgroup;
        options.crun_status = cli->dialect == CLI_CRUN;
        options.root = root;
        options.id = argv[optind];
        options.console_socket = socket;
        options.pid_file = pid_file;
        const struct runtime_vm *machines = cli->machines;
        if (cli->vm)
                r = create ? machines->create(&options, err)
                           : machines->run(&options, keep, ret_code, err);
        else
                r = create ? container_create(&options, err)
                           : container_run(&options, keep, ret_code, err);
        if (r < 0)
                err_wrap(err, "%s container %s", argv[0], *options.id ? options.id : "\"\"");
        return r;
}

int cli_create(const struct cli *cli, int argc, char **argv, int *ret_code, struct err *err)
{
        return launch(cli, argc, argv, true, ret_code, err);
}

int cli_run(const struct cli *cli, int argc, char **argv, int *ret_code, struct err *err)
{
        return launch(cli, argc, argv, false, ret_code, err);
}

static int only_id(int argc, char **argv, struct err *err)
{
        static const struct option none[] = { { NULL, 0, NULL, 0 } };
        if (cli_next(argc, argv, "+:", none, err) != -1)
                return -EINVAL;
        return cli_expect(argc, argv, 1, false, err);
}

int cli_start(const struct cli *cli, int argc, char **argv, int *ret_code, struct err *err)
{
        (void)ret_code;
        int r = only_id(argc, argv, err);
        if (r < 0)
                return r;
        return state_has_machine(cli->root, argv[optind])
                       ? cli->machines->start(cli->root, argv[optind], err)
                       : container_start(cli->root, argv[optind], err);
}

int cli_pause(const struct cli *cli, int argc, char **argv, int *ret_code, struct err *err)
{
        (void)ret_code;
        int r = only_id(argc, argv, err);
        return r < 0 ? r : container_pause(cli->root, argv[optind], err);
}

int cli_resume(const struct cli *cli, int argc, char **argv, int *ret_code, struct err *err)
{
        (void)ret_code;
        int r = only_id(argc, argv, err);
        if (r < 0)
                return r;
        return state_has_machine(cli->root, argv[optind])
                       ? cli->machines->resume(cli->root, argv[optind], err)
                       : container_resume(cli->root, argv[optind], err);
}

/* Every container whose id the expression matches; the first failure ends it. */
static int each_matching(const struct cli *cli, const char *pattern,
                         int (*visit)(const struct cli *, const char *id, const void *arg,
                                      struct err *),
                         const void *arg, struct err *err)
{
        regex_t regex;
        if (regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB) != 0)
                return err_plain(err, EINVAL, "'%s' is not a regular expression", pattern);
        auto_strv ids = NULL;
        int r = state_list(cli->root, &ids, err);
        for (char **id = ids; r >= 0 && id && *id; id++)
                if (regexec(&regex, *id, 0, NULL, 0) == 0)
                        r = visit(cli, *id, arg, err);
        regfree(&regex);
        return r < 0 ? r : 0;
}

struct kill_request {
        int signo;
        bool all;
};

static int kill_one(const struct cli *cli, const char *id, const void *arg, struct err *err)
{
        const struct kill_request *request = arg;
        return container_kill(cli->root, id, request->signo, request->all, err);
}

/* One of several: what cannot be killed keeps none of the others alive. */
static int kill_or_warn(const struct cli *cli, const char *id, const void *arg, struct err *err)
{
        struct err story = { 0 };
        (void)err;
        if (kill_one(cli, id, arg, &story) < 0)
                log_warning("kill %s: %s", id, err_text(&story));
        return 0;
}

int cli_kill(const struct cli *cli, int argc, char **argv, int *ret_code, struct err *err)
{
        static const struct option longs[] = { { "all", no_argument, NULL, 'a' },
                                               { "regex", no_argument, NULL, 'r' },
                                               { NULL, 0, NULL, 0 } };
        struct kill_request request = { .signo = SIGTERM };
        bool regex = false;
        int flag;
        (void)ret_code;
        while ((flag = cli_next(argc, argv, "+:ar", longs, err)) != -1) {
                if (flag == '?')
                        return -EINVAL;
                *(flag == 'a' ? &request.all : &regex) = true;
        }
        int r = cli_expect(argc, argv, 1, true, err);
        if (r < 0)
                return r;
        if (argc - optind > 2)
                return err_plain(err, EINVAL, "\"kill\" takes an id and one signal");
        if (argc - optind == 2 && process_signal_parse(argv[optind + 1], &request.signo) < 0)
                return err_plain(err, EINVAL, "unknown signal \"%s\"", argv[optind + 1]);
        return regex ? each_matching(cli, argv[optind], kill_or_warn, &request, err)
                     : kill_one(cli, argv[optind], &request, err);
}

static int delete_one(const struct cli *cli, const char *id, const void *arg, struct err *err)
{
        bool force = *(const bool *)arg;
        return state_has_machine(cli->root, id) ? cli->machines->remove(cli->root, id, force, err)
                                                : container_delete(cli->root, id, force, err);
}

/* As crun: all whose id matches. */
int cli_delete(const struct cli *cli, int argc, char **argv, int *ret_code, struct err *err)
{
        static const struct option longs[] = { { "force", no_argument, NULL, 'f' },
                                               { "regex", no_argument, NULL, 'r' },
                                               { NULL, 0, NULL, 0 } };
        bool force = false, regex = false;
        int flag;
        (void)ret_code;
        while ((flag = cli_next(argc, argv, ":fr", longs, err)) != -1) {
                if (flag == '?')
                        return -EINVAL;
                *(flag == 'f' ? &force : &regex) = true;
        }
        int r = cli_expect(argc, argv, 1, false, err);
        if (r < 0)
                return r;
        return regex ? each_matching(cli, argv[optind], delete_one, &force, err)
                     : delete_one(cli, argv[optind], &force, err);
}

static const struct option exec_options[] = {
        { "console-socket", required_argument, NULL, FLAG_CONSOLE_SOCKET },
        { "cwd", required_argument, NULL, FLAG_CWD },
        { "env", required_argument, NULL, 'e' },
        { "tty", no_argument, NULL, 't' },
        { "user", required_argument, NULL, 'u' },
        { "additional-gids", required_argument, NULL, 'g' },
        { "process", required_argument, NULL, 'p' },
        { "detach", no_argument, NULL, 'd' },
        { "pid-file", required_argument, NULL, FLAG_PID_FILE },
        { "process-label", required_argument, NULL, FLAG_PROCESS_LABEL },
        { "apparmor", required_argument, NULL, FLAG_APPARMOR },
        { "no-new-privs", no_argument, NULL, FLAG_NO_NEW_PRIVS },
        { "cap", required_argument, NULL, 'c' },
        { "preserve-fds", required_argument, NULL, FLAG_PRESERVE_FDS },
        { "cgroup", required_argument, NULL, FLAG_CGROUP },
        { "ignore-paused", no_argument, NULL, FLAG_IGNORE_PAUSED },
        { "no-subreaper", no_argument, NULL, FLAG_NO_SUBREAPER },
        { NULL, 0, NULL, 0 },
};

struct exec_lists {
        char **env, **caps, **gids, **cgroups;
};

static int exec_flag(int flag, struct exec_options *o, struct exec_lists *lists, struct err *err)
{
        switch (flag) {
        case FLAG_CONSOLE_SOCKET:
                o->console_socket = optarg;
                return 0;
        case FLAG_CWD:
                o->cwd = optarg;
                return 0;
        case 'e':
                strv_push(&lists->env, optarg);
                return 0;
        case 't':
                o->tty = true;
                return 0;
        case 'u':
                o->user = optarg;
                return 0;
        case 'g':
                strv_push(&lists->gids, optarg);
                return 0;
        case 'p':
                o->process_file = optarg;
                return 0;
        case 'd':
                o->detach = true;
                return 0;
        case FLAG_PID_FILE:
                o->pid_file = optarg;
                return 0;
        case FLAG_PROCESS_LABEL:
                o->selinux_label = optarg;
                return 0;
        case FLAG_APPARMOR:
                o->apparmor = optarg;
                return 0;
        case FLAG_NO_NEW_PRIVS:
                o->no_new_privs = true;
                return 0;
        case 'c':
                strv_push(&lists->caps, optarg);
                return 0;
        case FLAG_PRESERVE_FDS:
                return set_preserve(optarg, &o->preserve_fds, err);
        case FLAG_CGROUP:
                strv_push(&lists->cgroups, optarg);
                return 0;
        case FLAG_IGNORE_PAUSED:
                o->ignore_paused = true;
                return 0;
        case FLAG_NO_SUBREAPER:
                return 0;
        default:
                return -EINVAL;
        }
}

static int exec_with(const struct cli *cli, int argc, char **argv, struct exec_options *options,
                     struct exec_lists *lists, int *ret_code, struct err *err)
{
        int flag;
        while ((flag = cli_next(argc, argv, "+:e:tu:g:p:dc:", exec_options, err)) != -1) {
                int r = exec_flag(flag, options, lists, err);
                if (r < 0)
                        return r;
        }
        int r = cli_expect(argc, argv, options->process_file ? 1 : 2, true, err);
        if (r < 0)
                return r;
        options->root = cli->root;
        options->own_no_new_privs = cli->dialect == CLI_CRUN;
        options->id = argv[optind];
        options->args = argv + optind + 1;
        options->env = lists->env;
        options->caps = lists->caps;
        options->gids = lists->gids;
        options->cgroups = lists->cgroups;
        options->argv = cli->argv;
        add_listen_fds(&options->preserve_fds);
        return state_has_machine(cli->root, options->id)
                       ? cli->machines->exec(options, ret_code, err)
                       : container_exec(options, ret_code, err);
}

int cli_exec(const struct cli *cli, int argc, char **argv, int *ret_code, struct err *err)
{
        struct exec_options options = { 0 };
        struct exec_lists lists = { 0 };
        int r = exec_with(cli, argc, argv, &options, &lists, ret_code, err);
        strv_free(lists.env);
        strv_free(lists.caps);
        strv_free(lists.gids);
        strv_free(lists.cgroups);
        if (r < 0) {
                *ret_code = 255; /* as runc: no program has exited with it, or it says so */
                err_wrap(err, "exec failed");
        }
        return r;
}
