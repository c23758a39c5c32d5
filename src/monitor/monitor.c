#include "monitor/monitor.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/str.h"
#include "monitor/client.h"
#include "monitor/exit.h"
#include "monitor/launch.h"
#include "sys/cgroup.h"
#include "sys/process.h"

/* Gives up what isled looks at; only the clients' last bytes are left to send. */
static void release(struct monitor *m)
{
        /* The last reference to the overlay: the kernel unmounts it here, which may
         * write a whole file system back, and not in init's exit, where everybody would
         * wait for it. */
        close_fd(&m->rootfs_fd);
        /* The lock goes before the connection: where isled sees that end, it is free. */
        close_fd(&m->lock_fd);
        control_close(m);
        cgroup_close(m->cgroup);
        m->cgroup = NULL;
        m->released = true;
}

static void write_exit(struct monitor *m)
{
        struct exit_record record = {
                .exit_code = m->exit_code,
                .oom_killed = m->oom_kills > 0,
                .pid = m->init_pid,
                .started_ns = m->started_ns,
                .finished_ns = m->finished_ns,
                .error = m->text,
        };
        exit_write(&record, NULL);
}

/* Tells the world that it is over and cleans up behind it. */
static void finish(struct monitor *m, enum monitor_phase phase)
{
        oom_close(m);
        jsonlog_close(&m->log, clock_realtime_ns());
        m->phase = phase;
        write_exit(m);
        control_publish(m);
        /* Clients last: when their stream ends they ask isled for the exit status. */
        stdio_finish(m);
        struct err err = { 0 };
        if (m->options->exec || launch_delete(m->options, &m->delete_pid, &err) < 0)
                release(m);
}

static void fail(struct monitor *m, char *text)
{
        m->text = text;
        m->finished_ns = clock_realtime_ns();
        finish(m, MONITOR_FAILED);
}

void monitor_start(struct monitor *m)
{
        struct err err = { 0 };
        if (m->phase != MONITOR_WAITING)
                return;
        m->phase = MONITOR_STARTING;
        if (stdio_launch(m, &err) < 0)
                fail(m, xstrdup(err_text(&err)));
}

/* Our child that is not reaped yet, so the number is still its own. */
static void kill_wanted(const struct monitor *m)
{
        if (!m->kill_wanted || m->phase != MONITOR_RUNNING || m->init_exited)
                return;
        kill(-m->init_pid, SIGKILL);
        kill(m->init_pid, SIGKILL); /* should it lead no group */
}

void monitor_kill(struct monitor *m)
{
        m->kill_wanted = true;
        kill_wanted(m);
}

static void runtime_ended(struct monitor *m, int status)
{
        m->runtime_pid = 0;
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
                fail(m, launch_failure(status));
                return;
        }
        struct err err = { 0 };
        int r = launch_read_pid(&m->init_pid, &err);
        if (r == 0)
                r = process_start_time(m->init_pid, &m->init_start_time, &err);
        if (r == 0 && m->options->tty)
                r = stdio_accept_console(m, &err);
        if (r < 0) {
                fail(m, xstrdup(err_text(&err)));
                return;
        }
        m->started_ns = clock_realtime_ns();
        m->phase = MONITOR_RUNNING;
        control_publish(m);
        oom_watch(m);
        kill_wanted(m);
}

static void init_ended(struct monitor *m, int status)
{
        m->exit_code = process_exit_code(status);
        m->finished_ns = clock_realtime_ns();
        m->init_exited = true;
        int64_t now = clock_monotonic_ns();
        m->drain_deadline_ns = now + MONITOR_DRAIN_NS;
        m->drain_end_ns = now + MONITOR_DRAIN_MAX_NS;
        oom_count(m);
}

static void delete_ended(struct monitor *m, int status)
{
        m->delete_pid = 0;
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
                /* isled tries again and shows it to a person. */
                if (!m->text)
                        m->text = xasprintf("'%s delete' failed", m->options->runtime);
                control_publish(m);
        }
        release(m);
}

static void reap(struct monitor *m)
{
        int status;
        /* Before the runtime has ended init's pid is not known: leave all others alone. */
        if (m->runtime_pid) {
                if (waitpid(m->runtime_pid, &status, WNOHANG) != m->runtime_pid)
                        return;
                runtime_ended(m, status);
        }
        for (;;) {
                pid_t pid = waitpid(-1, &status, WNOHANG);
                if (pid <= 0)
                        return;
                if (pid == m->init_pid && !m->init_exited)
                        init_ended(m, status);
                else if (pid == m->delete_pid)
                        delete_ended(m, status);
        }
}

static void signals_ready(struct monitor *m, struct source *source, uint32_t events)
{
        struct signalfd_siginfo info;
        (void)events;
        while (read(source->fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
                ;
        reap(m);
}

static int open_signals(struct monitor *m, struct err *err)
{
        /* A session that ends or a service that stops must not take the instance along. */
        static const int ignored[] = { SIGPIPE, SIGHUP,  SIGINT,  SIGTERM,
                                       SIGQUIT, SIGTTOU, SIGTTIN, SIGTSTP };
        for (size_t i = 0; i < ELEMENTS(ignored); i++)
                signal(ignored[i], SIG_IGN);
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGCHLD);
        if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
                return err_set(err, errno, "block SIGCHLD");
        int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
        if (fd < 0)
                return err_set(err, errno, "make a signalfd");
        m->signals = (struct source){ .fd = fd, .ready = signals_ready };
        source_watch(m, &m->signals, EPOLLIN);
        return 0;
}

static int open_all(struct monitor *m, struct err *err)
{
        if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
                return err_set(err, errno, "become a subreaper");
        m->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
        if (m->epoll_fd < 0)
                return err_set(err, errno, "make an epoll set");
        if (ftruncate(m->lock_fd, 0) < 0 || dprintf(m->lock_fd, "%d\n", (int)getpid()) < 0)
                return err_set(err, errno, "write " MONITOR_LOCK_NAME);
        /* Out of memory, the kernel should rather take the instance. Needs a privilege. */
        file_put(AT_FDCWD, "/proc/self/oom_score_adj", "-900", NULL);
        int r = open_signals(m, err);
        if (r == 0 && m->options->log_path)
                r = jsonlog_open(&m->log, m->options->log_path, m->options->log_max_bytes,
                                 m->options->log_max_files, err);
        if (r == 0)
                r = control_open(m, err);
        return r;
}

/* When reading on is given up. */
static int64_t drain_end(const struct monitor *m)
{
        return m->drain_deadline_ns < m->drain_end_ns ? m->drain_deadline_ns : m->drain_end_ns;
}

/* Milliseconds until something is due, or -1. */
static int next_timeout(const struct monitor *m, int64_t sweep_deadline_ns)
{
        int64_t deadline = sweep_deadline_ns;
        if (m->init_exited && m->phase == MONITOR_RUNNING && (!deadline || drain_end(m) < deadline))
                deadline = drain_end(m);
        if (!deadline)
                return -1;
        int64_t left = deadline - clock_monotonic_ns();
        return left <= 0 ? 0 : (int)((left + NS_PER_MS - 1) / NS_PER_MS);
}

static bool is_done(const struct monitor *m)
{
        if (m->phase == MONITOR_WAITING) {
                for (int i = 0; i < MONITOR_CONNECTIONS; i++)
                        if (m->connections[i].source.fd >= 0)
                                return false;
                return true; /* isled died before it said START */
        }
        return m->released && list_empty(&m->clients);
}

static void run(struct monitor *m)
{
        for (;;) {
                int64_t now = clock_monotonic_ns();
                int64_t deadline = stdio_sweep(m, now);
                if (is_done(m)) /* the last client may just have gone */
                        return;
                if (m->phase == MONITOR_RUNNING && m->init_exited &&
                    (stdio_drained(m) || now >= drain_end(m))) {
                        finish(m, MONITOR_EXITED);
                        continue;
                }
                stdio_update(m);
                struct epoll_event events[16];
                int n = epoll_wait(m->epoll_fd, events, ELEMENTS(events),
                                   next_timeout(m, deadline));
                for (int i = 0; i < n; i++) {
                        struct source *source = events[i].data.ptr;
                        source->ready(m, source, events[i].events);
                }
        }
}

int monitor_run(const struct monitor_options *options)
{
        struct monitor m = {
                .options = options,
                .lock_fd = MONITOR_FD_LOCK,
                .rootfs_fd = options->exec ? -1 : MONITOR_FD_ROOTFS,
                .signals.fd = -1,
                .listener.fd = -1,
                .console.fd = -1,
                .oom.fd = -1,
                .machine_oom.fd = -1,
                .oom_again.fd = -1,
                .out = { { .fd = -1 }, { .fd = -1 } },
                .in.fd = -1,
                .rows = options->rows,
                .columns = options->columns,
        };
        for (int i = 0; i < MONITOR_CONNECTIONS; i++)
                m.connections[i].source.fd = -1;
        list_init(&m.clients);
        struct err err = { 0 };
        if (open_all(&m, &err) < 0) {
                /* Told over the inherited connection as a failed start. */
                m.text = xstrdup(err_text(&err));
                m.phase = MONITOR_FAILED;
                m.finished_ns = clock_realtime_ns();
                if (m.connections[0].source.fd < 0)
                        m.connections[0].source.fd = MONITOR_FD_CONTROL;
                write_exit(&m);
                control_publish(&m);
        } else {
                run(&m);
        }
        control_close(&m);
        buf_finish(&m.input);
        free(m.text);
        return m.phase == MONITOR_FAILED;
}
