#include "engine/archive_guest.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "engine/command.h"
#include "sys/spawn.h"

struct extractor {
        pid_t pid;
        int input, output; /* ours: a socket, what it says */
};

static char **arguments(const struct engine *engine, const char *id, const struct extract *to)
{
        const struct engine_settings *settings = &engine->settings;
        auto_free char *owner = xasprintf("%u:%u", to->uid, to->gid);
        const char *fixed[] = { settings->runtime_path,
                                "--root",
                                settings->runtime_root,
                                "--log-format",
                                "json",
                                "extract",
                                "--name",
                                to->container };
        char **argv = NULL;
        for (size_t i = 0; i < ELEMENTS(fixed); i++)
                strv_push(&argv, fixed[i]);
        if (to->no_overwrite_dir_non_dir)
                strv_push(&argv, "--no-overwrite-dir-non-dir");
        if (to->has_owner) {
                strv_push(&argv, "--owner");
                strv_push(&argv, owner);
        }
        strv_push(&argv, id);
        strv_push(&argv, to->path);
        return argv;
}

static int start(char *const *argv, struct extractor *ret, struct err *err)
{
        int pair[2], ends[2];
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
                return err_set(err, errno, "make a socket");
        auto_fd ours = pair[0], theirs = pair[1];
        if (pipe2(ends, O_CLOEXEC) < 0)
                return err_set(err, errno, "make a pipe");
        auto_fd words = ends[0], said = ends[1];
        struct spawn_fd fds[] = { { theirs, 0 }, { said, 1 }, { said, 2 } };
        struct spawn spawn = {
                .path = argv[0], .argv = argv, .fds = fds, .fds_length = ELEMENTS(fds)
        };
        int r = spawn_process(&spawn, &ret->pid, NULL, err);
        if (r < 0)
                return r;
        ret->input = take_fd(ours);
        ret->output = take_fd(words);
        return 0;
}

/* Until its end, or until nobody takes more. */
static int feed(int fd, struct tar_source *source, struct err *err)
{
        const void *block;
        ssize_t size;
        while ((size = tar_source_read(source, &block, err)) > 0)
                for (const char *at = block; size > 0;) {
                        ssize_t n = send(fd, at, (size_t)size, MSG_NOSIGNAL);
                        if (n < 0 && errno == EINTR)
                                continue;
                        if (n < 0)
                                return 0; /* it says why */
                        at += n;
                        size -= n;
                }
        return (int)size;
}

/* The runtime ends with the number of the error. */
static int outcome(int status, const char *text, struct err *err)
{
        if (status == 0)
                return 0;
        auto_free char *message = runtime_message(text);
        int code = WIFEXITED(status) && WEXITSTATUS(status) > 1 ? WEXITSTATUS(status) : EIO;
        return err_plain(err, code, "%s", message ? message : "the runtime's extract was killed");
}

int archive_guest_put(struct engine *engine, const char *id, const struct extract *to,
                      struct tar_source *source, struct err *err)
{
        struct extractor extractor;
        auto_strv argv = arguments(engine, id, to);
        int r = start(argv, &extractor, err);
        if (r < 0)
                return r;
        auto_fd input = extractor.input, output = extractor.output;
        r = feed(input, source, err);
        if (r < 0) /* half an archive is not to look like a whole one */
                kill(extractor.pid, SIGKILL);
        close_fd(&input);
        auto_free char *text = NULL;
        int status;
        struct err ignored;
        int read = file_read_fd(output, COMMAND_OUTPUT_MAX, &text, NULL, &ignored);
        while (waitpid(extractor.pid, &status, 0) < 0 && errno == EINTR)
                ;
        return r < 0 ? r : outcome(status, read < 0 ? "" : text, err);
}
