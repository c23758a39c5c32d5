#include "vmm/machine.h"

#include <signal.h>
#include <string.h>

#include "base/auto.h"
#include "base/str.h"
#include "vmm/jail/jail.h"

static void leave_loop(void *arg)
{
        struct machine *m = arg;
        loop_exit(m->loop, 0);
}

void machine_end(struct machine *m, enum machine_end_kind kind, unsigned code,
                 const struct err *err)
{
        pthread_mutex_lock(&m->lock);
        bool first = m->outcome.kind == MACHINE_RUNNING;
        if (first) {
                m->outcome.kind = kind;
                m->outcome.code = code;
                if (err)
                        m->outcome.err = *err;
        }
        atomic_store(&m->stopping, true);
        pthread_cond_broadcast(&m->resumed);
        pthread_mutex_unlock(&m->lock);
        for (unsigned i = 0; i < m->vcpus_length; i++)
                if (m->vcpus[i].provider)
                        m->cpu->kick(&m->vcpus[i]);
        if (first)
                loop_post(m->loop, leave_loop, m);
}

static bool must_stand(const struct vcpu *v)
{
        return atomic_load(&v->machine->pauses) || atomic_load(&v->held);
}

static void stand_while_paused(struct vcpu *v)
{
        struct machine *m = v->machine;
        pthread_mutex_lock(&m->lock);
        atomic_store(&v->paused, true);
        pthread_cond_broadcast(&m->resumed);
        while (must_stand(v) && !atomic_load(&m->stopping))
                pthread_cond_wait(&m->resumed, &m->lock);
        atomic_store(&v->paused, false);
        pthread_mutex_unlock(&m->lock);
}

static void *vcpu_thread(void *arg)
{
        struct vcpu *v = arg;
        struct machine *m = v->machine;
        jail_thread(m->cpu->jail);
        while (!atomic_load(&m->stopping)) {
                struct err err = { 0 };
                if (must_stand(v)) {
                        stand_while_paused(v);
                        continue;
                }
                enum vcpu_exit reason = m->cpu->run(v, &err);
                atomic_fetch_add(&v->runs, 1);
                if (reason == VCPU_SHUTDOWN)
                        machine_end(m, MACHINE_CRASHED, v->index, NULL);
                else if (reason == VCPU_DEBUG && m->stopped)
                        m->stopped(m->stopped_arg, v);
                else if (reason == VCPU_FAILED)
                        machine_end(m, MACHINE_FAILED, v->index, &err);
        }
        return NULL;
}

int machine_create(struct loop *loop, const struct machine_options *options, struct machine **ret,
                   struct err *err)
{
        const struct vcpu_ops *cpu = options->cpu;
        unsigned vcpus = options->vcpus;
        if (vcpus < 1 || vcpus > MACHINE_VCPUS)
                return err_plain(err, EINVAL, "%u vCPUs: 1 to %u are possible", vcpus,
                                 MACHINE_VCPUS);
        struct machine *m = new0(struct machine);
        m->loop = loop;
        m->cpu = cpu;
        m->model = options->model;
        m->memory.fd = -1;
        list_init(&m->devices);
        pthread_mutex_init(&m->lock, NULL);
        pthread_cond_init(&m->resumed, NULL);
        bus_init(&m->pio, "I/O ports");
        bus_init(&m->mmio, "MMIO");
        m->vcpus = xcalloc(vcpus, sizeof(*m->vcpus));
        m->vcpus_wanted = vcpus;
        int r = memory_init(&m->memory, options->memory_bytes, options->memory_file, err);
        if (r == 0 && options->memory_fd)
                r = memory_overlay(&m->memory, *options->memory_fd, err);
        if (r == 0)
                r = cpu->attach(m, err);
        for (unsigned i = 0; r == 0 && i < vcpus; i++) {
                m->vcpus[i].machine = m;
                m->vcpus[i].index = i;
                r = cpu->create(&m->vcpus[i], err);
                if (r == 0)
                        m->vcpus_length++;
        }
        if (r < 0) {
                machine_destroy(m);
                return r;
        }
        *ret = m;
        return 0;
}

static void join_vcpus(struct machine *m)
{
        atomic_store(&m->stopping, true);
        pthread_mutex_lock(&m->lock);
        pthread_cond_broadcast(&m->resumed);
        pthread_mutex_unlock(&m->lock);
        for (unsigned i = 0; i < m->vcpus_length; i++) {
                if (!m->vcpus[i].started)
                        continue;
                m->cpu->kick(&m->vcpus[i]);
                pthread_join(m->vcpus[i].thread, NULL);
                m->vcpus[i].started = false;
        }
}

void machine_destroy(struct machine *m)
{
        if (!m)
                return;
        join_vcpus(m);
        for (struct device *d; (d = machine_last_device(m));)
                machine_remove_device(m, d);
        for (unsigned i = 0; i < m->vcpus_length; i++)
                m->cpu->destroy(&m->vcpus[i]);
        if (m->provider)
                m->cpu->detach(m);
        memory_finish(&m->memory);
        bus_finish(&m->pio);
        bus_finish(&m->mmio);
        pthread_cond_destroy(&m->resumed);
        pthread_mutex_destroy(&m->lock);
        free(m->vcpus);
        free(m);
}

void machine_add_device(struct machine *m, struct device *device, const char *name,
                        void (*destroy)(struct device *device))
{
        device->name = name;
        device->destroy = destroy;
        list_append(&m->devices, &device->node);
}

struct device *machine_last_device(struct machine *m)
{
        return list_empty(&m->devices) ? NULL : container_of(m->devices.prev, struct device, node);
}

unsigned machine_device_number(const struct machine *m, const struct device *device)
{
        unsigned number = 0;
        list_for_each (struct device, d, &m->devices, node) {
                if (d == device)
                        break;
                number += streq(d->name, device->name);
        }
        return number;
}

void machine_remove_device(struct machine *m, struct device *device)
{
        (void)m;
        list_remove(&device->node);
        device->destroy(device);
}

int machine_start(struct machine *m, struct err *err)
{
        sigset_t all, old;
        atomic_fetch_add(&m->pauses, 1);
        sigfillset(&all);
        pthread_sigmask(SIG_BLOCK, &all, &old);
        int r = 0;
        for (unsigned i = 0; r == 0 && i < m->vcpus_length; i++) {
                int e = pthread_create(&m->vcpus[i].thread, NULL, vcpu_thread, &m->vcpus[i]);
                if (e)
                        r = err_set(err, e, "thread of vCPU %u", i);
                else
                        m->vcpus[i].started = true;
        }
        pthread_sigmask(SIG_SETMASK, &old, NULL);
        return r;
}

void machine_pause(struct machine *m)
{
        pthread_mutex_lock(&m->lock);
        atomic_fetch_add(&m->pauses, 1);
        pthread_mutex_unlock(&m->lock);
        for (unsigned i = 0; i < m->vcpus_length; i++)
                m->cpu->kick(&m->vcpus[i]);
        pthread_mutex_lock(&m->lock);
        for (unsigned i = 0; i < m->vcpus_length; i++)
                while (m->vcpus[i].started && !atomic_load(&m->vcpus[i].paused) &&
                       !atomic_load(&m->stopping))
                        pthread_cond_wait(&m->resumed, &m->lock);
        pthread_mutex_unlock(&m->lock);
}

void machine_resume(struct machine *m)
{
        pthread_mutex_lock(&m->lock);
        atomic_fetch_sub(&m->pauses, 1);
        pthread_cond_broadcast(&m->resumed);
        pthread_mutex_unlock(&m->lock);
}
