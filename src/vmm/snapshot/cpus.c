#include "vmm/snapshot/cpus.h"

#include <errno.h>
#include <x86intrin.h>

#include "base/str.h"
#include "vmm/soft/chips.h"

#define PPM_MAX 250u /* by which frequencies of one TSC may differ, as measured */

static const struct state_field clock_fields[] = {
        STATE_FIELD(struct vcpu_clock, tsc, UINT64_MAX),
        STATE_FIELD(struct vcpu_clock, tsc_khz, UINT32_MAX),
        STATE_FIELD(struct vcpu_clock, kvmclock_ns, INT64_MAX / 4),
};
static const struct state_field apic_fields[] = {
        STATE_ARRAY(struct vcpu_apic, registers, UINT32_MAX),
        STATE_FIELD(struct vcpu_apic, base, UINT64_MAX),
        STATE_FIELD(struct vcpu_apic, tsc_deadline, UINT64_MAX),
};
static const struct state_field paravirt_fields[] = {
        STATE_FIELD(struct vcpu_paravirt, system_time, UINT64_MAX),
        STATE_FIELD(struct vcpu_paravirt, steal_time, UINT64_MAX),
        STATE_FIELD(struct vcpu_paravirt, async_faults, UINT64_MAX),
        STATE_FIELD(struct vcpu_paravirt, async_vector, UINT64_MAX),
        STATE_FIELD(struct vcpu_paravirt, end_of_interrupt, UINT64_MAX),
};
static const struct state_field ioapic_fields[] = {
        STATE_ARRAY(struct chips_state, entries, UINT64_MAX),
        STATE_FIELD(struct chips_state, lines, (1u << IOAPIC_PINS) - 1),
        STATE_FIELD(struct chips_state, select, UINT8_MAX),
        STATE_FIELD(struct chips_state, id, 15),
};
static const struct state_field pic_fields[] = {
        STATE_FIELD(struct pic, irr, UINT8_MAX),  STATE_FIELD(struct pic, isr, UINT8_MAX),
        STATE_FIELD(struct pic, imr, UINT8_MAX),  STATE_FIELD(struct pic, lines, UINT8_MAX),
        STATE_FIELD(struct pic, elcr, UINT8_MAX), STATE_FIELD(struct pic, base, UINT8_MAX),
        STATE_FIELD(struct pic, init, 4),         STATE_FIELD(struct pic, icw4, 1),
        STATE_FIELD(struct pic, auto_eoi, 1),     STATE_FIELD(struct pic, read_isr, 1),
};

#define PUT(writer, kind, number, object, fields)                                                  \
        put(writer, kind, number, object, fields, ELEMENTS(fields))
#define GET(reader, kind, number, object, fields, err)                                             \
        get(reader, kind, number, object, fields, ELEMENTS(fields), err)

static void put(struct state_writer *w, const char *kind, unsigned number, const void *object,
                const struct state_field *fields, size_t length)
{
        state_begin(w, kind, number, 1);
        state_put_fields(w, object, fields, length);
        state_close(w);
}

static int get(struct state_reader *reader, const char *kind, unsigned number, void *object,
               const struct state_field *fields, size_t length, struct err *err)
{
        struct state_section *s = NULL;
        int r = state_take(reader, kind, number, 1, &s, err);
        if (r < 0)
                return r;
        state_get_fields(s, object, fields, length);
        return state_end(s, err);
}

/* ---- saving ---- */

static int save_cpu(struct vcpu *v, struct state_writer *w, uint64_t host_tsc, struct err *err)
{
        const struct vcpu_ops *ops = v->machine->cpu;
        struct cpu_state state;
        struct vcpu_apic apic;
        struct vcpu_paravirt paravirt;
        int r = ops->get_state(v, &state, err);
        if (r == 0 && state.xcr0 & ~ops->components)
                r = err_plain(err, EOPNOTSUPP,
                              "vCPU %u uses registers that a snapshot has no place for (XCR0 "
                              "0x%llx); with --cpu soft a guest has none of them",
                              v->index, (unsigned long long)state.xcr0);
        if (r == 0)
                r = ops->get_apic(v, &apic, err);
        if (r == 0)
                r = ops->get_paravirt(v, &paravirt, err);
        if (r < 0)
                return r;
        state.tsc_offset += host_tsc; /* the guest's TSC at that moment */
        state_begin(w, "cpu", v->index, CPU_STATE_VERSION);
        state_put_bytes(w, &state, sizeof(state));
        state_close(w);
        PUT(w, "apic", v->index, &apic, apic_fields);
        PUT(w, "paravirt", v->index, &paravirt, paravirt_fields);
        return 0;
}

int cpus_save(struct machine *m, struct state_writer *w, struct err *err)
{
        struct vcpu_clock clock;
        struct chips_state chips;
        int r = m->cpu->get_clock(m, &clock, err);
        uint64_t host_tsc = __rdtsc();
        if (r == 0)
                r = m->cpu->get_chips(m, &chips, err);
        if (r < 0)
                return r;
        PUT(w, "clock", 0, &clock, clock_fields);
        for (unsigned i = 0; r == 0 && i < m->vcpus_length; i++)
                r = save_cpu(&m->vcpus[i], w, host_tsc, err);
        PUT(w, "ioapic", 0, &chips, ioapic_fields);
        for (unsigned i = 0; i < 2; i++)
                PUT(w, "pic", i, &chips.pics.chip[i], pic_fields);
        return r;
}

/* ---- loading ---- */

static int load_cpu(struct vcpu *v, struct state_reader *reader, uint64_t host_tsc, struct err *err)
{
        const struct vcpu_ops *ops = v->machine->cpu;
        struct state_section *s = NULL;
        struct cpu_state state;
        struct vcpu_apic apic = { 0 };
        struct vcpu_paravirt paravirt = { 0 };
        int r = state_take(reader, "cpu", v->index, CPU_STATE_VERSION, &s, err);
        if (r < 0)
                return r;
        state_get_bytes(s, &state, sizeof(state));
        r = state_end(s, err);
        if (r == 0 && cpu_state_check(&state, err) < 0)
                r = err_wrap(err, "snapshot '%s': section '%s'", reader->file, s->name);
        if (r == 0)
                r = GET(reader, "apic", v->index, &apic, apic_fields, err);
        if (r == 0)
                r = GET(reader, "paravirt", v->index, &paravirt, paravirt_fields, err);
        if (r < 0)
                return r;
        state.tsc_offset -= host_tsc;
        state.apic_base = apic.base;
        r = ops->set_state(v, &state, err);
        if (r == 0)
                r = ops->set_apic(v, &apic, err);
        if (r == 0)
                r = ops->set_paravirt(v, &paravirt, err);
        return r;
}

static int load_clock(struct machine *m, struct state_reader *reader, uint64_t host_tsc,
                      struct err *err)
{
        struct vcpu_clock clock = { 0 };
        int r = GET(reader, "clock", 0, &clock, clock_fields, err);
        if (r < 0)
                return r;
        uint64_t difference = clock.tsc_khz > m->tsc_khz ? clock.tsc_khz - m->tsc_khz
                                                         : m->tsc_khz - clock.tsc_khz;
        if (difference * 1000000 > clock.tsc_khz * PPM_MAX)
                return err_plain(err, ENOTSUP,
                                 "snapshot '%s': a guest that counts time at %llu kHz, where this "
                                 "host's TSC has %llu; restore it on a host like the one that "
                                 "saved it",
                                 reader->file, (unsigned long long)clock.tsc_khz,
                                 (unsigned long long)m->tsc_khz);
        return m->cpu->set_clock(m, &clock, host_tsc, err);
}

int cpus_load(struct machine *m, struct state_reader *reader, struct err *err)
{
        struct chips_state chips = { 0 };
        uint64_t host_tsc = __rdtsc();
        int r = load_clock(m, reader, host_tsc, err);
        for (unsigned i = 0; r == 0 && i < m->vcpus_length; i++)
                r = load_cpu(&m->vcpus[i], reader, host_tsc, err);
        if (r == 0)
                r = GET(reader, "ioapic", 0, &chips, ioapic_fields, err);
        for (unsigned i = 0; r == 0 && i < 2; i++)
                r = GET(reader, "pic", i, &chips.pics.chip[i], pic_fields, err);
        return r < 0 ? r : m->cpu->set_chips(m, &chips, err);
}
