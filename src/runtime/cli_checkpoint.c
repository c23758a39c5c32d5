/* checkpoint restore */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdlib.h>

#include "base/auto.h"
#include "base/str.h"
#include "runtime/checkpoint.h"
#include "runtime/cli.h"
#include "runtime/container.h"

enum {
        FLAG_IMAGE_PATH = 1000,
        FLAG_WORK_PATH,
        FLAG_PARENT_PATH,
        FLAG_LEAVE_RUNNING,
        FLAG_TCP_ESTABLISHED,
        FLAG_TCP_CLOSE,
        FLAG_EXT_UNIX_SK,
        FLAG_SHELL_JOB,
        FLAG_FILE_LOCKS,
        FLAG_PRE_DUMP,
        FLAG_CGROUPS,
        FLAG_AUTO_DEDUP,
        FLAG_STATUS_FD,
        FLAG_LINK_REMAP,
        FLAG_LSM_PROFILE,
        FLAG_LSM_CONTEXT,
        FLAG_CONSOLE_SOCKET,
        FLAG_PID_FILE,
        FLAG_NO_PIVOT,
        FLAG_IGNORED,
        FLAG_REFUSED,
};

#define COMMON_OPTIONS                                                                             \
        { "image-path", required_argument, NULL, FLAG_IMAGE_PATH },                                \
                { "work-path", required_argument, NULL, FLAG_WORK_PATH },                          \
                { "tcp-established", no_argument, NULL, FLAG_TCP_ESTABLISHED },                    \
                { "ext-unix-sk", no_argument, NULL, FLAG_EXT_UNIX_SK },                            \
                { "shell-job", no_argument, NULL, FLAG_SHELL_JOB },                                \
                { "file-locks", no_argument, NULL, FLAG_FILE_LOCKS },                              \
                { "link-remap", no_argument, NULL, FLAG_LINK_REMAP },                              \
                { "auto-dedup", no_argument, NULL, FLAG_AUTO_DEDUP },                              \
                { "manage-cgroups-mode", required_argument, NULL, FLAG_CGROUPS },                  \
                { "lazy-pages", no_argument, NULL, FLAG_REFUSED },                                 \
        {                                                                                          \
                "empty-ns", required_argument, NULL, FLAG_REFUSED                                  \
        }

static const struct option checkpoint_flags[] = {
        COMMON_OPTIONS,
        { "parent-path", required_argument, NULL, FLAG_PARENT_PATH },
        { "leave-running", no_argument, NULL, FLAG_LEAVE_RUNNING },
        { "pre-dump", no_argument, NULL, FLAG_PRE_DUMP },
        { "status-fd", required_argument, NULL, FLAG_STATUS_FD },
        { "page-server", required_argument, NULL, FLAG_REFUSED },
        { NULL, 0, NULL, 0 },
};

static const struct option restore_flags[] = {
        COMMON_OPTIONS,
        { "tcp-close", no_argument, NULL, FLAG_TCP_CLOSE },
        { "lsm-profile", required_argument, NULL, FLAG_LSM_PROFILE },
        { "lsm-mount-context", required_argument, NULL, FLAG_LSM_CONTEXT },
        { "bundle", required_argument, NULL, 'b' },
        { "detach", no_argument, NULL, 'd' },
        { "pid-file", required_argument, NULL, FLAG_PID_FILE },
        { "console-socket", required_argument, NULL, FLAG_CONSOLE_SOCKET },
        { "no-pivot", no_argument, NULL, FLAG_NO_PIVOT },
        { "no-subreaper", no_argument, NULL, FLAG_IGNORED },
        { NULL, 0, NULL, 0 },
};

static int set_cgroups(const char *text, enum criu_cgroups *ret, struct err *err)
{
        static const struct {
                const char *name;
                enum criu_cgroups mode;
        } modes[] = {
                { "", CRIU_CGROUPS_SOFT },         { "soft", CRIU_CGROUPS_SOFT },
                { "full", CRIU_CGROUPS_FULL },     { "strict", CRIU_CGROUPS_STRICT },
                { "ignore", CRIU_CGROUPS_IGNORE },
        };
        for (size_t i = 0; i < ELEMENTS(modes); i++)
                if (streq(modes[i].name, text)) {
                        *ret = modes[i].mode;
                        return 0;
                }
        return err_plain(err, EINVAL,
                         "invalid --manage-cgroups-mode '%s': soft, full, strict or ignore", text);
}

static int set_status_fd(const char *text, int *ret, struct err *err)
{
        uint32_t fd;
        int flags = -1;
        if (str_to_u32(text, &fd) == 0 && fd <= INT32_MAX)
                flags = fcntl((int)fd, F_GETFL);
        if (flags < 0 || (flags & O_ACCMODE) == O_RDONLY)
                return err_plain(err, EINVAL, "--status-fd '%s' is no descriptor to write to",
                                 text);
        *ret = (int)fd;
        return 0;
}

static bool *flag_of(int flag, struct checkpoint_options *options)
{
        switch (flag) {
        case FLAG_LEAVE_RUNNING:
                return &options->leave_running;
        case FLAG_PRE_DUMP:
                return &options->pre_dump;
        case FLAG_TCP_ESTABLISHED:
                return &options->tcp_established;
        case FLAG_TCP_CLOSE:
                return &options->tcp_close;
        case FLAG_EXT_UNIX_SK:
                return &options->ext_unix_sk;
        case FLAG_SHELL_JOB:
                return &options->shell_job;
        case FLAG_FILE_LOCKS:
                return &options->file_locks;
        case FLAG_LINK_REMAP:
                return &options->link_remap;
        case FLAG_AUTO_DEDUP:
                return &options->auto_dedup;
        default:
                return NULL;
        }
}

/* `typed` is the flag as it was written, for the error. */
static int one_flag(int flag, const char *typed, struct checkpoint_options *options,
                    struct launch_options *launch, struct err *err)
{
        bool *switched = flag_of(flag, options);
        if (switched) {
                *switched = true;
                return 0;
        }
        switch (flag) {
        case FLAG_IMAGE_PATH:
                options->image_path = optarg;
                return 0;
        case FLAG_WORK_PATH:
                options->work_path = optarg;
                return 0;
        case FLAG_PARENT_PATH:
                options->parent_path = optarg;
                return 0;
        case FLAG_LSM_PROFILE:
                options->lsm_profile = optarg;
                return 0;
        case FLAG_LSM_CONTEXT:
                options->lsm_mount_context = optarg;
                return 0;
        case FLAG_CGROUPS:
                return set_cgroups(optarg, &options->cgroups, err);
        case FLAG_STATUS_FD:
                return set_status_fd(optarg, &options->status_fd, err);
        case 'b':
                launch->bundle = optarg;
                return 0;
        case 'd':
                launch->detach = true;
                return 0;
        case FLAG_PID_FILE:
                launch->pid_file = optarg;
                return 0;
        case FLAG_CONSOLE_SOCKET:
                launch->console_socket = optarg;
                return 0;
        case FLAG_NO_PIVOT:
                launch->no_pivot = true;
                return 0;
        case FLAG_IGNORED:
                return 0;
        case FLAG_REFUSED:
                return err_plain(err, EOPNOTSUPP, "%s is not supported: images are whole and local",
                                 typed);
        default:
                return -EINVAL;
        }
}

static int parse(int argc, char **argv, const char *shorts, const struct option *longs,
                 struct checkpoint_options *options, struct launch_options *launch, struct err *err)
{
        for (;;) {
                int index = optind ? optind : 1;
                int flag = cli_next(argc, argv, shorts, longs, err);
                if (flag == -1)
                        return cli_expect(argc, argv, 1, false, err);
                int r = one_flag(flag, argv[index], options, launch, err);
                if (r < 0)
                        return r;
        }
}

/* Where --image-path is not given, as with runc. */
#define DEFAULT_IMAGE_PATH "checkpoint"

int cli_checkpoint(const struct cli *cli, int argc, char **argv, int *ret_code, struct err *err)
{
        struct checkpoint_options options = { .image_path = DEFAULT_IMAGE_PATH,
                                              .criu = cli->criu,
                                              .as_crun = cli->dialect == CLI_CRUN,
                                              .cgroups = CRIU_CGROUPS_SOFT,
                                              .status_fd = -1 };
        struct launch_options unused = { 0 };
        (void)ret_code;
        int r = parse(argc, argv, "+:", checkpoint_flags, &options, &unused, err);
        if (r == 0)
                r = cli_refuse_machine(cli, "checkpoint", argv[optind], err);
        if (r < 0)
                return r;
        r = container_checkpoint(cli->root, argv[optind], &options, err);
        return r < 0 ? err_wrap(err, "checkpoint container %s", argv[optind]) : 0;
}

static int restore(const struct cli *cli, char **argv, struct launch_options *launch,
                   struct checkpoint_options *options, int *ret_code, struct err *err)
{
        /* The bundle becomes our directory. */
        auto_free char *root = cli_absolute(cli->root);
        auto_free char *images = cli_absolute(options->image_path);
        auto_free char *work = cli_absolute(options->work_path);
        auto_free char *socket = cli_absolute(launch->console_socket);
        auto_free char *pid_file = cli_absolute(launch->pid_file);
        options->image_path = images;
        options->work_path = work;
        launch->systemd_cgroup = cli->systemd_cgroup;
        launch->crun_status = cli->dialect == CLI_CRUN;
        launch->root = root;
        launch->id = argv[optind];
        launch->console_socket = socket;
        launch->pid_file = pid_file;
        launch->argv = cli->argv;
        const struct launch_variant variant = { .transform = checkpoint_restore_mounts,
                                                .make = checkpoint_restore,
                                                .pass_fd = -1,
                                                .arg = options };
        struct launch_options with = *launch;
        with.variant = &variant;
        return container_run(&with, false, ret_code, err);
}

int cli_restore(const struct cli *cli, int argc, char **argv, int *ret_code, struct err *err)
{
        struct checkpoint_options options = { .image_path = DEFAULT_IMAGE_PATH,
                                              .criu = cli->criu,
                                              .as_crun = cli->dialect == CLI_CRUN,
                                              .cgroups = CRIU_CGROUPS_SOFT,
                                              .status_fd = -1 };
        struct launch_options launch = { .bundle = "." };
        int r = parse(argc, argv, "+:b:d", restore_flags, &options, &launch, err);
        if (r < 0)
                return r;
        if (options.cgroups == CRIU_CGROUPS_FULL || options.cgroups == CRIU_CGROUPS_STRICT)
                return err_plain(err, EOPNOTSUPP,
                                 "--manage-cgroups-mode full and strict are for groups that CRIU "
                                 "makes; those of a container are made before, with the limits of "
                                 "config.json: use soft or ignore");
        r = restore(cli, argv, &launch, &options, ret_code, err);
        return r < 0 ? err_wrap(err, "restore container %s", argv[optind]) : 0;
}
