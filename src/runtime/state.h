/* What is known of a container between two calls of the runtime.
 *
 * ROOT/ID/ is a directory. A container exists from the first record in it to the
 * removal of that, which a delete does last of all but for the directory; whoever
 * locks one without a record has won the id. So what a killed create or delete
 * leaves without a record is no container to any verb, and in nobody's way. In it:
 *
 *   state.json   one record, replaced atomically; holds all that delete needs
 *                (cgroups, hooks, the whole config.json), so that no crash of
 *                the runtime leaves something nobody can find
 *   process      a link whose text is the first process's pid and start time, as soon
 *                as it exists: one system call where a new record would be four
 *   start.sock   while the container is created and not started: its first
 *                process waits there for `start`
 * *   status       called as crun: a link to the record, of which programs that know crun's
 *                state directory read external_descriptors
 *
 * Verbs that change the container hold flock(2) on the directory itself; the
 * lock dies with its holder. Reading needs no lock.
 *
 * A record is written before anything is made, with the names of what will be
 * (`creating` set, until there is the process), and anew when an update changes it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "oci/runtime_spec.h"
#include "sys/rdt.h"

#define STATE_PROCESS      "process"
#define STATE_SOCKET       "start.sock"
#define STATE_NOTIFY       "notify" /* a directory of notify.h */
#define STATE_MACHINE      "vm"     /* a directory of src/guest */
#define STATE_LOCK_WAIT_MS 10000

enum state_status {
        STATE_CREATING,
        STATE_CREATED,
        STATE_RUNNING,
        STATE_PAUSED,
        STATE_STOPPED,
};

const char *state_status_name(enum state_status status);

struct record {
        char *id, *oci_version, *bundle, *rootfs;
        char *created; /* RFC 3339 */
        bool creating;
        int64_t pid;
        uint64_t start_time;
        uint32_t owner;               /* uid of the caller of create */
        char **cgroups;               /* of cgroup_paths(); empty where there are none */
        char *scope;                  /* of the systemd driver: the unit; else NULL */
        char *systemd;                /* and the address of its manager */
        char *rdt_clos, *rdt_monitor; /* of struct rdt_group */
        bool rdt_own;
        char **descriptors;         /* of checkpoint_descriptors(); NULL with a terminal */
        char *external_descriptors; /* the same as crun has it: a JSON array as text; or NULL */
        char *notify_place;         /* where STATE_NOTIFY is mounted inside; or NULL */
        char **annotations;
        struct oci_spec *config; /* NULL when not asked for */
};

void record_finish(struct record *record);
/* Borrowed; without members where the container has none. */
struct rdt_group record_rdt(const struct record *record);
/* Text of a state.json; `with_config` decodes that too. */
int record_parse(const char *text, size_t size, bool with_config, struct record *ret,
                 struct err *err);

struct state {
        char *root, *id;
        int fd; /* of the directory; -1 */
        bool locked;
        struct stat written; /* of the record, as state_write() left it */
};

int state_check_id(const char *id, struct err *err);
/* Makes root (0711) and directory, and locks it. -EEXIST where the id is taken; a
 * directory that somebody killed has left without a record is made anew. */
int state_make(const char *root, const char *id, struct state *ret, struct err *err);
/* -ENOENT "container does not exist". With `lock` waits for other verbs. */
int state_open(const char *root, const char *id, bool lock, struct state *ret, struct err *err);
int state_lock(struct state *state, struct err *err);
void state_unlock(struct state *state);
void state_close(struct state *state);

/* `config` is the text of config.json. */
int state_write(struct state *state, const struct record *record, const char *config,
                struct err *err);
/* The link `status`. */
int state_link_status(struct state *state, struct err *err);
/* The process of the record now is `pid`: no longer `creating`. */
int state_write_process(struct state *state, pid_t pid, uint64_t start_time, struct err *err);
/* Whether the record is still the one that state_write() wrote through `state`. */
bool state_is_as_written(struct state *state);
/* -ENOENT where the creation has not got that far. */
int state_read(struct state *state, bool with_config, struct record *ret, struct err *err);
int state_remove(struct state *state, struct err *err);
int state_status(struct state *state, const struct record *record, enum state_status *ret,
                 struct err *err);
/* It runs in a virtual machine: src/guest made STATE_MACHINE. */
bool state_has_machine(const char *root, const char *id);
/* Ids of all containers under `root`, sorted; a missing root has none. */
int state_list(const char *root, char ***ret_ids, struct err *err);

#define auto_state  __attribute__((cleanup(state_close))) struct state
#define auto_record __attribute__((cleanup(record_finish))) struct record
