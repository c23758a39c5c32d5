#include "runtime/hooks.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/file.h"
#include "base/log.h"
#include "base/str.h"
#include "sys/process.h"
#include "sys/spawn.h"

#define OUTPUT_SIZE_MAX 512 /* of what a failed hook said, in the error */

char *hooks_state_text(const struct hook_state *state)
{
        struct oci_state oci = {
                .oci_version = (char *)state->oci_version,
                .id = (char *)state->id,
                .status = (char *)state->status,
                .pid = state->pid,
                .has_pid = state->pid > 0,
                .bundle = (char *)state->bundle,
                .annotations = (char **)state->annotations,
        };
        return json_encode_text(&oci_state_shape, &oci, false);
}

/* An anonymous file: no pipe that fills up, nobody to write while we wait. */
static int text_file(const char *text, int *ret_fd, struct err *err)
{
        auto_fd fd = memfd_create("hook", MFD_CLOEXEC);
        if (fd < 0)
                return err_set(err, errno, "memfd");
        int r = io_write_full(fd, text, strlen(text));
        if (r < 0 || lseek(fd, 0, SEEK_SET) < 0)
                return err_set(err, r < 0 ? -r : errno, "memfd");
        *ret_fd = take_fd(fd);
        return 0;
}

static int wait_for(const struct oci_hook *hook, pid_t pid, int pidfd, int *ret_status,
                    struct err *err)
{
        int r = process_wait_gone(pidfd, hook->has_timeout_s ? hook->timeout_s * 1000 : -1, err);
        bool late = r == 0;
        if (r <= 0)
                kill(pid, SIGKILL);
        while (waitpid(pid, ret_status, 0) < 0)
                if (errno != EINTR)
                        return err_set(err, errno, "wait for hook");
        if (r < 0)
                return r;
        if (late)
                return err_plain(err, ETIMEDOUT, "hook ran past specified timeout of %ds",
                                 hook->timeout_s);
        return 0;
}

/* The end of what the hook printed, on one line. */
static void last_words(int fd, char text[OUTPUT_SIZE_MAX])
{
        off_t size = lseek(fd, 0, SEEK_END);
        off_t from = size > OUTPUT_SIZE_MAX - 1 ? size - (OUTPUT_SIZE_MAX - 1) : 0;
        ssize_t n = pread(fd, text, OUTPUT_SIZE_MAX - 1, from);
        text[n > 0 ? n : 0] = '\0';
        for (char *c = text; *c; c++)
                if (*c == '\n')
                        *c = c[1] ? ' ' : '\0';
}

/* As Go says it, whose words people search for. */
static const char *signal_words(int signo)
{
        static char words[64];
        const char *description = sigdescr_np(signo);
        snprintf(words, sizeof(words), "%s", description ? description : "unknown");
        for (char *c = words; *c; c++)
                *c = *c >= 'A' && *c <= 'Z' ? (char)(*c - 'A' + 'a') : *c;
        return words;
}

/* Where crun's annotation wants the output of hooks that run on the host: *ret_fd, else as it was.
 * Inside the container the name would be another file's. */
static int open_output(const struct hook_state *state, const char *key, int *ret_fd,
                       struct err *err)
{
        const char *path = state->inside ? NULL : json_map_get(state->annotations, key);
        if (str_empty(path))
                return 0;
        int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (fd < 0)
                return err_set(err, errno, "open '%s' of the annotation %s", path, key);
        *ret_fd = fd;
        return 0;
}

/* *ret_code is the exit code of one that failed by that. */
static int run_one(const struct oci_hook *hook, const struct hook_state *state, const char *text,
                   int *ret_code, struct err *err)
{
        auto_fd input = -1, output = -1, out = -1, errors = -1, pidfd = -1;
        pid_t pid;
        int r = text_file(text, &input, err);
        if (r == 0)
                r = text_file("", &output, err);
        if (r == 0)
                r = open_output(state, "run.oci.hooks.stdout", &out, err);
        if (r == 0)
                r = open_output(state, "run.oci.hooks.stderr", &errors, err);
        if (r < 0)
                return r;
        char *fallback[] = { hook->path, NULL };
        struct spawn_fd fds[] = { { input, 0 },
                                  { out >= 0 ? out : output, 1 },
                                  { errors >= 0 ? errors : output, 2 } };
        struct spawn spawn = { .path = hook->path,
                               .argv = hook->args && *hook->args ? hook->args : fallback,
                               .envp = hook->env,
                               .fds = fds,
                               .fds_length = ELEMENTS(fds) };
        r = spawn_process(&spawn, &pid, &pidfd, err);
        if (r < 0)
                return r;
        int status;
        r = wait_for(hook, pid, pidfd, &status, err);
        if (r < 0)
                return r;
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
                return 0;
        char said[OUTPUT_SIZE_MAX];
        last_words(output, said);
        if (WIFSIGNALED(status))
                return err_plain(err, ECANCELED, "'%s': signal: %s: %s", hook->path,
                                 signal_words(WTERMSIG(status)), said);
        *ret_code = WEXITSTATUS(status);
        return err_plain(err, ECANCELED, "'%s': exit status %d: %s", hook->path,
                         WEXITSTATUS(status), said);
}

int hooks_run(const struct hook_set *set, const struct hook_state *state, struct err *err)
{
        if (set->length == 0)
                return 0;
        auto_free char *text = hooks_state_text(state);
        for (size_t i = 0; i < set->length; i++) {
                int code;
                int r = run_one(&set->list[i], state, text, &code, err);
                if (r < 0) {
                        err_wrap(err, "error running hook %s #%zu", set->name, i);
                        return r;
                }
        }
        return 0;
}

void hooks_run_all(const struct hook_set *set, const struct hook_state *state)
{
        if (set->length == 0)
                return;
        auto_free char *text = hooks_state_text(state);
        for (size_t i = 0; i < set->length; i++) {
                struct err err = { 0 };
                int code = 0;
                if (run_one(&set->list[i], state, text, &code, &err) == 0)
                        continue;
                err_wrap(&err, "error running hook %s #%zu", set->name, i);
                if (code) /* crun's words */
                        err_wrap(&err, "%s hook failed with exit code %d", set->name, code);
                log_warning("%s", err_text(&err));
        }
}
