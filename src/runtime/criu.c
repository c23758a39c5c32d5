#include "runtime/criu.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/str.h"

#define RESPONSE_BYTES_MAX 65536
#define SOCKET_FD          3 /* in criu */
#define LOG_BYTES_MAX      ((size_t)64 << 20)

static int send_request(struct criu *criu, const struct criu_request *request, struct err *err)
{
        auto_buf message = { 0 };
        criu_encode(request, &message);
        ssize_t n;
        do
                n = send(criu->fd, message.data, message.size, MSG_NOSIGNAL);
        while (n < 0 && errno == EINTR);
        return n < 0 ? err_set(err, errno, "ask criu") : 0;
}

/* The descriptor that may come along; any more would be closed by the kernel, for which there is
 * no room. */
static int passed_fd(struct msghdr *message)
{
        struct cmsghdr *control = CMSG_FIRSTHDR(message);
        int fd = -1;
        if (control && control->cmsg_level == SOL_SOCKET && control->cmsg_type == SCM_RIGHTS &&
            control->cmsg_len >= CMSG_LEN(sizeof(fd)))
                memcpy(&fd, CMSG_DATA(control), sizeof(fd));
        return fd;
}

/* *ret_fd is to be closed, or -1. */
static int receive(struct criu *criu, struct criu_response *ret, int *ret_fd, struct err *err)
{
        union {
                char bytes[CMSG_SPACE(sizeof(int))];
                struct cmsghdr aligned;
        } control;
        auto_free char *bytes = xmalloc(RESPONSE_BYTES_MAX);
        struct iovec vector = { .iov_base = bytes, .iov_len = RESPONSE_BYTES_MAX };
        struct msghdr message = { .msg_iov = &vector,
                                  .msg_iovlen = 1,
                                  .msg_control = &control,
                                  .msg_controllen = sizeof(control) };
        ssize_t n;
        do
                n = recvmsg(criu->fd, &message, MSG_CMSG_CLOEXEC);
        while (n < 0 && errno == EINTR);
        if (n < 0 && errno != ECONNRESET)
                return err_set(err, errno, "hear from criu");
        if (n <= 0)
                return err_plain(err, EPIPE, "criu ended without an answer");
        auto_fd fd = passed_fd(&message);
        if (message.msg_flags & MSG_TRUNC)
                return err_plain(err, EMSGSIZE, "criu's answer is longer than %d bytes",
                                 RESPONSE_BYTES_MAX);
        int r = criu_decode(bytes, (size_t)n, ret, err);
        if (r == 0)
                *ret_fd = take_fd(fd);
        return r;
}

/* For requests that are answered without notifications. */
static int ask(struct criu *criu, const struct criu_request *request, struct criu_response *ret,
               struct err *err)
{
        auto_fd none = -1;
        int r = send_request(criu, request, err);
        if (r == 0)
                r = receive(criu, ret, &none, err);
        if (r < 0)
                return r;
        if (!ret->success || ret->kind != request->kind)
                return err_plain(err, EPROTO, "criu did not answer a request of kind %d%s%s",
                                 request->kind, *ret->message ? ": " : "", ret->message);
        return 0;
}

static void version_text(uint32_t version, char *to, size_t size)
{
        snprintf(to, size, version % 100 ? "%u.%u.%u" : "%u.%u", version / 10000,
                 version / 100 % 100, version % 100);
}

static int check_version(struct criu *criu, const char *program, struct err *err)
{
        struct criu_request request = { .kind = CRIU_VERSION, .keep_open = true };
        struct criu_response response;
        char have[24], need[24];
        int r = ask(criu, &request, &response, err);
        if (r < 0)
                return err_wrap(err, "version of '%s'", program);
        criu->version = response.version;
        if (response.version >= CRIU_VERSION_MIN)
                return 0;
        version_text(response.version, have, sizeof(have));
        version_text(CRIU_VERSION_MIN, need, sizeof(need));
        return err_plain(err, EOPNOTSUPP,
                         "'%s' is version %s, but checkpoint and restore need %s or newer; name "
                         "another with --criu",
                         program, have, need);
}

/* `quiet`: what it prints, of which its end without a request is one line, is not shown. */
static int start(const char *program, const struct spawn_fd *fds, size_t length, bool quiet,
                 struct criu *criu, struct err *err)
{
        int pair[2];
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
                return err_set(err, errno, "socketpair");
        criu->fd = pair[0];
        auto_fd theirs = pair[1];
        struct spawn_fd all[SPAWN_FDS_LIMIT] = { { 0, 0 }, { 1, 1 }, { theirs, SOCKET_FD } };
        size_t used = 3;
        if (!quiet)
                all[used++] = (struct spawn_fd){ 2, 2 };
        if (length > SPAWN_FDS_LIMIT - CRIU_FIRST_FD)
                return err_plain(err, E2BIG, "too many descriptors for criu");
        for (size_t i = 0; i < length; i++)
                all[used++] = fds[i];
        char *argv[] = { (char *)"criu", (char *)"swrk", (char *)"3", NULL };
        struct spawn spawn = { .path = program, .argv = argv, .fds = all, .fds_length = used };
        int r = spawn_process(&spawn, &criu->pid, NULL, err);
        if (r == -ENOENT)
                err_advise(err, "checkpoint and restore need criu: install it, or name it with "
                                "--criu");
        return r;
}

static int open_it(const char *program, const struct spawn_fd *fds, size_t fds_length, bool quiet,
                   struct criu *ret, struct err *err)
{
        *ret = (struct criu){ .fd = -1 };
        if (str_empty(program))
                program = CRIU_PROGRAM;
        int r = start(program, fds, fds_length, quiet, ret, err);
        if (r == 0)
                r = check_version(ret, program, err);
        if (r < 0)
                criu_close(ret);
        return r;
}

int criu_open(const char *program, const struct spawn_fd *fds, size_t fds_length, struct criu *ret,
              struct err *err)
{
        return open_it(program, fds, fds_length, false, ret, err);
}

bool criu_is_there(const char *program)
{
        auto_criu criu = { .fd = -1 };
        return open_it(program, NULL, 0, true, &criu, NULL) == 0;
}

void criu_close(struct criu *criu)
{
        close_fd(&criu->fd);
        while (criu->pid > 0 && waitpid(criu->pid, NULL, 0) < 0 && errno == EINTR)
                ;
        criu->pid = 0;
}

int criu_tracks_memory(struct criu *criu, struct err *err)
{
        struct criu_request request = { .kind = CRIU_FEATURE_CHECK,
                                        .keep_open = true,
                                        .ask_memory_tracking = true };
        struct criu_response response;
        int r = ask(criu, &request, &response, err);
        return r < 0 ? r : response.tracks_memory;
}

/* The first line of the log that tells an error, without CRIU's time and its own source line:
 * "(00.01)  1: Error (criu/files.c:1): Can't …". That it may not raise its limit of open files, it
 * only thinks worth telling. */
static char *find_error(const struct criu_options *options)
{
        int dirfd = options->work_fd >= 0 ? options->work_fd : options->images_fd;
        auto_free char *log = NULL;
        if (file_read(dirfd, options->log_file, LOG_BYTES_MAX, &log, NULL, NULL) < 0)
                return NULL;
        for (const char *line = log; (line = strstr(line, " Error ("));) {
                line++;
                const char *story = strstr(line, "): ");
                story = story ? story + 3 : line;
                if (!str_starts(story, "rlimit: "))
                        return xstrndup(story, strcspn(story, "\n"));
        }
        return NULL;
}

static int tell_failure(struct criu *criu, enum criu_kind kind, const struct criu_options *options,
                        const struct criu_response *response, struct err *err)
{
        char version[24], directory[4096], link[32];
        int dirfd = options->work_fd >= 0 ? options->work_fd : options->images_fd;
        auto_free char *story = find_error(options);
        if (!story && *response->message)
                story = xstrdup(response->message);
        version_text(criu->version, version, sizeof(version));
        snprintf(link, sizeof(link), "/proc/self/fd/%d", dirfd);
        ssize_t n = readlink(link, directory, sizeof(directory) - 1);
        directory[n < 0 ? 0 : n] = '\0';
        return err_plain(err, response->error > 0 ? response->error : EIO,
                         "criu %s failed to %s: %s; see %s/%s", version,
                         kind == CRIU_RESTORE ? "restore" : "dump",
                         story ? story : "it does not say why", directory, options->log_file);
}

static int answer(struct criu *criu, const struct criu_response *event, int fd,
                  const struct criu_listener *listener, struct err *err)
{
        struct criu_request request = { .kind = CRIU_NOTIFY, .notified = true };
        int told = 0;
        if (listener)
                told = listener->notify(listener->arg, event->script, event->pid, fd, err);
        request.success = told >= 0;
        int r = send_request(criu, &request, told < 0 ? NULL : err);
        return told < 0 ? told : r;
}

int criu_perform(struct criu *criu, enum criu_kind kind, const struct criu_options *options,
                 const struct criu_listener *listener, pid_t *ret_pid, struct err *err)
{
        struct criu_request request = { .kind = kind, .options = options };
        struct criu_response response = { 0 };
        int refused = 0; /* by the listener, whose story is the better one */
        /* What an earlier one of the same name says is no reason of this one's failure. */
        (void)unlinkat(options->work_fd >= 0 ? options->work_fd : options->images_fd,
                       options->log_file, 0);
        int r = send_request(criu, &request, err);
        while (r == 0) {
                auto_fd fd = -1;
                r = receive(criu, &response, &fd, refused < 0 ? NULL : err);
                if (r < 0 || response.kind != CRIU_NOTIFY || !response.success)
                        break;
                r = answer(criu, &response, fd, listener, refused < 0 ? NULL : err);
                if (r < 0 && refused == 0) {
                        refused = r;
                        r = 0;
                }
        }
        if (refused < 0)
                return refused;
        if (r == -EPIPE || (r == 0 && !response.success))
                return tell_failure(criu, kind, options, &response, err);
        if (r == 0 && response.kind != (uint32_t)kind)
                return err_plain(err, EPROTO, "criu answers with a message of kind %u",
                                 response.kind);
        if (r == 0 && ret_pid)
                *ret_pid = response.pid;
        return r;
}
