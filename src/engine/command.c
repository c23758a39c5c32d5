#include "engine/command.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "codec/json.h"
#include "engine/child.h"
#include "sys/spawn.h"

struct command {
        struct engine *engine;
        struct list node;
        char *name; /* for errors: "isle-runtime kill" */
        struct child *child;
        struct loop_source *io, *timer;
        int fd;
        struct buf output;
        bool timed_out;
        int status;
        engine_done *done;
        void *arg;
        struct err err; /* of a failed start */
};

static void command_free(struct command *command)
{
        list_remove(&command->node);
        loop_source_destroy(command->io);
        loop_source_destroy(command->timer);
        close_fd(&command->fd);
        buf_finish(&command->output);
        free(command->name);
        free(command);
}

static void read_output(struct command *command)
{
        char buffer[4096];
        for (;;) {
                ssize_t n = read(command->fd, buffer, sizeof(buffer));
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0 && errno == EAGAIN)
                        return;
                if (n <= 0) {
                        loop_source_destroy(command->io);
                        command->io = NULL;
                        return;
                }
                buf_append(&command->output, buffer, (size_t)n);
        }
}

static void output_ready(void *arg, uint32_t events)
{
        (void)events;
        read_output(arg);
}

/* "msg" of one line of a JSON log, or NULL. */
static char *line_message(const char *line)
{
        auto_json object = NULL;
        struct json_object *message;
        if (*line != '{' || json_parse(line, strlen(line), &object, NULL) < 0 ||
            json_object_get_type(object) != json_type_object ||
            !json_object_object_get_ex(object, "msg", &message))
                return NULL;
        return xstrdup(json_object_get_string(message));
}

char *runtime_message(const char *output)
{
        char *found = NULL, *last = NULL;
        auto_strv lines = str_split(output, '\n');
        for (char **line = lines; *line; line++) {
                char *message = line_message(*line);
                if (message) {
                        free(found);
                        found = message;
                } else if (**line) {
                        last = *line;
                }
        }
        return found ? found : last ? xstrdup(last) : NULL;
}

static void command_finish(struct command *command)
{
        struct err err = command->err;
        if (!err.code && command->timed_out) {
                err_plain(&err, ETIMEDOUT, "%s did not end within %lld s and was killed",
                          command->name, COMMAND_TIMEOUT_NS / 1000000000LL);
        } else if (!err.code && command->status != 0) {
                auto_free char *message = runtime_message(buf_text(&command->output));
                if (message)
                        err_plain(&err, EIO, "%s", message);
                else if (WIFSIGNALED(command->status))
                        err_plain(&err, EIO, "%s was killed by signal %d", command->name,
                                  WTERMSIG(command->status));
                else
                        err_plain(&err, EIO, "%s ended with exit code %d", command->name,
                                  WEXITSTATUS(command->status));
        }
        engine_done *done = command->done;
        void *arg = command->arg;
        command_free(command);
        if (done)
                done(arg, -err.code, err.code ? &err : NULL);
}

static void command_exited(void *arg, int status)
{
        struct command *command = arg;
        command->child = NULL;
        command->status = status;
        if (command->io)
                read_output(command);
        command_finish(command);
}

static void command_expired(void *arg)
{
        struct command *command = arg;
        command->timed_out = true;
        child_signal(command->child, SIGKILL);
}

static void command_failed(void *arg)
{
        command_finish(arg);
}

static int command_start(struct command *command, char *const *argv, struct err *err)
{
        int ends[2];
        if (pipe2(ends, O_CLOEXEC) < 0)
                return err_set(err, errno, "make a pipe");
        command->fd = ends[0];
        auto_fd theirs = ends[1];
        fcntl(command->fd, F_SETFL, O_NONBLOCK);
        struct loop *loop = command->engine->loop;
        int r = loop_io(loop, command->fd, EPOLLIN, output_ready, command, &command->io, err);
        if (r == 0)
                r = loop_timer(loop, command_expired, command, &command->timer, err);
        if (r < 0)
                return r;
        struct spawn_fd fds[] = { { theirs, 1 }, { theirs, 2 } };
        struct spawn spawn = { .path = argv[0], .argv = argv, .fds = fds, .fds_length = 2 };
        pid_t pid;
        int pidfd;
        r = spawn_process(&spawn, &pid, &pidfd, err);
        if (r == 0)
                r = child_watch(command->engine, pidfd, true, command_exited, command,
                                &command->child, err);
        loop_timer_arm(command->timer, COMMAND_TIMEOUT_NS);
        return r;
}

void command_run(struct engine *engine, char *const *argv, engine_done *done, void *arg)
{
        struct command *command = new0(struct command);
        const char *slash = strrchr(argv[0], '/');
        *command = (struct command){
                .engine = engine,
                .name = xstrdup(slash ? slash + 1 : argv[0]),
                .fd = -1,
                .output.limit_bytes = COMMAND_OUTPUT_MAX,
                .done = done,
                .arg = arg,
        };
        list_append(&engine->commands, &command->node);
        if (command_start(command, argv, &command->err) < 0)
                loop_defer(engine->loop, command_failed, command);
}

void runtime_run(struct engine *engine, engine_done *done, void *arg, const char *verb, ...)
{
        const char *argv[24] = { engine->settings.runtime_path,
                                 "--root",
                                 engine->settings.runtime_root,
                                 "--log-format",
                                 "json",
                                 verb };
        size_t n = 6;
        va_list ap;
        va_start(ap, verb);
        const char *next;
        while ((next = va_arg(ap, const char *)) && n < ELEMENTS(argv) - 1)
                argv[n++] = next;
        va_end(ap);
        argv[n] = NULL;
        command_run(engine, (char *const *)argv, done, arg);
}

void commands_destroy(struct engine *engine)
{
        list_for_each_safe (struct command, command, &engine->commands, node)
                command_free(command);
}
