#include "vmm/soft/soft.h"

#include <string.h>
#include <time.h>
#include <x86intrin.h>

#include "base/auto.h"
#include "base/clock.h"
#include "base/str.h"
#include "vmm/layout.h"
#include "vmm/soft/profile.h"
#include "vmm/timer.h"

#define EFER_LMA      (1u << 10)
#define ATTRIBUTE_L   (1u << 13) /* of a code segment: 64-bit */
#define IDLE_WATCH_NS (5 * NS_PER_S)
#define IDLE_FRACTION 100 /* of the time that one may run and still count as idle */
#define IDLE_CODE_MAX ((size_t)2 << 20)

/* ---- the processor's view of the machine ---- */

static bool in_apic_page(const struct soft_vcpu *s, uint64_t address)
{
        uint64_t base = s->soft->fabric.ports[s->vcpu->index].lapic.base;
        return (address ^ base) >> 12 == 0 &&
               (base & (LAPIC_BASE_ENABLE | LAPIC_BASE_X2)) == LAPIC_BASE_ENABLE;
}

static uint64_t mmio_read(void *arg, uint64_t address, unsigned size)
{
        struct soft_vcpu *s = arg;
        if (in_apic_page(s, address))
                return fabric_page_read(&s->soft->fabric, s->vcpu->index, address & 0xfff, size);
        uint64_t value;
        bus_read(&s->vcpu->machine->mmio, address, size, &value);
        return value;
}

static void mmio_write(void *arg, uint64_t address, unsigned size, uint64_t value)
{
        struct soft_vcpu *s = arg;
        if (in_apic_page(s, address)) {
                if ((address & 15) == 0)
                        fabric_page_write(&s->soft->fabric, s->vcpu->index, address & 0xfff,
                                          (uint32_t)value);
                soft_timer(s);
                return;
        }
        bus_write(&s->vcpu->machine->mmio, address, size, value);
}

static uint32_t pio_read(void *arg, uint16_t port, unsigned size)
{
        struct soft_vcpu *s = arg;
        uint64_t value;
        bus_read(&s->vcpu->machine->pio, port, size, &value);
        return (uint32_t)value;
}

static void pio_write(void *arg, uint16_t port, unsigned size, uint32_t value)
{
        struct soft_vcpu *s = arg;
        bus_write(&s->vcpu->machine->pio, port, size, value);
}

static int acknowledge(void *arg)
{
        struct soft_vcpu *s = arg;
        return fabric_acknowledge(&s->soft->fabric, s->vcpu->index);
}

static void tpr_changed(void *arg, uint8_t cr8)
{
        struct soft_vcpu *s = arg;
        fabric_set_tpr(&s->soft->fabric, s->vcpu->index, cr8);
}

static uint8_t tpr_read(void *arg)
{
        struct soft_vcpu *s = arg;
        return fabric_tpr(&s->soft->fabric, s->vcpu->index);
}

/* ---- sleeping ---- */

static void soft_wake(void *arg)
{
        struct soft_vcpu *s = arg;
        atomic_store(&s->signalled, true);
        if (!atomic_load(&s->sleeping))
                return;
        pthread_mutex_lock(&s->lock);
        pthread_cond_signal(&s->wake);
        pthread_mutex_unlock(&s->lock);
}

static void soft_sleep(struct soft_vcpu *s, int64_t deadline_ns)
{
        struct timespec until = { deadline_ns / NS_PER_S, deadline_ns % NS_PER_S };
        soft_steal_account(s);
        pthread_mutex_lock(&s->lock);
        atomic_store(&s->sleeping, true);
        while (!atomic_load(&s->signalled)) {
                if (!deadline_ns)
                        pthread_cond_wait(&s->wake, &s->lock);
                else if (pthread_cond_timedwait(&s->wake, &s->lock, &until) == ETIMEDOUT)
                        break;
        }
        atomic_store(&s->sleeping, false);
        pthread_mutex_unlock(&s->lock);
        soft_steal_restart(s);
}

static void soft_kick(struct vcpu *v)
{
        struct soft_vcpu *s = v->provider;
        cpu_kick(s->cpu);
        soft_wake(s);
}

static void timer_due(void *arg)
{
        soft_kick(((struct soft_vcpu *)arg)->vcpu);
}

int64_t soft_timer(struct soft_vcpu *s)
{
        int64_t next = fabric_timer(&s->soft->fabric, s->vcpu->index, clock_monotonic_ns());
        if (next != s->armed_ns)
                timer_arm(s->timer, next);
        s->armed_ns = next;
        return next;
}

/* ---- for a debugger ---- */

struct vcpu_stop soft_stop(struct cpu *cpu, enum cpu_exit reason)
{
        const struct cpu_state *state = cpu_state(cpu);
        bool wide = state->efer & EFER_LMA && state->seg[CPU_CS].attributes & ATTRIBUTE_L;
        struct vcpu_stop stop = { .kind = VCPU_STOP_STEP,
                                  .rip = wide ? state->rip
                                              : (uint32_t)(state->rip + state->seg[CPU_CS].base) };
        if (reason == CPU_EXIT_DEBUG) {
                stop.hits = cpu_debug_hits(cpu);
                stop.kind = stop.hits ? VCPU_STOP_HARDWARE : VCPU_STOP_INT3;
        }
        return stop;
}

static enum cpu_exit run_or_step(struct soft_vcpu *s)
{
        struct cpu_state *state = cpu_state(s->cpu);
        if (!s->step)
                return cpu_run(s->cpu, CPU_NO_BUDGET);
        if (state->activity == CPU_RUNNING)
                state->interrupt_shadow = 1; /* the instruction, not a handler's first one */
        return cpu_run(s->cpu, 1);
}

static int soft_set_debug(struct vcpu *v, const struct vcpu_debug *debug, struct err *err)
{
        struct soft_vcpu *s = v->provider;
        struct cpu_debug wanted = { .dr7 = debug->dr7, .int3 = debug->on };
        (void)err;
        memcpy(wanted.dr, debug->dr, sizeof(wanted.dr));
        cpu_set_debug(s->cpu, &wanted);
        s->step = debug->step;
        return 0;
}

static int soft_pass_int3(struct vcpu *v, struct err *err)
{
        struct soft_vcpu *s = v->provider;
        (void)err;
        cpu_pass_int3(s->cpu);
        return 0;
}

/* Sleeps until something comes. Code of a processor that hardly runs is not worth its
 * memory: what the guest's timers need is decoded again. */
static void soft_halt(struct soft_vcpu *s)
{
        int64_t deadline = soft_timer(s), now = clock_monotonic_ns();
        if (now - s->watch_ns >= IDLE_WATCH_NS) {
                int64_t busy = soft_thread_ns();
                bool idle = busy - s->busy_ns < (now - s->watch_ns) / IDLE_FRACTION;
                if (idle && !s->soft->profile && cpu_code_bytes(s->cpu) > IDLE_CODE_MAX)
                        cpu_trim(s->cpu);
                s->watch_ns = now;
                s->busy_ns = busy;
        }
        int64_t look = s->watch_ns + IDLE_WATCH_NS;
        if (cpu_code_bytes(s->cpu) > IDLE_CODE_MAX && (!deadline || deadline > look))
                deadline = look;
        soft_sleep(s, deadline);
}

static enum vcpu_exit soft_run(struct vcpu *v, struct err *err)
{
        struct soft_vcpu *s = v->provider;
        soft_steal_restart(s); /* it may have stood, paused */
        for (;;) {
                atomic_store(&s->signalled, false);
                soft_timer(s);
                enum cpu_exit reason = run_or_step(s);
                switch (reason) {
                case CPU_EXIT_BUDGET:
                case CPU_EXIT_DEBUG:
                        v->stop = soft_stop(s->cpu, reason);
                        return VCPU_DEBUG;
                case CPU_EXIT_KICK:
                        soft_steal_account(s); /* as often as its timer, at least */
                        return VCPU_KICKED;
                case CPU_EXIT_HALT:
                        soft_halt(s);
                        break;
                case CPU_EXIT_WAIT_SIPI:
                        soft_sleep(s, 0);
                        break;
                case CPU_EXIT_SHUTDOWN:
                        return VCPU_SHUTDOWN;
                default:
                        err_plain(err, EIO, "vCPU %u: the processor stopped for no known reason",
                                  v->index);
                        return VCPU_FAILED;
                }
        }
}

/* ---- building ---- */

static void touched(void *arg, struct gpa base, uint64_t size_bytes)
{
        struct soft_machine *soft = arg;
        cpu_memory_written(&soft->memory, base.value, size_bytes);
}

/* Translated code writes unseen where the TLB has let it once. */
static int soft_sync_dirty(struct machine *m, struct err *err)
{
        struct soft_machine *soft = m->provider;
        (void)err;
        soft->memory.dirty = m->memory.dirty;
        for (unsigned i = 0; i < m->vcpus_length; i++) {
                struct soft_vcpu *s = m->vcpus[i].provider;
                cpu_watch_writes(s->cpu);
        }
        return 0;
}

static int soft_attach(struct machine *m, struct err *err)
{
        struct soft_machine *soft = new0(struct soft_machine);
        for (unsigned i = 0; i < m->memory.length; i++) {
                const struct memory_slot *slot = &m->memory.slots[i];
                soft->memory.slots[soft->memory.length++] = (struct cpu_slot){
                        slot->base.value, slot->size_bytes, slot->host.bytes, false
                };
        }
        int r = cpu_memory_init(&soft->memory, err);
        if (r < 0) {
                free(soft);
                return r;
        }
        m->memory.touched = touched;
        m->memory.touched_arg = soft;
        m->tsc_khz = soft_tsc_khz();
        soft_clock_init(soft, m->tsc_khz);
        m->provider = soft;
        return fabric_init(&soft->fabric, m, err);
}

static void soft_detach(struct machine *m)
{
        struct soft_machine *soft = m->provider;
        profile_destroy(soft->profile);
        fabric_finish(&soft->fabric);
        cpu_memory_finish(&soft->memory);
        m->irq = (struct irq){ 0 };
        m->provider = NULL;
        free(soft);
}

static int soft_create(struct vcpu *v, struct err *err)
{
        struct soft_machine *soft = v->machine->provider;
        struct soft_vcpu *s = new0(struct soft_vcpu);
        s->vcpu = v;
        s->soft = soft;
        s->watch_ns = clock_monotonic_ns();
        s->bus = (struct cpu_bus){
                .arg = s,
                .memory = &soft->memory,
                .mmio_read = mmio_read,
                .mmio_write = mmio_write,
                .pio_read = pio_read,
                .pio_write = pio_write,
                .interrupt_acknowledge = acknowledge,
                .msr_read = soft_msr_read,
                .msr_write = soft_msr_write,
                .tpr_changed = tpr_changed,
                .tpr_read = tpr_read,
                .hypercall = soft_hypercall,
                .cpuid = soft_cpuid,
        };
        int r = cpu_create(&s->bus, v->index, &s->cpu, err);
        if (r == 0)
                r = cpu_set_model(s->cpu, v->machine->model, err);
        if (r == 0)
                r = timer_create_on(v->machine->loop, timer_due, s, &s->timer, err);
        if (r < 0) {
                cpu_destroy(s->cpu);
                free(s);
                return r;
        }
        cpu_state(s->cpu)->tsc_offset = soft->tsc_offset;
        pthread_condattr_t monotonic;
        pthread_condattr_init(&monotonic);
        pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
        pthread_cond_init(&s->wake, &monotonic);
        pthread_condattr_destroy(&monotonic);
        pthread_mutex_init(&s->lock, NULL);
        v->provider = s;
        fabric_connect(&soft->fabric, v->index, s->cpu, soft_wake, s);
        return 0;
}

static void soft_destroy(struct vcpu *v)
{
        struct soft_vcpu *s = v->provider;
        if (!s)
                return;
        timer_destroy(s->timer);
        profile_keep(s->soft->profile, s->cpu);
        cpu_destroy(s->cpu);
        pthread_cond_destroy(&s->wake);
        pthread_mutex_destroy(&s->lock);
        free(s);
        v->provider = NULL;
}

/* ---- the rest of the provider ---- */

static int soft_profile(struct machine *m, const char *path, struct err *err)
{
        return profile_create(m, path, err);
}

static bool soft_profiled(struct machine *m, struct buf *ret)
{
        const struct soft_machine *soft = m->provider;
        if (soft->profile)
                profile_report(soft->profile, ret);
        return soft->profile;
}

static void soft_counters(struct vcpu *v, counter_fn *take, void *arg)
{
        const struct soft_vcpu *s = v->provider;
        const struct cpu_counters *c = cpu_counters(s->cpu);
        const struct {
                const char *name;
                uint64_t value;
        } all[] = {
                { "instructions_interpreted", c->instructions },
                { "blocks_run", c->blocks_run },
                { "translated_runs", c->translated_runs },
                { "blocks_searched", c->blocks_searched },
                { "blocks_decoded", c->blocks_decoded },
                { "blocks_translated", c->blocks_translated },
                { "blocks_invalidated", c->blocks_invalidated },
                { "blocks_renewed", c->blocks_renewed },
                { "helper_steps", c->helper_steps },
                { "code_flushes", c->code_flushes },
                { "tlb_misses", c->tlb_misses },
                { "tlb_flushes", c->tlb_flushes },
                { "tlb_switches", c->tlb_switches },
                { "page_walks", c->page_walks },
                { "exceptions", c->exceptions },
                { "device_accesses", c->device_accesses },
                { "port_accesses", c->port_accesses },
                { "interrupts", c->interrupts },
                { "unimplemented", c->unimplemented },
        };
        for (unsigned i = 0; i < ELEMENTS(all); i++)
                take(arg, all[i].name, all[i].value);
}

static int soft_notify_fd(struct machine *m, uint64_t address, int fd, bool set)
{
        (void)m;
        (void)address;
        (void)fd;
        (void)set;
        return -EOPNOTSUPP;
}

const struct vcpu_ops vcpu_soft = {
        .name = "soft",
        .jail = JAIL_VCPU_SOFT,
        .components = UINT64_MAX,
        .attach = soft_attach,
        .detach = soft_detach,
        .create = soft_create,
        .destroy = soft_destroy,
        .run = soft_run,
        .kick = soft_kick,
        .get_state = soft_get_state,
        .set_state = soft_set_state,
        .get_apic = soft_get_apic,
        .set_apic = soft_set_apic,
        .get_paravirt = soft_get_paravirt,
        .set_paravirt = soft_set_paravirt,
        .get_clock = soft_get_clock,
        .set_clock = soft_set_clock,
        .get_chips = soft_get_chips,
        .set_chips = soft_set_chips,
        .set_debug = soft_set_debug,
        .pass_int3 = soft_pass_int3,
        .counters = soft_counters,
        .profile = soft_profile,
        .profiled = soft_profiled,
        .notify_fd = soft_notify_fd,
        .sync_dirty = soft_sync_dirty,
};
