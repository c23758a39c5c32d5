#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/agent.h"
#include "base/auto.h"
#include "base/str.h"
#include "sys/process.h"
#include "sys/spawn.h"

#define OUTPUT_SIZE_MAX ((size_t)1 << 20)
#define LOG_PATH        "/run/isle/runtime.log"
#define LOG_SIZE_MAX    ((size_t)64 << 10)
#define CHUNK_BYTES     4096

struct pipe_pair {
        int read_end, write_end;
};

static int make_pipe(struct pipe_pair *ret, struct err *err)
{
        int fds[2];
        if (pipe2(fds, O_CLOEXEC) < 0)
                return err_set(err, errno, "pipe");
        ret->read_end = fds[0];
        ret->write_end = fds[1];
        return 0;
}

/* Reads both to their ends; what exceeds the bound is read and dropped. */
static void collect(int output, int errors, struct runtime_run *run)
{
        struct pollfd entries[] = { { output, POLLIN, 0 }, { errors, POLLIN, 0 } };
        struct buf *to[] = { &run->output, &run->errors };
        while (entries[0].fd >= 0 || entries[1].fd >= 0) {
                if (poll(entries, 2, -1) < 0 && errno != EINTR)
                        return;
                for (int i = 0; i < 2; i++) {
                        char bytes[CHUNK_BYTES];
                        if (entries[i].fd < 0 || !entries[i].revents)
                                continue;
                        ssize_t n = read(entries[i].fd, bytes, sizeof(bytes));
                        if (n > 0)
                                (void)buf_append(to[i], bytes, (size_t)n);
                        else if (n == 0 || errno != EINTR)
                                entries[i].fd = -1;
                }
        }
}

int runtime_run(struct runtime_run *run, struct err *err)
{
        struct pipe_pair out = { -1, -1 }, errors = { -1, -1 };
        run->output.limit_bytes = run->errors.limit_bytes = OUTPUT_SIZE_MAX;
        auto_strv argv = NULL;
        strv_push(&argv, AGENT_RUNTIME);
        if (run->fds[2] >= 0) { /* its own words must not mix with the process's */
                (void)unlink(LOG_PATH);
                strv_push(&argv, "--log");
                strv_push(&argv, LOG_PATH);
        }
        for (char *const *arg = run->argv; *arg; arg++)
                strv_push(&argv, *arg);
        int r = run->fds[1] < 0 ? make_pipe(&out, err) : 0;
        if (r == 0 && run->fds[2] < 0)
                r = make_pipe(&errors, err);
        auto_fd out_read = out.read_end, out_write = out.write_end;
        auto_fd errors_read = errors.read_end, errors_write = errors.write_end;
        if (r < 0)
                return r;
        struct spawn_fd fds[AGENT_STREAMS];
        size_t length = 0;
        if (run->fds[0] >= 0)
                fds[length++] = (struct spawn_fd){ run->fds[0], 0 };
        fds[length++] = (struct spawn_fd){ run->fds[1] < 0 ? out_write : run->fds[1], 1 };
        fds[length++] = (struct spawn_fd){ run->fds[2] < 0 ? errors_write : run->fds[2], 2 };
        struct spawn spawn = {
                .path = AGENT_RUNTIME, .argv = argv, .fds = fds, .fds_length = length
        };
        pid_t pid;
        r = spawn_process(&spawn, &pid, NULL, err);
        close_fd(&out_write);
        close_fd(&errors_write);
        if (r < 0)
                return r;
        collect(out_read, errors_read, run);
        int status = 0;
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
                ;
        run->code = process_exit_code(status);
        if (run->fds[2] >= 0) {
                auto_fd log = open(LOG_PATH, O_RDONLY | O_CLOEXEC);
                char bytes[CHUNK_BYTES];
                ssize_t n;
                run->errors.limit_bytes = LOG_SIZE_MAX;
                while (log >= 0 && (n = read(log, bytes, sizeof(bytes))) > 0)
                        (void)buf_append(&run->errors, bytes, (size_t)n);
        }
        return 0;
}

/* The last line, without the severity that the log puts in front. */
const char *runtime_reason(const struct runtime_run *run)
{
        char *text = run->errors.data;
        size_t size = run->errors.size;
        while (size > 0 && text[size - 1] == '\n')
                text[--size] = '\0';
        if (size == 0)
                return "the runtime in the guest failed without a word";
        char *line = strrchr(text, '\n');
        line = line ? line + 1 : text;
        char *reason = strstr(line, "error: ");
        return reason ? reason + strlen("error: ") : line;
}

void runtime_run_finish(struct runtime_run *run)
{
        buf_finish(&run->output);
        buf_finish(&run->errors);
}
