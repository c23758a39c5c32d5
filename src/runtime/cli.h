/* The command line of isle-runtime, with runc's and crun's flags and answers.
 *
 * One row per command (cli.c); each command's own flags are a getopt table in its
 * file. Flags come before arguments, as runc wants it; unknown ones are an error
 * naming the flag. Commands print results on standard output; errors go to
 * standard error and, with --log, to the log, where engines read them.
 */
#pragma once

#include <getopt.h>
#include <stdbool.h>

#include "base/err.h"
#include "runtime/container.h"

/* A path in a container that runs in a virtual machine. */
struct machine_place {
        const char *root, *id;
        const char *path;
        const char *name; /* of the container, for errors */
};

struct extract_options {
        struct machine_place place; /* a directory */
        bool no_overwrite_dir_non_dir;
        bool has_owner;
        uint32_t uid, gid;
};

struct archive_options {
        struct machine_place place; /* a file */
        bool look;                  /* tells about it only */
};

/* The verbs that are others for a container in a virtual machine. */
struct runtime_vm {
        int (*create)(const struct launch_options *, struct err *);
        int (*run)(const struct launch_options *, bool keep, int *ret_code, struct err *);
        int (*exec)(const struct exec_options *, int *ret_code, struct err *);
        int (*start)(const char *root, const char *id, struct err *);
        int (*resume)(const char *root, const char *id, struct err *);
        int (*remove)(const char *root, const char *id, bool force, struct err *);
        int (*ps)(const char *root, const char *id, char *const *options, struct err *);
        int (*update)(const char *root, const char *id, struct oci_resources *resources,
                      struct err *);
        int (*extract)(const struct extract_options *, struct err *);
        int (*archive)(const struct archive_options *, struct err *);
        void (*shim)(int channel); /* the command "vm-shim", for ourselves */
};

/* Called by a link named runc or crun, the program speaks as that one does: help, version, messages
 * and, where the two differ in what they do, that. */
enum cli_dialect { CLI_ISLE, CLI_RUNC, CLI_CRUN };

#define CLI_DEFAULT_ROOT "/run/isle-runtime"

struct cli {
        enum cli_dialect dialect;
        const char *root;
        const char *log_path;
        const char *criu; /* NULL: in PATH */
        bool debug, systemd_cgroup;
        bool vm; /* create and run: in a virtual machine */
        const struct runtime_vm *machines;
        char *const *argv; /* of the whole program */
};

struct cli_command {
        const char *name, *flags, *arguments, *help;
        /* argv[0] is the command. Returns 0 or -errno with *err; *ret_code, 0
         * before, is what the program exits with; 1 where it failed and left it 0. */
        int (*run)(const struct cli *cli, int argc, char **argv, int *ret_code, struct err *err);
};

int runtime_main(int argc, char **argv, const struct runtime_vm *machines);

enum cli_dialect cli_dialect_of(const char *name);
const char *cli_name(enum cli_dialect dialect);
void cli_print_help(enum cli_dialect dialect, const struct cli_command *commands, size_t length);
void cli_print_command_help(enum cli_dialect dialect, const struct cli_command *command);
void cli_print_version(const struct cli *cli);

/* Next flag of a command: getopt_long's value, -1 at the end, '?' after having
 * filled err for an unknown flag or a missing value. */
int cli_next(int argc, char **argv, const char *shorts, const struct option *longs,
             struct err *err);
/* Exactly `count` arguments are left (at least, when `more`). */
int cli_expect(int argc, char **argv, int count, bool more, struct err *err);
/* The arguments ID and PATH; `name` is there where it was given. `instead`: what to do with one
 * that is in no virtual machine, for the error. */
int cli_machine_place(const struct cli *cli, int argc, char **argv, const char *instead,
                      struct machine_place *place, struct err *err);

/* A name that is relative to where we were called, made absolute, for the bundle becomes our
 * directory; heap. NULL stays NULL. */
char *cli_absolute(const char *path);

/* For verbs that cannot be done to a container in a virtual machine yet. */
int cli_refuse_machine(const struct cli *cli, const char *verb, const char *id, struct err *err);

int cli_create(const struct cli *, int, char **, int *, struct err *);
int cli_run(const struct cli *, int, char **, int *, struct err *);
int cli_start(const struct cli *, int, char **, int *, struct err *);
int cli_state(const struct cli *, int, char **, int *, struct err *);
int cli_kill(const struct cli *, int, char **, int *, struct err *);
int cli_delete(const struct cli *, int, char **, int *, struct err *);
int cli_list(const struct cli *, int, char **, int *, struct err *);
int cli_exec(const struct cli *, int, char **, int *, struct err *);
int cli_ps(const struct cli *, int, char **, int *, struct err *);
int cli_extract(const struct cli *, int, char **, int *, struct err *);
int cli_archive(const struct cli *, int, char **, int *, struct err *);
int cli_pause(const struct cli *, int, char **, int *, struct err *);
int cli_resume(const struct cli *, int, char **, int *, struct err *);
int cli_update(const struct cli *, int, char **, int *, struct err *);
int cli_events(const struct cli *, int, char **, int *, struct err *);
int cli_spec(const struct cli *, int, char **, int *, struct err *);
int cli_features(const struct cli *, int, char **, int *, struct err *);
int cli_mounts(const struct cli *, int, char **, int *, struct err *);
int cli_checkpoint(const struct cli *, int, char **, int *, struct err *);
int cli_restore(const struct cli *, int, char **, int *, struct err *);
