/* Exceptions and interrupts: raising, combining, entering handlers. */
#include "cpu/core.h"

static _Noreturn void raise_fault(struct cpu *cpu, struct fault fault)
{
        if (cpu->step) {
                cpu->s.rip -= cpu->step->i.length;
                if (cpu->legacy)
                        cpu->s.rip &= 0xffffffff;
                cpu->step = NULL;
        }
        cpu->fault = fault;
        siglongjmp(cpu->escape, 1);
}

void cpu_raise(struct cpu *cpu, int vector)
{
        raise_fault(cpu, (struct fault){ .vector = vector });
}

void cpu_raise_error(struct cpu *cpu, int vector, uint32_t error)
{
        bool selector = vector >= VEC_TS && vector <= VEC_GP;
        if (selector && cpu->delivering >= 0)
                error |= 1; /* EXT */
        bool has_error = cpu->s.cr0 & CR0_PE;
        raise_fault(cpu,
                    (struct fault){ .vector = vector, .error = error, .has_error = has_error });
}

void cpu_raise_debug(struct cpu *cpu, uint64_t dr6_bits)
{
        cpu->exception_dr6 = dr6_bits;
        cpu_raise(cpu, VEC_DB);
}

void cpu_raise_to_debugger(struct cpu *cpu)
{
        cpu_raise(cpu, FAULT_DEBUGGER);
}

/* ---- entering a handler ---- */

static void interrupt_real(struct cpu *cpu, int vector)
{
        if ((uint32_t)vector * 4 + 3 > cpu->s.idtr.limit)
                cpu_gp(cpu);
        uint32_t entry;
        cpu_load_system(cpu, cpu->s.idtr.base + (uint32_t)vector * 4, &entry, 4);
        uint64_t mask = stack_mask(cpu), sp = cpu->s.gpr[CPU_RSP];
        uint64_t values[3] = { cpu->s.rflags & 0xffff, cpu->s.seg[CPU_CS].selector, cpu->s.rip };
        for (unsigned i = 0; i < 3; i++) {
                sp = (sp - 2) & mask;
                store16(cpu, seg_linear(cpu, CPU_SS, sp, 2, true), (uint16_t)values[i]);
        }
        set_rsp(cpu, sp, mask);
        cpu_set_real_segment(cpu, CPU_CS, (uint16_t)(entry >> 16));
        cpu->s.rip = entry & 0xffff;
        cpu_set_flags(cpu, 0, FLAG_IF | FLAG_TF | RF_AC | RF_RF);
}

struct gate {
        uint64_t offset;
        uint16_t selector;
        uint8_t type, dpl, ist;
        bool present;
};

#define GATE_TASK 5

static struct gate gate_read(struct cpu *cpu, int vector, enum interrupt_kind kind)
{
        unsigned size = cpu->long_mode ? 16 : 8;
        uint32_t error = (uint32_t)vector * 8 + 2;
        if ((uint32_t)vector * size + size - 1 > cpu->s.idtr.limit)
                cpu_raise_error(cpu, VEC_GP, error);
        uint64_t d[2] = { 0, 0 };
        cpu_load_system(cpu, cpu->s.idtr.base + (uint32_t)vector * size, d, size);
        struct gate g = {
                .offset = (d[0] & 0xffff) | (d[0] >> 32 & 0xffff0000) | d[1] << 32,
                .selector = (uint16_t)(d[0] >> 16),
                .type = d[0] >> 40 & 31,
                .dpl = d[0] >> 45 & 3,
                .present = d[0] >> 47 & 1,
                .ist = cpu->long_mode ? d[0] >> 32 & 7 : 0,
        };
        bool known = g.type == 14 || g.type == 15 ||
                     (!cpu->long_mode && (g.type == GATE_TASK || g.type == 6 || g.type == 7));
        if (!known)
                cpu_raise_error(cpu, VEC_GP, error);
        if (kind == INTERRUPT_SOFTWARE && g.dpl < cpu->cpl)
                cpu_raise_error(cpu, VEC_GP, error);
        if (!g.present)
                cpu_raise_error(cpu, VEC_NP, error);
        return g;
}

static struct cpu_segment handler_segment(struct cpu *cpu, uint16_t selector, unsigned *ret_cpl)
{
        uint64_t d;
        uint32_t error = selector & 0xfffcu;
        if (!error)
                cpu_gp(cpu);
        if (cpu_read_descriptor(cpu, selector, &d) < 0)
                cpu_raise_error(cpu, VEC_GP, error);
        struct cpu_segment cs = cpu_segment_from(d, selector);
        unsigned dpl = ATTR_DPL(cs.attributes);
        if ((cs.attributes & 0x18) != 0x18 || dpl > cpu->cpl)
                cpu_raise_error(cpu, VEC_GP, error);
        if (cpu->long_mode && (!(cs.attributes & ATTR_L) || cs.attributes & ATTR_DB))
                cpu_raise_error(cpu, VEC_GP, error);
        if (!(cs.attributes & ATTR_P))
                cpu_raise_error(cpu, VEC_NP, error);
        *ret_cpl = cs.attributes & 4 ? cpu->cpl : dpl;
        cs.selector = (uint16_t)((selector & ~3u) | *ret_cpl);
        cs.attributes |= 1;
        return cs;
}

static uint64_t tss_read(struct cpu *cpu, uint32_t offset, unsigned size)
{
        uint64_t value = 0;
        if (offset + size - 1 > cpu->s.tr.limit)
                cpu_raise_error(cpu, VEC_TS, cpu->s.tr.selector & 0xfffcu);
        cpu_load_system(cpu, cpu->s.tr.base + offset, &value, size);
        return value;
}

struct handler_stack {
        struct cpu_segment ss;
        uint64_t rsp, mask;
};

/* The stack of the handler: the present one, or the TSS's for an inner level. */
static struct handler_stack handler_stack(struct cpu *cpu, const struct gate *g, unsigned cpl)
{
        struct handler_stack st = { cpu->s.seg[CPU_SS], cpu->s.gpr[CPU_RSP], UINT64_MAX };
        if (cpu->long_mode) {
                if (g->ist)
                        st.rsp = tss_read(cpu, 36 + 8u * (g->ist - 1), 8);
                else if (cpl != cpu->cpl)
                        st.rsp = tss_read(cpu, 4 + 8 * cpl, 8);
                if (cpl != cpu->cpl)
                        st.ss = (struct cpu_segment){ .selector = (uint16_t)cpl,
                                                      .attributes = ATTR_UNUSABLE | cpl << 5 };
                if (!canonical(st.rsp))
                        cpu_raise_error(cpu, VEC_SS, 0);
                st.rsp &= ~15ull;
                return st;
        }
        if (cpl != cpu->cpl) {
                bool tss32 = cpu->s.tr.attributes & 8;
                uint16_t selector = (uint16_t)(tss32 ? tss_read(cpu, 8 + 8 * cpl, 2)
                                                     : tss_read(cpu, 4 + 4 * cpl, 2));
                st.rsp = tss32 ? tss_read(cpu, 4 + 8 * cpl, 4) : tss_read(cpu, 2 + 4 * cpl, 2);
                st.ss = cpu_stack_for_interrupt(cpu, selector, cpl);
        }
        st.mask = st.ss.attributes & ATTR_DB ? 0xffffffff : 0xffff;
        return st;
}

static void handler_push(struct cpu *cpu, struct handler_stack *st, uint64_t value, unsigned size,
                         unsigned cpl)
{
        uint64_t sp = (st->rsp - size) & st->mask;
        uint64_t linear = sp;
        if (!cpu->long_mode) {
                if (sp + size - 1 > st->ss.limit && !(st->ss.attributes & 4))
                        cpu_raise_error(cpu, VEC_SS, 0);
                linear = (uint32_t)(st->ss.base + sp);
        }
        if (cpl == 3)
                cpu_store_slow(cpu, linear, &value, size);
        else
                cpu_store_system(cpu, linear, &value, size);
        st->rsp = (st->rsp & ~st->mask) | sp;
}

/* The error code goes to the stack of the new task. */
static void interrupt_by_task(struct cpu *cpu, uint16_t selector, uint64_t flags,
                              const uint32_t *error)
{
        cpu_task_switch(cpu, selector, TASK_CALL, flags);
        if (!error)
                return;
        struct handler_stack st = { cpu->s.seg[CPU_SS], cpu->s.gpr[CPU_RSP], 0xffff };
        if (st.ss.attributes & ATTR_DB)
                st.mask = 0xffffffff;
        handler_push(cpu, &st, *error, cpu->s.tr.attributes & 8 ? 4 : 2, cpu->cpl);
        cpu->s.gpr[CPU_RSP] = st.rsp;
}

void cpu_interrupt(struct cpu *cpu, int vector, enum interrupt_kind kind, const uint32_t *error)
{
        if (!(cpu->s.cr0 & CR0_PE)) {
                interrupt_real(cpu, vector);
                return;
        }
        struct gate g = gate_read(cpu, vector, kind);
        uint64_t flags = cpu->s.rflags;
        bool fault = kind == INTERRUPT_EXCEPTION && vector != VEC_DB && vector != VEC_BP &&
                     vector != VEC_OF;
        if (fault)
                flags |= RF_RF;
        if (g.type == GATE_TASK) {
                interrupt_by_task(cpu, g.selector, flags, error);
                return;
        }
        unsigned cpl;
        struct cpu_segment cs = handler_segment(cpu, g.selector, &cpl);
        struct handler_stack st = handler_stack(cpu, &g, cpl);
        unsigned size = cpu->long_mode ? 8 : g.type & 8 ? 4 : 2;
        uint64_t offset = size == 2 ? g.offset & 0xffff : g.offset;
        if (cpu->long_mode ? !canonical(offset) : offset > cs.limit)
                cpu_gp(cpu);
        if (cpl != cpu->cpl || cpu->long_mode) {
                handler_push(cpu, &st, cpu->s.seg[CPU_SS].selector, size, cpl);
                handler_push(cpu, &st, cpu->s.gpr[CPU_RSP], size, cpl);
        }
        handler_push(cpu, &st, flags, size, cpl);
        handler_push(cpu, &st, cpu->s.seg[CPU_CS].selector, size, cpl);
        handler_push(cpu, &st, cpu->s.rip, size, cpl);
        if (error)
                handler_push(cpu, &st, *error, size, cpl);
        cpu->s.seg[CPU_SS] = st.ss;
        cpu->s.gpr[CPU_RSP] = st.rsp;
        cpu->s.seg[CPU_CS] = cs;
        cpu->s.rip = offset;
        uint64_t clear = FLAG_TF | RF_NT | RF_RF | RF_VM;
        if (!(g.type & 1))
                clear |= FLAG_IF;
        cpu_set_flags(cpu, 0, clear);
}

/* ---- combining ---- */

static bool contributory(int vector)
{
        return vector == VEC_DE || (vector >= VEC_TS && vector <= VEC_GP);
}

/* Called by cpu_run() after an escape: enters the handler of cpu->fault, or of
 * the double fault it makes together with what was being delivered. Raises
 * again when that fails; the third failure is shutdown. */
void cpu_deliver_fault(struct cpu *cpu)
{
        struct fault f = cpu->fault;
        int first = cpu->delivering;
        cpu->counters.exceptions++;
        if (first == VEC_DF) {
                cpu->s.activity = CPU_SHUTDOWN;
                cpu->delivering = -1;
                return;
        }
        if ((contributory(first) && contributory(f.vector)) ||
            (first == VEC_PF && (f.vector == VEC_PF || contributory(f.vector))))
                f = (struct fault){ VEC_DF, 0, cpu->s.cr0 & CR0_PE };
        if (f.vector == VEC_DB) {
                /* B0 to B3 tell of this exception; software clears the rest. */
                cpu->s.dr6 = (cpu->s.dr6 & ~0xfull) | cpu->exception_dr6;
                cpu->s.dr7 &= ~0x2000ull; /* GD */
        }
        cpu->delivering = f.vector;
        cpu->s.interrupt_shadow = false;
        cpu->s.activity = CPU_RUNNING; /* a trap after HLT ends it */
        cpu_interrupt(cpu, f.vector, INTERRUPT_EXCEPTION, f.has_error ? &f.error : NULL);
        cpu->delivering = -1;
}
