/* docker top: the host's ps(1), the lines of this instance; of a virtual machine, the runtime's
 * ps, which asks the guest. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "engine/core.h"
#include "engine/top.h"
#include "sys/cgroup.h"
#include "sys/spawn.h"

#define PS_OUTPUT_MAX (16u << 20)

void instance_top_finish(struct instance_top *top)
{
        strv_free(top->titles);
        for (char ***row = top->rows; row && *row; row++)
                strv_free(*row);
        free(top->rows);
        *top = (struct instance_top){ 0 };
}

/* At most `length` fields; the last one takes the rest of the line. */
static char **split_fields(const char *line, size_t length)
{
        char **fields = NULL;
        size_t count = 0;
        while (*(line += strspn(line, " \t"))) {
                size_t size = ++count == length ? strlen(line) : strcspn(line, " \t");
                strv_push_take(&fields, xstrndup(line, size));
                line += size;
        }
        return fields;
}

/* Without a list, every one. */
static bool has_pid(const pid_t *pids, size_t length, const char *text)
{
        uint32_t pid;
        if (!pids)
                return true;
        if (str_to_u32(text, &pid) < 0)
                return false;
        for (size_t i = 0; i < length; i++)
                if ((uint32_t)pids[i] == pid)
                        return true;
        return false;
}

int top_parse(const char *output, const pid_t *pids, size_t length, struct instance_top *ret,
              struct err *err)
{
        struct instance_top top = { 0 };
        auto_strv lines = str_split(output, '\n');
        top.titles = split_fields(lines[0], SIZE_MAX);
        size_t columns = strv_length(top.titles), pid_column = 0, rows = 0;
        while (pid_column < columns && !streq(top.titles[pid_column], "PID"))
                pid_column++;
        if (pid_column == columns) {
                instance_top_finish(&top);
                return err_plain(err, EINVAL, "Couldn't find PID field in ps output");
        }
        top.rows = xcalloc(1, sizeof(*top.rows));
        for (char **line = lines + 1; *line; line++) {
                char **fields = split_fields(*line, columns);
                if (strv_length(fields) <= pid_column ||
                    !has_pid(pids, length, fields[pid_column])) {
                        strv_free(fields);
                        continue;
                }
                top.rows = xrealloc(top.rows, rows + 2, sizeof(*top.rows));
                top.rows[rows++] = fields;
                top.rows[rows] = NULL;
        }
        *ret = top;
        return 0;
}

struct top_job {
        struct engine *engine;
        char *cgroup;
        char **args;
        bool vm;
        char id[INSTANCE_ID_SIZE];
        struct instance_top top;
        int r;
        struct err err;
        instance_topped *done;
        void *arg;
};

static char **ps_command(const struct top_job *job)
{
        const struct engine_settings *settings = &job->engine->settings;
        const char *runtime[] = { settings->runtime_path,
                                  "--root",
                                  settings->runtime_root,
                                  "ps",
                                  "--format",
                                  "table",
                                  job->id };
        char **argv = NULL;
        for (size_t i = 0; job->vm && i < ELEMENTS(runtime); i++)
                strv_push(&argv, runtime[i]);
        if (!job->vm)
                strv_push(&argv, "ps");
        for (char **arg = job->args; arg && *arg; arg++)
                strv_push(&argv, *arg);
        return argv;
}

static int run_ps(const struct top_job *job, char **ret, struct err *err)
{
        auto_strv argv = ps_command(job);
        int ends[2];
        if (pipe2(ends, O_CLOEXEC) < 0)
                return err_set(err, errno, "make a pipe");
        auto_fd ours = ends[0], theirs = ends[1];
        struct spawn_fd fds[] = { { theirs, 1 }, { theirs, 2 } };
        struct spawn spawn = { .path = argv[0], .argv = argv, .fds = fds, .fds_length = 2 };
        pid_t pid;
        int r = spawn_process(&spawn, &pid, NULL, err);
        if (r < 0)
                return err_wrap(err, "run ps (Debian's package procps)");
        close_fd(&theirs);
        r = file_read_fd(ours, PS_OUTPUT_MAX, ret, NULL, err);
        if (r < 0)
                kill(pid, SIGKILL);
        int status;
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
                ;
        if (r == 0 && status != 0) {
                (*ret)[strcspn(*ret, "\n")] = '\0';
                r = err_plain(err, EINVAL, "error running ps: %s", *ret);
        }
        return r;
}

static int collect(struct top_job *job)
{
        auto_cgroup cgroup = NULL;
        auto_free pid_t *pids = NULL;
        size_t length = 0;
        int r = job->vm ? 0 : cgroup_prepare(job->cgroup, 0, &cgroup, &job->err);
        if (r == 0 && !job->vm)
                r = cgroup_members(cgroup, &pids, &length, &job->err);
        auto_free char *output = NULL;
        if (r == 0)
                r = run_ps(job, &output, &job->err);
        const pid_t nobody = 0;
        if (r == 0)
                r = top_parse(output,
                              job->vm ? NULL
                              : pids  ? pids
                                      : &nobody,
                              length, &job->top, &job->err);
        return r;
}

static void top_in_worker(void *arg)
{
        struct top_job *job = arg;
        if (job->r == 0)
                job->r = collect(job);
}

static void top_done(void *arg)
{
        struct top_job *job = arg;
        job->done(job->arg, job->r, job->r < 0 ? &job->err : NULL, job->r < 0 ? NULL : &job->top);
        instance_top_finish(&job->top);
        strv_free(job->args);
        free(job->cgroup);
        free(job);
}

void instance_top(struct instance *instance, const char *ps_args, instance_topped *done, void *arg)
{
        struct top_job *job = new0(struct top_job);
        *job = (struct top_job){
                .engine = instance_engine(instance),
                .cgroup = instance_cgroup_path(instance_engine(instance), instance),
                .args = split_fields(str_empty(ps_args) ? "-ef" : ps_args, SIZE_MAX),
                .vm = host_config_wants_vm(&instance->spec.host),
                .done = done,
                .arg = arg,
        };
        snprintf(job->id, sizeof(job->id), "%s", instance->id);
        if (instance->state != INSTANCE_RUNNING && instance->state != INSTANCE_PAUSED)
                job->r = err_plain(&job->err, EBUSY, "container %s is not running", instance->id);
        INSTANCE_EVENT(instance, "top");
        workers_submit(job->engine->workers, top_in_worker, top_done, job);
}
