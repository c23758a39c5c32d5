#include "vmm/gdb/server.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/auto.h"
#include "base/log.h"
#include "base/str.h"
#include "vmm/gdb/session.h"
#include "vmm/gdb/walk.h"

#define INPUT_SIZE 4096

struct gdb_server {
        struct device device;
        struct machine *machine;
        int listen_fd; /* borrowed */
        int wake_fd;   /* an eventfd: a vCPU has stopped, or the machine ends */
        bool waiting;  /* the guest has been held from the beginning */
        bool started;
        pthread_t thread;
        atomic_bool ending;
        atomic_bool stopped[MACHINE_VCPUS]; /* vcpu->stop is news */

        /* the thread's; points also vCPUs', when it does not write */
        int fd; /* the client, -1 none */
        struct gdb_session session;
        struct gdb_points points;
};

/* ---- the guest stands, or goes on ---- */

static void hold(struct gdb_server *g)
{
        atomic_store(&g->machine->debugger_holds, true);
        machine_pause(g->machine);
}

static void let_go(struct gdb_server *g)
{
        atomic_store(&g->machine->debugger_holds, false);
        machine_resume(g->machine);
}

/* ---- what a session asks of the machine ---- */

static int get_state(void *arg, unsigned vcpu, struct cpu_state *ret)
{
        struct gdb_server *g = arg;
        struct machine *m = g->machine;
        struct err err = { 0 };
        return m->cpu->get_state(&m->vcpus[vcpu], ret, &err);
}

static int set_state(void *arg, unsigned vcpu, const struct cpu_state *state, struct err *err)
{
        struct gdb_server *g = arg;
        struct machine *m = g->machine;
        return m->cpu->set_state(&m->vcpus[vcpu], state, err);
}

/* Page by page; what has no memory behind it fails as a whole. */
static int each_page(struct gdb_server *g, unsigned vcpu, uint64_t address, uint8_t *bytes,
                     size_t size,
                     int (*page)(struct gdb_server *g, struct gpa at, uint8_t *bytes, size_t size))
{
        struct cpu_state state;
        struct gpa at;
        int r = get_state(g, vcpu, &state);
        for (size_t done = 0; r == 0 && done < size;) {
                size_t room = MEMORY_PAGE_SIZE - (address + done) % MEMORY_PAGE_SIZE;
                size_t part = size - done < room ? size - done : room;
                if (!gdb_walk(&g->machine->memory, &state, address + done, &at))
                        return -EFAULT;
                r = page(g, at, bytes + done, part);
                done += part;
        }
        return r;
}

static int read_page(struct gdb_server *g, struct gpa at, uint8_t *bytes, size_t size)
{
        int r = memory_read(&g->machine->memory, at, bytes, size);
        if (r == 0)
                gdb_points_hide(&g->points, at, bytes, size);
        return r;
}

static int write_page(struct gdb_server *g, struct gpa at, uint8_t *bytes, size_t size)
{
        return gdb_points_write(&g->points, &g->machine->memory, at, bytes, size);
}

static int insert_page(struct gdb_server *g, struct gpa at, uint8_t *bytes, size_t size)
{
        (void)bytes;
        (void)size;
        return gdb_points_insert(&g->points, &g->machine->memory, at);
}

static int remove_page(struct gdb_server *g, struct gpa at, uint8_t *bytes, size_t size)
{
        (void)bytes;
        (void)size;
        return gdb_points_remove(&g->points, &g->machine->memory, at);
}

static int read_guest(void *arg, unsigned vcpu, uint64_t address, uint8_t *bytes, size_t size)
{
        return each_page(arg, vcpu, address, bytes, size, read_page);
}

static int write_guest(void *arg, unsigned vcpu, uint64_t address, const uint8_t *bytes,
                       size_t size)
{
        return each_page(arg, vcpu, address, (uint8_t *)(uintptr_t)bytes, size, write_page);
}

static int change_point(void *arg, unsigned vcpu, enum gdb_point kind, uint64_t address,
                        uint64_t size, bool set)
{
        struct gdb_server *g = arg;
        uint8_t unused;
        if (kind == GDB_SOFTWARE)
                return each_page(g, vcpu, address, &unused, 1, set ? insert_page : remove_page);
        return set ? gdb_points_watch(&g->points, kind, address, size)
                   : gdb_points_unwatch(&g->points, kind, address, size);
}

static int tell_vcpu(struct gdb_server *g, unsigned vcpu, enum gdb_action action)
{
        struct machine *m = g->machine;
        struct err err = { 0 };
        struct vcpu_debug debug = { .on = true, .step = action == GDB_STEP };
        gdb_points_registers(&g->points, &debug);
        int r = m->cpu->set_debug(&m->vcpus[vcpu], &debug, &err);
        if (r < 0)
                log_warning("gdb: %s", err_text(&err));
        atomic_store(&m->vcpus[vcpu].held, action == GDB_STAND);
        return r;
}

static bool report(struct gdb_server *g);

static int resume(void *arg, const uint8_t *actions)
{
        struct gdb_server *g = arg;
        struct machine *m = g->machine;
        if (report(g)) /* what another vCPU met when the last stop was told */
                return 0;
        for (unsigned i = 0; i < m->vcpus_length; i++) {
                int r = tell_vcpu(g, i, (enum gdb_action)actions[i]);
                if (r < 0)
                        return r;
        }
        let_go(g);
        return 0;
}

static void interrupt(void *arg)
{
        struct gdb_server *g = arg;
        hold(g);
        if (!report(g))
                gdb_session_stopped(&g->session, &(struct gdb_stop){ .vcpu = g->session.general,
                                                                     .kind = GDB_INTERRUPTED });
}

static void kill_machine(void *arg)
{
        struct gdb_server *g = arg;
        machine_end(g->machine, MACHINE_STOPPED, 0, NULL);
}

static const struct gdb_target target = { get_state,    set_state, read_guest, write_guest,
                                          change_point, resume,    interrupt,  kill_machine };

/* ---- stops ---- */

static void wake(struct gdb_server *g)
{
        const uint64_t one = 1;
        (void)!write(g->wake_fd, &one, sizeof(one));
}

/* On the vCPU's thread. */
static void vcpu_stopped(void *arg, struct vcpu *v)
{
        struct gdb_server *g = arg;
        struct machine *m = g->machine;
        struct err err = { 0 };
        struct cpu_state state;
        struct gpa at;
        if (v->stop.kind == VCPU_STOP_INT3 &&
            !(m->cpu->get_state(v, &state, &err) == 0 &&
              gdb_walk(&m->memory, &state, v->stop.rip, &at) && gdb_points_has(&g->points, at))) {
                if (m->cpu->pass_int3(v, &err) < 0)
                        machine_end(m, MACHINE_FAILED, v->index, &err);
                return;
        }
        atomic_store(&v->held, true);
        atomic_store(&g->stopped[v->index], true);
        wake(g);
}

static struct gdb_stop stop_of(const struct gdb_server *g, const struct vcpu *v)
{
        struct gdb_stop stop = { .vcpu = v->index };
        if (v->stop.kind == VCPU_STOP_INT3)
                stop.kind = GDB_AT_INT3;
        for (unsigned i = 0; i < ELEMENTS(g->points.registers); i++) {
                if (!(v->stop.kind == VCPU_STOP_HARDWARE && v->stop.hits >> i & 1) ||
                    !g->points.registers[i].used)
                        continue;
                stop.kind = GDB_AT_POINT;
                stop.point = g->points.registers[i].kind;
                stop.address = g->points.registers[i].address;
        }
        return stop;
}

/* Tells the client of a vCPU that has stopped, if there is one; all of them stand. What
 * others met at the same time they meet again, but for watched data: that is kept. */
static bool report(struct gdb_server *g)
{
        struct machine *m = g->machine;
        unsigned first = m->vcpus_length;
        for (unsigned i = m->vcpus_length; i-- > 0;) {
                const struct gdb_stop stop = stop_of(g, &m->vcpus[i]);
                if (!atomic_load(&g->stopped[i]))
                        continue;
                if (stop.kind != GDB_AT_POINT || stop.point == GDB_HARDWARE)
                        atomic_store(&g->stopped[i], false);
                first = i;
        }
        if (first == m->vcpus_length)
                return false;
        const struct gdb_stop stop = stop_of(g, &m->vcpus[first]);
        atomic_store(&g->stopped[first], false);
        gdb_session_stopped(&g->session, &stop);
        return true;
}

/* ---- the client ---- */

static void attach(struct gdb_server *g)
{
        struct machine *m = g->machine;
        if (!g->waiting)
                hold(g);
        g->waiting = false;
        gdb_session_init(&g->session, &target, g, m->vcpus_length);
}

/* Whether the guest stands or runs, it runs afterwards. */
static void drop(struct gdb_server *g)
{
        struct machine *m = g->machine;
        const struct vcpu_debug off = { 0 };
        if (g->session.running)
                hold(g);
        bool ending = atomic_load(&m->stopping); /* then nobody has waited for vCPUs */
        if (!ending)
                gdb_points_clear(&g->points, &m->memory);
        for (unsigned i = 0; i < m->vcpus_length && !ending; i++) {
                struct err err = { 0 };
                if (m->cpu->set_debug(&m->vcpus[i], &off, &err) < 0)
                        log_warning("gdb: %s", err_text(&err));
                atomic_store(&g->stopped[i], false);
                atomic_store(&m->vcpus[i].held, false);
        }
        gdb_session_finish(&g->session);
        close_fd(&g->fd);
        let_go(g);
}

/* Waits for input (or output) of the client, or for a vCPU; returns the client's events. */
static short wait_for(struct gdb_server *g, int fd, short events)
{
        struct pollfd fds[2] = { { g->wake_fd, POLLIN, 0 }, { fd, events, 0 } };
        uint64_t wakes;
        /* EINTR cannot be: every signal is blocked here. */
        if (poll(fds, 2, -1) > 0 && fds[0].revents)
                (void)!read(g->wake_fd, &wakes, sizeof(wakes));
        return fds[1].revents;
}

/* False when the client is gone. */
static bool send_out(struct gdb_server *g)
{
        struct buf *out = &g->session.out;
        while (out->size) {
                ssize_t n = send(g->fd, out->data, out->size, MSG_NOSIGNAL | MSG_DONTWAIT);
                if (n < 0 && errno != EAGAIN && errno != EINTR)
                        return false;
                if (n > 0)
                        buf_consume(out, (size_t)n);
                else if (wait_for(g, g->fd, POLLOUT), atomic_load(&g->ending))
                        return false; /* it does not read what we have to say */
        }
        return true;
}

/* False when the client is gone. */
static bool take_input(struct gdb_server *g)
{
        uint8_t bytes[INPUT_SIZE];
        ssize_t n = recv(g->fd, bytes, sizeof(bytes), MSG_DONTWAIT);
        if (n <= 0)
                return n < 0 && (errno == EAGAIN || errno == EINTR);
        for (size_t done = 0; done < (size_t)n && !g->session.over;) {
                done += gdb_session_take(&g->session, bytes + done, (size_t)n - done);
                if (!send_out(g))
                        return false;
        }
        return !g->session.over;
}

static bool anybody_stopped(const struct gdb_server *g)
{
        for (unsigned i = 0; i < g->machine->vcpus_length; i++)
                if (atomic_load(&g->stopped[i]))
                        return true;
        return false;
}

static void serve_client(struct gdb_server *g)
{
        bool here = true;
        attach(g);
        while (here && !atomic_load(&g->ending)) {
                if (g->session.running && anybody_stopped(g)) {
                        hold(g);
                        if (!report(g)) /* not reached: nobody else takes them */
                                let_go(g);
                        here = send_out(g);
                } else if (wait_for(g, g->fd, POLLIN)) {
                        here = take_input(g);
                }
        }
        if (here && atomic_load(&g->ending)) {
                gdb_session_ended(&g->session);
                (void)send_out(g);
        }
        drop(g);
}

static void *serve(void *arg)
{
        struct gdb_server *g = arg;
        (void)pthread_setname_np(pthread_self(), "gdb");
        jail_thread(JAIL_GDB);
        while (!atomic_load(&g->ending)) {
                if (!wait_for(g, g->listen_fd, POLLIN))
                        continue;
                g->fd = accept4(g->listen_fd, NULL, NULL, SOCK_CLOEXEC);
                const int on = 1;
                if (g->fd >= 0) {
                        (void)setsockopt(g->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
                        serve_client(g);
                }
        }
        return NULL;
}

/* ---- building ---- */

static void destroy(struct device *device)
{
        struct gdb_server *g = container_of(device, struct gdb_server, device);
        atomic_store(&g->ending, true);
        if (g->started) {
                wake(g);
                pthread_join(g->thread, NULL);
        }
        close_fd(&g->wake_fd);
        free(g);
}

int gdb_server_create(struct machine *m, int listen_fd, bool wait, struct gdb_server **ret,
                      struct err *err)
{
        struct gdb_server *g = new0(struct gdb_server);
        g->machine = m;
        g->listen_fd = listen_fd;
        g->fd = -1;
        g->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (g->wake_fd < 0) {
                free(g);
                return err_set(err, errno, "gdb");
        }
        if (wait) {
                hold(g);
                g->waiting = true;
        }
        m->stopped = vcpu_stopped;
        m->stopped_arg = g;
        machine_add_device(m, &g->device, "gdb", destroy);
        *ret = g;
        return 0;
}

int gdb_server_start(struct gdb_server *server, struct err *err)
{
        sigset_t all, old;
        if (!server)
                return 0;
        sigfillset(&all);
        pthread_sigmask(SIG_BLOCK, &all, &old);
        int e = pthread_create(&server->thread, NULL, serve, server);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
        if (e)
                return err_set(err, e, "thread of gdb");
        server->started = true;
        return 0;
}
