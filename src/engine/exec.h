/* Exec sessions: further commands in a running instance.
 *
 * Kept until its instance is removed or, finished, for EXEC_KEPT_S; those of the engine's own,
 * which check an instance's health, no longer than they take. Lost when isled restarts, except
 * those running: their monitors report to the new one.
 */
#pragma once

#include "engine/instance.h"

#define EXEC_KEPT_S 300

/* docker's ExecConfig: the body of POST /containers/{id}/exec. */
struct exec_config {
        char *user;
        bool privileged;
        bool tty;
        bool attach_stdin, attach_stdout, attach_stderr;
        char *detach_keys;
        char **env, **cmd;
        char *working_dir;
        uint32_t *console_size;     /* rows, columns */
        size_t console_size_length; /* 2 or 0 */
};
extern const struct json_shape exec_config_shape;

struct exec {
        char id[INSTANCE_ID_SIZE];
        char instance_id[INSTANCE_ID_SIZE];
        struct exec_config config;
        bool started;
        bool running;
        bool has_exit_code; /* false: "ExitCode": null */
        int exit_code;
        pid_t pid; /* 0 until it runs */
        struct exec_private *private;
};

/* -EBUSY when the instance does not run or is paused. `config` is copied. */
int exec_create(struct instance *instance, const struct exec_config *config,
                const struct exec **ret, struct err *err);
/* By full id. "No such exec instance: x". */
struct exec *exec_find(struct engine *engine, const char *id, struct err *err);
/* Ids (strv, the caller's) of an instance's sessions, for inspect. NULL: none. */
char **exec_ids(const struct instance *instance);

struct exec_start_options {
        bool detach;            /* no client */
        int client_fd;          /* taken, also on failure; -1 with detach */
        bool tty;               /* must equal the configuration's */
        uint16_t rows, columns; /* 0: none given */
        const void *early;      /* as attach_options */
        size_t early_size;
        /* Of the engine's own, NULL for clients: called once, when the command has ended or
         * failed; the session is not to be used any more. One that outlives isled is killed by
         * the next one. */
        void (*ended)(void *arg, int exit_code);
        void *ended_arg;
};
/* Done when the command has been executed or could not be. A failure is also
 * written to the client as output, as docker does, and exit_code set to 126 or 127. */
void exec_start(struct exec *exec, const struct exec_start_options *options, engine_done *done,
                void *arg);
/* Can exec_start be called? -EBUSY when it ran already or its instance does not run.
 * For a check before the connection is upgraded. */
int exec_start_check(const struct exec *exec, struct err *err);
/* SIGKILL to the command and its group, as soon as it runs. */
void exec_kill(struct exec *exec);
/* As exec_kill, but a start that hangs is given up. */
void exec_abort(struct exec *exec);
int exec_resize(struct exec *exec, uint16_t rows, uint16_t columns, struct err *err);
