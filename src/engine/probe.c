#include "engine/probe.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/utf8.h"
#include "codec/stdcopy.h"
#include "engine/exec.h"

#define READ_BYTES 65536

struct probe {
        struct instance *instance; /* a reference */
        struct exec *exec;         /* NULL when it has ended */
        int fd;                    /* its output; -1 at its end */
        struct loop_source *io;
        struct stdcopy frames;
        struct buf output;
        bool cut;      /* there was more output */
        bool answered; /* exec_start() is done */
        bool timed_out;
        bool cancelled; /* its result is of no use */
        int exit_code;
        int64_t start_ns;
        struct err failure; /* code 0: it ran */
};

static struct health_times times_of(const struct instance *instance)
{
        return health_times(instance->spec.config.healthcheck);
}

static bool is_wanted(const struct instance *i)
{
        return i->private->probing && !i->private->probes_held && i->state == INSTANCE_RUNNING;
}

static void schedule(struct instance *i)
{
        struct health_times times = times_of(i);
        int64_t age_ns = clock_realtime_ns() - i->started_ns;
        loop_timer_arm(i->private->probe_timer, health_delay(&i->health, &times, age_ns));
}

/* -- the end ------------------------------------------------------------------- */

static void probe_free(struct probe *probe)
{
        loop_source_destroy(probe->io);
        close_fd(&probe->fd);
        buf_finish(&probe->output);
        instance_unref(probe->instance);
        free(probe);
}

/* What the log says; heap. */
static char *result_text(const struct probe *probe, const struct health_times *times)
{
        if (probe->failure.code && probe->timed_out)
                return xasprintf("timed out starting health check for container %s",
                                 probe->instance->id);
        if (probe->failure.code)
                return xstrdup(err_text(&probe->failure));
        char *text = utf8_clean(probe->output.data, probe->output.size);
        if (probe->cut) {
                char *whole = xasprintf("%s...", text);
                free(text);
                text = whole;
        }
        if (probe->timed_out) {
                char *whole = health_timeout_text(times->timeout_ns, text);
                free(text);
                text = whole;
        }
        return text;
}

static void record(const struct probe *probe)
{
        struct instance *i = probe->instance;
        struct health_times times = times_of(i);
        bool ran = !probe->failure.code && !probe->timed_out;
        struct health_result result = {
                .start_ns = probe->start_ns,
                .end_ns = clock_realtime_ns(),
                .exit_code = ran ? probe->exit_code : HEALTH_NO_EXIT_CODE,
                .output = result_text(probe, &times),
        };
        int64_t age_ns = probe->start_ns - i->started_ns;
        if (!health_record(&i->health, &times, age_ns, &result))
                return;
        auto_free char *action = xasprintf("health_status: %s",
                                           health_status_name(i->health.status));
        INSTANCE_EVENT(i, action);
}

static void check_over(struct probe *probe)
{
        struct instance *i = probe->instance;
        if (!probe->answered || probe->exec || (probe->fd >= 0 && !probe->failure.code))
                return;
        i->private->probe = NULL;
        if (!probe->cancelled)
                record(probe);
        if (is_wanted(i))
                schedule(i);
        probe_free(probe);
}

/* -- under way ----------------------------------------------------------------- */

static int keep_output(void *arg, enum stdcopy_stream stream, const void *data, size_t size,
                       struct err *err)
{
        struct probe *probe = arg;
        size_t room = HEALTH_OUTPUT_MAX - probe->output.size;
        (void)stream;
        (void)err;
        probe->cut = probe->cut || size > room;
        buf_append(&probe->output, data, size < room ? size : room);
        return 0;
}

static void end_output(struct probe *probe)
{
        loop_source_destroy(probe->io);
        probe->io = NULL;
        close_fd(&probe->fd);
        check_over(probe);
}

static void output_ready(void *arg, uint32_t events)
{
        struct probe *probe = arg;
        static char piece[READ_BYTES]; /* loop thread only */
        (void)events;
        ssize_t n = read(probe->fd, piece, sizeof(piece));
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return;
        if (n > 0 && stdcopy_feed(&probe->frames, piece, (size_t)n, keep_output, probe, NULL) == 0)
                return;
        end_output(probe);
}

static void probe_ended(void *arg, int exit_code)
{
        struct probe *probe = arg;
        probe->exec = NULL;
        probe->exit_code = exit_code;
        check_over(probe);
}

static void probe_answered(void *arg, int r, const struct err *err)
{
        struct probe *probe = arg;
        struct instance *i = probe->instance;
        probe->answered = true;
        if (r < 0)
                probe->failure = *err;
        else if (!probe->cancelled && !probe->timed_out)
                loop_timer_arm(i->private->probe_timer, times_of(i).timeout_ns);
        check_over(probe);
}

static int open_output(struct probe *probe, int *ret_theirs, struct err *err)
{
        int pair[2];
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
                return err_set(err, errno, "make a socket pair");
        probe->fd = pair[0];
        *ret_theirs = pair[1];
        return loop_io(instance_engine(probe->instance)->loop, probe->fd, EPOLLIN, output_ready,
                       probe, &probe->io, err);
}

static int probe_start(struct probe *probe, struct err *err)
{
        struct instance *i = probe->instance;
        auto_strv command = health_command(&i->spec.config);
        struct exec_config config = { .attach_stdout = true,
                                      .attach_stderr = true,
                                      .cmd = command };
        const struct exec *exec;
        auto_fd theirs = -1;
        int r = open_output(probe, &theirs, err);
        if (r == 0)
                r = exec_create(i, &config, &exec, err);
        if (r < 0)
                return r;
        probe->exec = exec_find(instance_engine(i), exec->id, NULL);
        struct exec_start_options options = { .client_fd = take_fd(theirs),
                                              .ended = probe_ended,
                                              .ended_arg = probe };
        loop_timer_arm(i->private->probe_timer, PROBE_START_NS);
        exec_start(probe->exec, &options, probe_answered, probe);
        return 0;
}

static void begin(struct instance *i)
{
        struct probe *probe = new0(struct probe);
        *probe = (struct probe){ .instance = instance_ref(i),
                                 .fd = -1,
                                 .start_ns = clock_realtime_ns() };
        i->private->probe = probe;
        if (probe_start(probe, &probe->failure) < 0) {
                probe->answered = true;
                check_over(probe);
        }
}

static void timer_expired(void *arg)
{
        struct instance *i = arg;
        struct probe *probe = i->private->probe;
        if (!probe) {
                begin(i);
                return;
        }
        if (!probe->exec) { /* it has ended, its output has not */
                end_output(probe);
                return;
        }
        probe->timed_out = true;
        exec_abort(probe->exec);
}

/* -- wanted or not ------------------------------------------------------------- */

static void rest(struct instance *i)
{
        struct probe *probe = i->private->probe;
        loop_timer_disarm(i->private->probe_timer);
        if (!probe || probe->cancelled)
                return;
        probe->cancelled = true;
        if (probe->exec)
                exec_kill(probe->exec);
}

void probes_begin(struct instance *i)
{
        struct instance_private *p = i->private;
        auto_strv command = health_command(&i->spec.config);
        struct err err = { 0 };
        if (!command)
                return;
        if (!p->probe_timer &&
            loop_timer(p->engine->loop, timer_expired, i, &p->probe_timer, &err) < 0) {
                log_error("cannot check the health of %s: %s", i->name, err_text(&err));
                return;
        }
        rest(i);
        p->probing = true;
        p->probes_held = false;
        health_begin(&i->health);
        probes_follow(i);
}

void probes_follow(struct instance *i)
{
        struct instance_private *p = i->private;
        if (!p->probing)
                return;
        if (!is_wanted(i))
                rest(i);
        else if (!p->probe)
                schedule(i);
        if (!instance_is_running(i)) {
                p->probing = false;
                i->health.status = HEALTH_UNHEALTHY; /* as docker's, of what does not run */
        }
}

void probes_hold(struct instance *i, bool hold)
{
        i->private->probes_held = hold;
        probes_follow(i);
}

void probes_forget(struct instance *i)
{
        struct instance_private *p = i->private;
        loop_source_destroy(p->probe_timer);
        p->probe_timer = NULL;
        p->probing = false;
        if (p->probe)
                probe_free(take_ptr(p->probe));
}
