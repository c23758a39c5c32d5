/* The verbs of the OCI runtime interface, on one container each. What the command
 * line (src/runtime/cli_*.c) and the guest agent call.
 *
 * Every function opens the container by root and id, does its work under the
 * container's lock where it changes it, and returns 0 or -errno with a story
 * that is runc's where other programs read it. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "runtime/launch.h"
#include "runtime/state.h"

struct checkpoint_options;

int container_create(const struct launch_options *options, struct err *err);
/* Foreground, unless options->detach: *ret_code is the program's exit code. `keep`
 * leaves the stopped container there. */
int container_run(const struct launch_options *options, bool keep, int *ret_code, struct err *err);
/* Writes the images and, unless the options keep it running, deletes it. To restore, it is run
 * with the variant in checkpoint.h. */
int container_checkpoint(const char *root, const char *id, const struct checkpoint_options *options,
                         struct err *err);
int container_start(const char *root, const char *id, struct err *err);
int container_kill(const char *root, const char *id, int signo, bool all, struct err *err);
/* With `force` a running one is killed, a half-made one cleaned up, and a missing
 * one is no error. */
int container_delete(const char *root, const char *id, bool force, struct err *err);
int container_pause(const char *root, const char *id, struct err *err);
int container_resume(const char *root, const char *id, struct err *err);
struct container_change {
        const struct oci_resources *resources;
        const char *l3_cache_schema, *mem_bw_schema; /* of intelRdt; NULL stays */
};
int container_update(const char *root, const char *id, const struct container_change *change,
                     struct err *err);

/* The container's record and status; `with_config` decodes the spec too. */
int container_load(const char *root, const char *id, bool with_config, struct record *ret,
                   enum state_status *ret_status, struct err *err);

/* Adds the mounts of a running container that the file lists as config.json does, or removes those
 * at their destinations. Of several that are added, all are or none. */
int container_mounts(const char *root, const char *id, bool add, const char *file, struct err *err);

/* Version 1 hierarchies of cgroup_paths() that a running container has joined since its start are
 * mounted where its others are, if it has these mounted. */
int container_show_hierarchies(const struct record *record, char *const *cgroups, struct err *err);

struct exec_options {
        const char *root, *id;
        const char *process_file; /* JSON of a process, or NULL: the members below */
        char *const *args;
        const char *cwd, *user; /* NULL: the container's; user is "uid[:gid]" */
        char *const *env;       /* added */
        char *const *caps;      /* added */
        char *const *gids;      /* additional, numbers */
        const char *apparmor, *selinux_label;
        char *const *cgroups; /* as cgroup_descend() takes them; NULL */
        bool tty, detach, no_new_privs, ignore_paused;
        bool own_no_new_privs; /* not the container's noNewPrivileges, as crun has it */
        const char *pid_file, *console_socket;
        unsigned preserve_fds;
        char *const *argv; /* of the program, for exe_guard */
};
int container_exec(const struct exec_options *options, int *ret_code, struct err *err);

/* Waits for a child, forwarding signals, with a terminal bytes, and with the descriptor of
 * notify_listen() what it notifies: foreground.c.
 * foreground_block is called before the child is made. */
void foreground_block(void);
/* A terminal whose output is put into ours: of the same size, and newlines are not translated
 * twice. To be done before anybody writes to it. */
void foreground_adopt(int master);
int foreground_wait(pid_t pid, int master_socket_fd, int notify_fd, int *ret_code, struct err *err);
