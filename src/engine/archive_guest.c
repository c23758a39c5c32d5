#include "engine/archive_guest.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/file.h"
#include "codec/json.h"
#include "engine/command.h"
#include "sys/spawn.h"

/* --- into it --- */

struct extractor {
        pid_t pid;
        int input, output; /* ours: a socket, what it says */
};

/* RUNTIME --root … VERB --name NAME, without its last words. */
static char **arguments(const struct engine *engine, const char *verb, const char *name)
{
        const struct engine_settings *settings = &engine->settings;
        const char *fixed[] = { settings->runtime_path,
                                "--root",
                                settings->runtime_root,
                                "--log-format",
                                "json",
                                verb,
                                "--name",
                                name };
        char **argv = NULL;
        for (size_t i = 0; i < ELEMENTS(fixed); i++)
                strv_push(&argv, fixed[i]);
        return argv;
}

static char **extract_arguments(const struct engine *engine, const char *id,
                                const struct extract *to)
{
        auto_free char *owner = xasprintf("%u:%u", to->uid, to->gid);
        char **argv = arguments(engine, "extract", to->container);
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
static int outcome(const char *verb, int status, const char *text, struct err *err)
{
        if (status == 0)
                return 0;
        auto_free char *message = runtime_message(text);
        int code = WIFEXITED(status) && WEXITSTATUS(status) > 1 ? WEXITSTATUS(status) : EIO;
        if (message)
                return err_plain(err, code, "%s", message);
        return err_plain(err, code, "the runtime's %s was killed", verb);
}

/* What it says, until its end. */
static int ending(const char *verb, pid_t pid, int words, struct err *err)
{
        auto_free char *text = NULL;
        int status;
        struct err ignored;
        int read = file_read_fd(words, COMMAND_OUTPUT_MAX, &text, NULL, &ignored);
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
                ;
        return outcome(verb, status, read < 0 ? "" : text, err);
}

int archive_guest_put(struct engine *engine, const char *id, const struct extract *to,
                      struct tar_source *source, struct err *err)
{
        struct extractor extractor;
        struct err ignored;
        auto_strv argv = extract_arguments(engine, id, to);
        int r = start(argv, &extractor, err);
        if (r < 0)
                return r;
        auto_fd input = extractor.input, output = extractor.output;
        r = feed(input, source, err);
        if (r < 0) /* half an archive is not to look like a whole one */
                kill(extractor.pid, SIGKILL);
        close_fd(&input);
        int end = ending("extract", extractor.pid, output, r < 0 ? &ignored : err);
        return r < 0 ? r : end;
}

/* --- out of it --- */

#define FILE_LINE_MAX 65536

static const struct json_field file_fields[] = {
        JSON_FIELD(struct guest_file, "mode", JSON_UINT, mode, 0),
        JSON_FIELD(struct guest_file, "size_bytes", JSON_INT, size_bytes, 0),
        JSON_FIELD(struct guest_file, "mtime_ns", JSON_INT, mtime_ns, 0),
        JSON_FIELD(struct guest_file, "link", JSON_STRING, link, 0),
};
static const struct json_shape file_shape = JSON_SHAPE("file", struct guest_file, file_fields);

void guest_file_finish(struct guest_file *file)
{
        json_free(&file_shape, file);
}

static int start_archive(char *const *argv, struct archive_guest *ret, struct err *err)
{
        int ends[2];
        auto_fd reader = -1, writer = -1;
        int r = io_stream(&reader, &writer, err);
        if (r < 0)
                return r;
        if (pipe2(ends, O_CLOEXEC) < 0)
                return err_set(err, errno, "make a pipe");
        auto_fd words = ends[0], said = ends[1];
        struct spawn_fd fds[] = { { writer, 1 }, { said, 2 } };
        struct spawn spawn = {
                .path = argv[0], .argv = argv, .fds = fds, .fds_length = ELEMENTS(fds)
        };
        r = spawn_process(&spawn, &ret->pid, NULL, err);
        if (r < 0)
                return r;
        ret->archive = take_fd(reader);
        ret->writer = take_fd(writer);
        ret->words = take_fd(words);
        return 0;
}

/* The first line and nothing behind it, which is for another reader. We have the stream's other end
 * too: what ends without a line is seen by its words' end. 0 where there is none. */
static int read_file_line(const struct archive_guest *guest, struct buf *line, struct err *err)
{
        while (line->size < FILE_LINE_MAX) {
                struct pollfd entries[] = { { guest->archive, POLLIN, 0 },
                                            { guest->words, POLLIN, 0 } };
                char byte;
                if (poll(entries, ELEMENTS(entries), -1) < 0 && errno != EINTR)
                        return err_set(err, errno, "poll");
                if (entries[0].revents & POLLIN) {
                        if (io_read_full(guest->archive, &byte, 1) != 1 || byte == '\n')
                                return 1;
                        buf_putc(line, byte);
                } else if (entries[1].revents) {
                        return 0;
                }
        }
        return err_plain(err, EMSGSIZE, "what the runtime says of the file is too long");
}

int archive_guest_get(struct engine *engine, const char *id, const struct collect *from, bool look,
                      struct guest_file *ret_file, struct archive_guest *ret, struct err *err)
{
        struct archive_guest guest = { .archive = -1, .writer = -1, .words = -1 };
        auto_buf line = { 0 };
        auto_strv argv = arguments(engine, "archive", from->container);
        if (look)
                strv_push(&argv, "--look");
        strv_push(&argv, id);
        strv_push(&argv, from->path);
        int r = start_archive(argv, &guest, err);
        if (r == 0)
                r = read_file_line(&guest, &line, err);
        if (r == 0 || (r > 0 && look)) {
                int end = archive_guest_wait(&guest, err);
                r = end < 0 || r > 0
                            ? end
                            : err_plain(err, EPROTO, "the runtime says nothing of the file");
        }
        if (r >= 0)
                r = json_decode_text(&file_shape, line.data, line.size, ret_file, err);
        if (r < 0 || look)
                archive_guest_finish(&guest);
        else
                *ret = guest;
        return r;
}

int archive_guest_wait(struct archive_guest *guest, struct err *err)
{
        int r = ending("archive", guest->pid, guest->words, err);
        guest->pid = 0;
        if (r == 0)
                io_stream_end(guest->writer);
        return r;
}

void archive_guest_finish(struct archive_guest *guest)
{
        close_fd(&guest->archive);
        close_fd(&guest->writer);
        if (guest->pid) { /* nobody reads what it writes */
                kill(guest->pid, SIGKILL);
                while (waitpid(guest->pid, NULL, 0) < 0 && errno == EINTR)
                        ;
        }
        guest->pid = 0;
        close_fd(&guest->words);
}
