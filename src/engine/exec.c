/* Exec sessions. Each is one more monitor process, in RUN/execs/ID:
 *
 *   process.json   what runs, for the runtime
 *   exec.json      what was asked for, for an isled that comes later
 *   monitor.*      as with instances */
#include "engine/exec.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/rand.h"
#include "codec/json.h"
#include "engine/bundle.h"
#include "engine/core.h"
#include "engine/files.h"
#include "engine/link.h"
#include "engine/operation.h"
#include "engine/run.h"
#include "engine/security.h"
#include "engine/users.h"

#define EXEC_FILE_NAME "exec.json"
#define EXECS_MAX      1024 /* of one instance */

#define T struct exec_config
static const struct json_field config_fields[] = {
        JSON_FIELD(T, "User", JSON_STRING, user, JSON_KEEP_EMPTY),
        JSON_FIELD(T, "Privileged", JSON_BOOL, privileged, JSON_KEEP_EMPTY),
        JSON_FIELD(T, "Tty", JSON_BOOL, tty, JSON_KEEP_EMPTY),
        JSON_FIELD_UINTV(T, "ConsoleSize", console_size, console_size_length, 0),
        JSON_FIELD(T, "AttachStdin", JSON_BOOL, attach_stdin, JSON_KEEP_EMPTY),
        JSON_FIELD(T, "AttachStderr", JSON_BOOL, attach_stderr, JSON_KEEP_EMPTY),
        JSON_FIELD(T, "AttachStdout", JSON_BOOL, attach_stdout, JSON_KEEP_EMPTY),
        JSON_FIELD(T, "DetachKeys", JSON_STRING, detach_keys, JSON_KEEP_EMPTY),
        JSON_FIELD(T, "Env", JSON_STRV, env, 0),
        JSON_FIELD(T, "WorkingDir", JSON_STRING, working_dir, JSON_KEEP_EMPTY),
        JSON_FIELD(T, "Cmd", JSON_STRV, cmd, JSON_KEEP_EMPTY | JSON_OR_STRING),
};
const struct json_shape exec_config_shape = JSON_SHAPE("exec", T, config_fields);
#undef T

struct exec_private {
        struct engine *engine;
        struct instance *instance; /* a reference */
        struct list node;          /* of the instance */
        struct link link;
        struct link_process process;
        unsigned references; /* the table's, and a worker's */
        struct loop_source *expiry;
        bool ended;
        bool passing; /* nobody asks for it after its end */
        bool killed;
        void (*tell_ended)(void *arg, int exit_code);
        void *tell_arg;
        /* of the start under way */
        pid_t instance_pid;
        uint16_t rows, columns;
        int client_fd;
        void *early;
        size_t early_size;
        int r;
        struct err err;
        engine_done *done;
        void *arg;
};

static struct exec *exec_new(struct instance *instance, const char *id)
{
        struct engine *engine = instance_engine(instance);
        struct exec *exec = new0(struct exec);
        memcpy(exec->id, id, INSTANCE_ID_SIZE);
        memcpy(exec->instance_id, instance->id, INSTANCE_ID_SIZE);
        exec->private = new0(struct exec_private);
        *exec->private = (struct exec_private){
                .engine = engine,
                .instance = instance_ref(instance),
                .link.fd = -1,
                .process = { .control_fd = -1, .pidfd = -1 },
                .references = 1,
                .client_fd = -1,
        };
        list_append(&instance->private->execs, &exec->private->node);
        table_put(&engine->execs, exec->id, exec);
        return exec;
}

static void exec_unref(struct exec *exec)
{
        struct exec_private *p = exec->private;
        if (--p->references)
                return;
        link_close(&p->link);
        close_fd(&p->process.control_fd);
        close_fd(&p->process.pidfd);
        close_fd(&p->client_fd);
        loop_source_destroy(p->expiry);
        list_remove(&p->node);
        instance_unref(p->instance);
        free(p->early);
        json_free(&exec_config_shape, &exec->config);
        free(p);
        free(exec);
}

static void exec_forget(struct exec *exec)
{
        struct engine *engine = exec->private->engine;
        if (table_get(&engine->execs, exec->id) != exec)
                return;
        table_remove(&engine->execs, exec->id);
        list_remove(&exec->private->node);
        exec_unref(exec);
}

static char *exec_dir(const struct engine *engine, const char *id)
{
        return xasprintf("%s/%s", engine->run_execs_dir, id);
}

static void exec_event(struct exec *exec, const char *action, bool with_command, const char *extra)
{
        auto_free char *command = strv_join(exec->config.cmd, " ");
        auto_free char *text = with_command ? xasprintf("%s: %s", action, command)
                                            : xstrdup(action);
        auto_free char *id = xasprintf("execID=%s", exec->id);
        instance_event(exec->private->instance, text, (const char *const[]){ id, extra, NULL });
}

int exec_create(struct instance *instance, const struct exec_config *config,
                const struct exec **ret, struct err *err)
{
        size_t length = 0;
        if (instance->state == INSTANCE_PAUSED)
                return err_plain(err, EBUSY,
                                 "Container %s is paused, unpause the container before "
                                 "exec",
                                 instance->name);
        if (instance->state != INSTANCE_RUNNING)
                return err_plain(err, EBUSY, "container %s is not running", instance->id);
        if (!config->cmd || !*config->cmd)
                return err_plain(err, EINVAL, "No exec command specified");
        int r = detach_keys_check(config->detach_keys, err);
        if (r < 0)
                return r;
        list_for_each (struct exec_private, other, &instance->private->execs, node)
                length++;
        if (length >= EXECS_MAX)
                return err_plain(err, EBUSY, "container %s has %d exec sessions already",
                                 instance->name, EXECS_MAX);
        char id[INSTANCE_ID_SIZE];
        rand_hex(id, INSTANCE_ID_SIZE - 1);
        struct exec *exec = exec_new(instance, id);
        auto_json object = json_encode(&exec_config_shape, config);
        if (json_decode(&exec_config_shape, object, &exec->config, NULL) < 0)
                abort();
        exec_event(exec, "exec_create", true, NULL);
        *ret = exec;
        return 0;
}

struct exec *exec_find(struct engine *engine, const char *id, struct err *err)
{
        struct exec *exec = table_get(&engine->execs, id);
        if (!exec)
                err_plain(err, ENOENT, "No such exec instance: %.200s", id);
        else /* a client that saw the end of the output must see the exit code */
                link_drain(&exec->private->link);
        return exec;
}

char **exec_ids(const struct instance *instance)
{
        char **ids = NULL;
        const struct table_entry *entry;
        const struct engine *engine = instance_engine(instance);
        for (size_t cursor = 0; (entry = table_next(&engine->execs, &cursor));) {
                const struct exec *exec = entry->value;
                if (streq(exec->instance_id, instance->id) && !exec->private->ended)
                        strv_push(&ids, exec->id);
        }
        return ids;
}

int exec_start_check(const struct exec *exec, struct err *err)
{
        const struct instance *instance = exec->private->instance;
        if (exec->started)
                return err_plain(err, EBUSY, "exec command %s has already run", exec->id);
        if (instance->state == INSTANCE_PAUSED)
                return err_plain(err, EBUSY,
                                 "Container %s is paused, unpause the container before "
                                 "exec",
                                 instance->name);
        if (instance->state != INSTANCE_RUNNING)
                return err_plain(err, EBUSY, "container %s is not running", instance->id);
        return 0;
}

/* -- the end ------------------------------------------------------------------- */

static void exec_expired(void *arg)
{
        exec_forget(arg);
}

static void exec_ended(struct exec *exec, int exit_code)
{
        struct exec_private *p = exec->private;
        if (p->ended)
                return;
        p->ended = true;
        exec->running = false;
        exec->pid = 0;
        exec->has_exit_code = true;
        exec->exit_code = exit_code;
        auto_free char *code = xasprintf("exitCode=%d", exit_code);
        if (p->instance->state != INSTANCE_REMOVED)
                exec_event(exec, "exec_die", false, code);
        if (p->tell_ended)
                p->tell_ended(p->tell_arg, exit_code);
        if (loop_timer(p->engine->loop, exec_expired, exec, &p->expiry, NULL) == 0)
                loop_timer_arm(p->expiry, EXEC_KEPT_S * NS_PER_S);
}

/* After its end: there is no monitor any more. */
static void exec_settled(struct exec *exec)
{
        struct exec_private *p = exec->private;
        link_close(&p->link);
        auto_free char *dir = exec_dir(p->engine, exec->id);
        file_remove_tree(AT_FDCWD, dir, NULL);
        /* Later, for whoever calls may still look at it. */
        if (p->passing && p->expiry)
                loop_timer_arm(p->expiry, 0);
}

static void answer(struct exec *exec, int r, const struct err *err)
{
        struct exec_private *p = exec->private;
        engine_done *done = p->done;
        p->done = NULL;
        answer_later(p->engine, r, err, done, p->arg);
}

/* Docker shows what went wrong where the output would have come. */
static void tell_client(struct exec *exec, const char *text)
{
        struct exec_private *p = exec->private;
        if (p->client_fd < 0)
                return;
        auto_free char *line = xasprintf("%s\r\n", text);
        size_t size = strlen(line);
        const char header[8] = { 1, 0, 0, 0, 0, 0, (char)(size >> 8), (char)size };
        if (!exec->config.tty)
                send(p->client_fd, header, sizeof(header), MSG_DONTWAIT | MSG_NOSIGNAL);
        send(p->client_fd, line, size, MSG_DONTWAIT | MSG_NOSIGNAL);
        shutdown(p->client_fd, SHUT_WR);
        close_fd(&p->client_fd);
}

static void exec_failed(struct exec *exec, const struct err *why)
{
        struct err text = *why;
        int code = run_failure_code(text.text);
        err_plain(&text, code == 128 ? EIO : ENOEXEC, "OCI runtime exec failed: %s", why->text);
        tell_client(exec, text.text);
        exec_ended(exec, code == 128 ? 126 : code);
        answer(exec, -text.code, &text);
}

static void exec_state(void *arg, const struct monitor_message *state)
{
        struct exec *exec = arg;
        struct err err;
        switch (state->phase) {
        case MONITOR_RUNNING:
                exec->running = true;
                exec->pid = state->pid;
                close_fd(&exec->private->client_fd);
                answer(exec, 0, NULL);
                break;
        case MONITOR_EXITED:
                close_fd(&exec->private->client_fd);
                answer(exec, 0, NULL);
                exec_ended(exec, state->exit_code);
                break;
        case MONITOR_FAILED:
                if (!exec->private->ended) {
                        err_plain(&err, EIO, "%.*s", (int)state->text_size, state->text);
                        exec_failed(exec, &err);
                }
                break;
        default:
                break;
        }
}

static void exec_detached(void *arg)
{
        exec_event(arg, "exec_detach", false, NULL);
}

static void exec_gone(void *arg)
{
        struct exec *exec = arg;
        struct exec_private *p = exec->private;
        if (!p->ended && p->done) {
                struct err err;
                err_plain(&err, EIO, "its monitor died");
                exec_failed(exec, &err);
        } else if (!p->ended) {
                exec_ended(exec, 137);
        }
        exec_settled(exec);
}

static const struct link_events exec_link_events = { exec_state, exec_detached, exec_gone };

/* -- the start, on a worker ---------------------------------------------------- */

static int build_process(const struct exec *exec, int root_fd, struct oci_process *p,
                         struct err *err)
{
        const struct instance *i = exec->private->instance;
        const struct exec_config *config = &exec->config;
        struct user_found user;
        int r = user_lookup(root_fd, str_empty(config->user) ? i->spec.config.user : config->user,
                            i->spec.host.group_add, &user, err);
        if (r < 0)
                return r;
        struct security security;
        auto_strv warnings = NULL;
        struct host_config host = i->spec.host;
        host.privileged = host.privileged || config->privileged;
        r = security_parse(&host, &security, &warnings, err);
        if (r < 0) {
                user_found_finish(&user);
                return r;
        }
        auto_free char *hostname = files_hostname(i);
        auto_strv env = strv_copy(i->spec.config.env);
        for (char **e = config->env; e && *e; e++)
                strv_push(&env, *e);
        const char *cwd = !str_empty(config->working_dir) ? config->working_dir
                                                          : i->spec.config.working_dir;
        *p = (struct oci_process){
                .terminal = config->tty,
                .user = { .uid = user.uid,
                          .gid = user.gid,
                          .additional_gids = take_ptr(user.groups),
                          .additional_gids_length = user.groups_length },
                .args = strv_copy(config->cmd),
                .env = bundle_environment(env, hostname, user.home, config->tty),
                .cwd = xstrdup(str_empty(cwd) ? "/" : cwd),
                .capabilities = bundle_capabilities(security.capabilities, user.uid == 0),
                .no_new_privileges = security.no_new_privileges,
                .oom_score_adj = (int32_t)i->spec.host.oom_score_adj,
                .has_oom_score_adj = true,
        };
        bundle_add_rlimits(&i->spec.host, p);
        if (config->tty && exec->private->rows && exec->private->columns) {
                p->console_size = new0(struct oci_console_size);
                *p->console_size = (struct oci_console_size){ exec->private->rows,
                                                              exec->private->columns };
        }
        security_finish(&security);
        user_found_finish(&user);
        return 0;
}

static int write_text(const char *dir, const char *name, char *text, struct err *err)
{
        auto_free char *owned = text;
        auto_free char *path = xasprintf("%s/%s", dir, name);
        return file_replace(AT_FDCWD, path, owned, strlen(owned), 0600, false, err);
}

/* exec.json: the configuration, whose it is, and whether it is the engine's own. */
static char *describe(const struct exec *exec)
{
        auto_json object = json_encode(&exec_config_shape, &exec->config);
        json_object_object_add(object, "Container", json_object_new_string(exec->instance_id));
        if (exec->private->passing)
                json_object_object_add(object, "Passing", json_object_new_boolean(true));
        return json_text(object, false);
}

static int spawn_monitor(const struct exec *exec, const char *dir, int lock_fd,
                         struct link_process *ret, struct err *err)
{
        const struct engine_settings *settings = &exec->private->engine->settings;
        auto_free char *rows = xasprintf("%u", exec->private->rows);
        auto_free char *columns = xasprintf("%u", exec->private->columns);
        const char *argv[24] = { settings->monitor_path,
                                 "exec",
                                 "--id",
                                 exec->instance_id,
                                 "--runtime",
                                 settings->runtime_path,
                                 "--runtime-root",
                                 settings->runtime_root,
                                 "--rows",
                                 rows,
                                 "--columns",
                                 columns,
                                 "--stdin-once" };
        size_t n = 13;
        if (exec->config.tty)
                argv[n++] = "--tty";
        if (exec->config.attach_stdin)
                argv[n++] = "--stdin";
        argv[n] = NULL;
        return link_spawn((char *const *)argv, dir, lock_fd, -1, ret, err);
}

static int prepare(struct exec *exec, struct err *err)
{
        struct exec_private *p = exec->private;
        auto_free char *dir = exec_dir(p->engine, exec->id);
        auto_fd root_fd = -1;
        struct oci_process process = { 0 };
        int r = instance_open_live_root(p->instance, p->instance_pid, "etc", &root_fd, err);
        if (r == -EBUSY)
                return err_plain(err, EBUSY, "container %s is not running", exec->instance_id);
        if (r == 0)
                r = build_process(exec, root_fd, &process, err);
        if (r < 0)
                return r;
        char *text = json_encode_text(&oci_process_shape, &process, false);
        json_free(&oci_process_shape, &process);
        if (mkdir(dir, 0700) < 0) {
                free(text);
                return err_set(err, errno, "make '%s'", dir);
        }
        auto_fd lock = -1;
        r = write_text(dir, MONITOR_PROCESS_NAME, text, err);
        if (r == 0)
                r = write_text(dir, EXEC_FILE_NAME, describe(exec), err);
        if (r == 0)
                r = link_lock(dir, &lock, err);
        if (r == 1)
                r = spawn_monitor(exec, dir, lock, &p->process, err);
        return r;
}

static void prepare_in_worker(void *arg)
{
        struct exec *exec = arg;
        exec->private->r = prepare(exec, &exec->private->err);
}

/* The client's connection goes to the monitor; a copy stays for a failed start. */
static int hand_over(struct exec *exec, struct err *err)
{
        struct exec_private *p = exec->private;
        if (p->client_fd < 0)
                return 0;
        uint8_t keys[MONITOR_KEYS_MAX];
        struct monitor_message message;
        struct attach_options options = {
                .in = exec->config.attach_stdin,
                .out = exec->config.attach_stdout,
                .err = exec->config.attach_stderr,
                .detach_keys = exec->config.detach_keys,
                .early = p->early,
                .early_size = p->early_size,
        };
        int r = attach_message(&options, keys, &message, err);
        if (r == 0)
                r = link_send(&p->link, &message, p->client_fd);
        return r;
}

static void prepared(void *arg)
{
        struct exec *exec = arg;
        struct exec_private *p = exec->private;
        struct link_process process = p->process;
        p->process = (struct link_process){ .control_fd = -1, .pidfd = -1 };
        int r = p->r;
        if (r == 0)
                r = link_open(&p->link, p->engine, &process, &exec_link_events, exec, &p->err);
        if (r == 0)
                r = hand_over(exec, &p->err);
        if (r == 0 && p->killed) {
                link_kill(&p->link);
        } else if (r == 0) {
                struct monitor_message start = { .kind = MONITOR_START };
                link_send(&p->link, &start, -1);
                exec_event(exec, "exec_start", true, NULL);
        } else {
                struct err err = p->err;
                exec_failed(exec, &err);
                exec_settled(exec);
        }
        exec_unref(exec);
}

static int check_start(const struct exec *exec, const struct exec_start_options *options,
                       struct err *err)
{
        int r = exec_start_check(exec, err);
        if (r < 0)
                return r;
        if (options->early_size > MONITOR_EARLY_MAX)
                return err_plain(err, EMSGSIZE, "more than %d bytes of input before the reply",
                                 MONITOR_EARLY_MAX);
        return 0;
}

void exec_start(struct exec *exec, const struct exec_start_options *options, engine_done *done,
                void *arg)
{
        struct exec_private *p = exec->private;
        auto_fd client = options->detach ? -1 : options->client_fd;
        struct err err = { 0 };
        int r = check_start(exec, options, &err);
        if (r < 0) {
                answer_later(p->engine, r, &err, done, arg);
                return;
        }
        exec->started = true;
        p->passing = options->ended != NULL;
        p->tell_ended = options->ended;
        p->tell_arg = options->ended_arg;
        p->done = done;
        p->arg = arg;
        p->client_fd = take_fd(client);
        p->rows = options->rows;
        p->columns = options->columns;
        if (!p->rows && exec->config.console_size_length == 2) {
                p->rows = (uint16_t)exec->config.console_size[0];
                p->columns = (uint16_t)exec->config.console_size[1];
        }
        p->early = options->early_size ? xmemdup(options->early, options->early_size) : NULL;
        p->early_size = options->early_size;
        p->instance_pid = p->instance->pid;
        p->references++;
        workers_submit(p->engine->workers, prepare_in_worker, prepared, exec);
}

void exec_kill(struct exec *exec)
{
        struct exec_private *p = exec->private;
        struct monitor_message message = { .kind = MONITOR_KILL };
        p->killed = true;
        if (!p->ended)
                link_send(&p->link, &message, -1);
}

void exec_abort(struct exec *exec)
{
        if (exec->running || exec->private->link.fd < 0)
                exec_kill(exec);
        else
                link_kill(&exec->private->link);
}

int exec_resize(struct exec *exec, uint16_t rows, uint16_t columns, struct err *err)
{
        struct exec_private *p = exec->private;
        struct monitor_message message = { .kind = MONITOR_RESIZE,
                                           .rows = rows,
                                           .columns = columns };
        if (p->ended || !exec->started)
                return err_plain(err, EBUSY, "exec %s is not running", exec->id);
        if (p->link.fd < 0) { /* about to start: it begins with this size */
                p->rows = rows;
                p->columns = columns;
                return 0;
        }
        int r = link_send(&p->link, &message, -1);
        return r < 0 ? err_set(err, -r, "resize the terminal of exec %s", exec->id) : 0;
}

/* -- instances come and go ----------------------------------------------------- */

void execs_instance_ended(struct instance *instance)
{
        /* Their processes die with the pid name space; what is left in a shared one is
         * told by their monitors. */
        (void)instance;
}

void execs_instance_removed(struct instance *instance)
{
        struct engine *engine = instance_engine(instance);
        auto_strv ids = NULL;
        const struct table_entry *entry;
        for (size_t cursor = 0; (entry = table_next(&engine->execs, &cursor));)
                if (streq(((struct exec *)entry->value)->instance_id, instance->id))
                        strv_push(&ids, entry->key);
        for (char **id = ids; id && *id; id++) {
                struct exec *exec = table_get(&engine->execs, *id);
                struct exec_private *p = exec->private;
                /* What still has a monitor, or will have one, goes with it. */
                p->passing = true;
                if (p->link.fd < 0 && p->references == 1)
                        exec_forget(exec);
        }
}

void execs_destroy(struct engine *engine)
{
        for (;;) {
                size_t cursor = 0;
                const struct table_entry *entry = table_next(&engine->execs, &cursor);
                if (!entry)
                        return;
                exec_forget(entry->value);
        }
}

/* -- start of isled ------------------------------------------------------------ */

/* Takes over a session whose monitor lives; false where that cannot be. */
static bool adopt(struct engine *engine, const char *id, const char *dir)
{
        auto_free char *path = xasprintf("%s/%s", dir, EXEC_FILE_NAME);
        auto_free char *text = NULL;
        auto_json object = NULL;
        size_t size;
        struct json_object *container, *passing;
        if (file_read(AT_FDCWD, path, 1 << 20, &text, &size, NULL) < 0 ||
            json_parse(text, size, &object, NULL) < 0 ||
            json_object_get_type(object) != json_type_object ||
            !json_object_object_get_ex(object, "Container", &container))
                return false;
        struct instance *instance = table_get(&engine->by_id, json_object_get_string(container));
        if (!instance)
                return false;
        struct exec *exec = exec_new(instance, id);
        exec->started = true;
        if (json_decode(&exec_config_shape, object, &exec->config, NULL) < 0 ||
            link_connect(&exec->private->link, engine, dir, &exec_link_events, exec, NULL) < 0) {
                exec_forget(exec);
                return false;
        }
        if (json_object_object_get_ex(object, "Passing", &passing)) {
                exec->private->passing = true;
                exec_kill(exec);
        }
        return true;
}

int execs_reconcile(struct engine *engine, struct err *err)
{
        auto_dir dir = opendir(engine->run_execs_dir);
        if (!dir)
                return err_set(err, errno, "open '%s'", engine->run_execs_dir);
        struct dirent *entry;
        while ((entry = readdir(dir))) {
                if (strlen(entry->d_name) != INSTANCE_ID_SIZE - 1)
                        continue;
                auto_free char *path = exec_dir(engine, entry->d_name);
                auto_fd lock = -1;
                int r = link_lock(path, &lock, NULL);
                if (r == 0 && adopt(engine, entry->d_name, path))
                        continue;
                pid_t pid = link_lock_pid(path);
                if (r == 0 && pid > 1)
                        kill(-pid, SIGKILL);
                file_remove_tree(AT_FDCWD, path, NULL);
        }
        return 0;
}
