/* The commands of `isle`.
 *
 * One static table (commands.c) has a row per command; dispatch, usage, --help,
 * completion and the manual page all come from it. A row names every way to
 * write the command: "ps|container ls|container list" is one command under three
 * paths, the first being the one that help uses.
 *
 * A command is a function that gets its parsed options and returns the exit
 * status, or -errno with the story in `err`, which the dispatcher prints.
 */
#pragma once

#include "base/err.h"
#include "cli/options.h"
#include "cli/spec.h"

#define EXIT_USAGE 125 /* bad option, as docker; also what the daemon refuses to `run` */

#define EXIT_BAD_TEMPLATE 64

struct http_client;
struct command;

/* One invocation. */
struct cli {
        const struct command *command;
        const char *path;  /* as typed: "container run" */
        char *host;        /* unix:///…, tcp://… */
        char *config_dir;  /* where config.json is written */
        bool config_named; /* by --config or the environment: docker's is not looked at */
        struct http_client *client;
        int http_status; /* of the last reply */
};

#define COMMAND_STOP_EARLY 1 /* options end at the first argument */
#define COMMAND_COMMON     2 /* shown first in `isle --help` */
#define COMMAND_HIDDEN     4
#define COMMAND_PREFIXED   8  /* errors start with "isle: ", and exit with EXIT_USAGE */
#define COMMAND_RAW        16 /* gets its words unparsed (args.rest) */

#define ARGUMENTS_ANY 1000000

struct command {
        const char *paths;     /* "run|container run" */
        const char *arguments; /* "[OPTIONS] IMAGE [COMMAND] [ARG...]" */
        const char *summary;
        int (*run)(struct cli *cli, const struct args *args, struct err *err);
        const struct option *options; /* NULL: none */
        size_t least, most;           /* arguments */
        enum completion completion;   /* of arguments */
        unsigned flags;
        const char *details; /* a further paragraph for help; NULL: none */
};

/* "container": what groups commands. */
struct command_group {
        const char *name, *summary;
};

extern const struct command commands[];
extern const size_t commands_length;
extern const struct command_group command_groups[];
extern const size_t command_groups_length;
extern const struct option global_options[];

/* The row for the leading words of argv; *ret_words says how many there are and
 * *ret_path the path (a part of the row's). NULL where there is none. */
const struct command *command_find(int argc, char **argv, int *ret_words, const char **ret_path,
                                   size_t *ret_length);
const struct command_group *command_group_find(const char *name);
/* Walks the paths of a row: start with *cursor NULL. False at the end. */
bool command_next_path(const struct command *command, const char **cursor, const char **ret,
                       size_t *ret_length);
/* The last word of the path that the command has within a group ("" for the top);
 * NULL where it is not in it. Length by reference. */
const char *command_name_in(const struct command *command, const char *group, size_t *ret_length);

/* Everything: returns the exit status. */
int cli_main(int argc, char **argv);

/* --- usage.c --- */

void usage_program(void);
void usage_group(const struct command_group *group);
void usage_command(const struct command *command, const char *path);

/* The manual page isle(1), in man(7), on standard output. */
int cmd_generate_man(struct cli *cli, const struct args *args, struct err *err);
/* Candidates for the shell: the words so far are the arguments, the last is the
 * one at the cursor. */
int cmd_complete(struct cli *cli, const struct args *args, struct err *err);
/* The script that asks the above. */
int cmd_completion(struct cli *cli, const struct args *args, struct err *err);

/* --- the commands, in files of their names; options are next to them --- */

int cmd_attach(struct cli *cli, const struct args *args, struct err *err);
int cmd_container_prune(struct cli *cli, const struct args *args, struct err *err);
int cmd_cp(struct cli *cli, const struct args *args, struct err *err);
int cmd_create(struct cli *cli, const struct args *args, struct err *err);
int cmd_diff(struct cli *cli, const struct args *args, struct err *err);
int cmd_events(struct cli *cli, const struct args *args, struct err *err);
int cmd_exec(struct cli *cli, const struct args *args, struct err *err);
int cmd_export(struct cli *cli, const struct args *args, struct err *err);
int cmd_history(struct cli *cli, const struct args *args, struct err *err);
int cmd_image_inspect(struct cli *cli, const struct args *args, struct err *err);
int cmd_image_prune(struct cli *cli, const struct args *args, struct err *err);
int cmd_image_verify(struct cli *cli, const struct args *args, struct err *err);
int cmd_images(struct cli *cli, const struct args *args, struct err *err);
int cmd_import(struct cli *cli, const struct args *args, struct err *err);
int cmd_info(struct cli *cli, const struct args *args, struct err *err);
int cmd_inspect(struct cli *cli, const struct args *args, struct err *err);
int cmd_container_inspect(struct cli *cli, const struct args *args, struct err *err);
int cmd_kill(struct cli *cli, const struct args *args, struct err *err);
int cmd_load(struct cli *cli, const struct args *args, struct err *err);
int cmd_login(struct cli *cli, const struct args *args, struct err *err);
int cmd_logout(struct cli *cli, const struct args *args, struct err *err);
int cmd_logs(struct cli *cli, const struct args *args, struct err *err);
int cmd_pause(struct cli *cli, const struct args *args, struct err *err);
int cmd_ps(struct cli *cli, const struct args *args, struct err *err);
int cmd_pull(struct cli *cli, const struct args *args, struct err *err);
int cmd_push(struct cli *cli, const struct args *args, struct err *err);
int cmd_rename(struct cli *cli, const struct args *args, struct err *err);
int cmd_restart(struct cli *cli, const struct args *args, struct err *err);
int cmd_rm(struct cli *cli, const struct args *args, struct err *err);
int cmd_rmi(struct cli *cli, const struct args *args, struct err *err);
int cmd_run(struct cli *cli, const struct args *args, struct err *err);
int cmd_save(struct cli *cli, const struct args *args, struct err *err);
int cmd_start(struct cli *cli, const struct args *args, struct err *err);
int cmd_stats(struct cli *cli, const struct args *args, struct err *err);
int cmd_stop(struct cli *cli, const struct args *args, struct err *err);
int cmd_system_df(struct cli *cli, const struct args *args, struct err *err);
int cmd_system_prune(struct cli *cli, const struct args *args, struct err *err);
int cmd_tag(struct cli *cli, const struct args *args, struct err *err);
int cmd_top(struct cli *cli, const struct args *args, struct err *err);
int cmd_unpause(struct cli *cli, const struct args *args, struct err *err);
int cmd_update(struct cli *cli, const struct args *args, struct err *err);
int cmd_version(struct cli *cli, const struct args *args, struct err *err);
int cmd_volume_create(struct cli *cli, const struct args *args, struct err *err);
int cmd_volume_inspect(struct cli *cli, const struct args *args, struct err *err);
int cmd_volume_ls(struct cli *cli, const struct args *args, struct err *err);
int cmd_volume_prune(struct cli *cli, const struct args *args, struct err *err);
int cmd_volume_rm(struct cli *cli, const struct args *args, struct err *err);
int cmd_wait(struct cli *cli, const struct args *args, struct err *err);

extern const struct option attach_options[], completion_options[], cp_options[], events_options[],
        exec_options[], export_options[], history_options[], image_inspect_options[],
        image_prune_options[], image_verify_options[], images_options[], import_options[],
        info_options[], inspect_options[], container_inspect_options[], kill_options[],
        load_options[], login_options[], logs_options[], prune_options[], ps_options[],
        pull_options[], push_options[], stop_options[], rm_options[], rmi_options[], save_options[],
        start_options[], stats_options[], system_df_options[], system_prune_options[],
        volume_create_options[], volume_inspect_options[], volume_ls_options[],
        volume_prune_options[], volume_rm_options[];
