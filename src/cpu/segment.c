/* Segment registers, far transfers and IRET. */
#include "cpu/core.h"

#define RPL(selector)      ((selector)&3u)
#define INDEX(sel)         ((uint32_t)(sel)&0xfffcu)
#define TYPE_TSS_AVAILABLE 1u
#define TYPE_TASK_GATE     5u

struct cpu_segment cpu_segment_from(uint64_t d, uint16_t selector)
{
        struct cpu_segment s = {
                .base = (d >> 16 & 0xffffff) | (d >> 32 & 0xff000000),
                .limit = (uint32_t)((d & 0xffff) | (d >> 32 & 0xf0000)),
                .attributes = (uint32_t)(d >> 40 & 0xf0ff),
                .selector = selector,
        };
        if (s.attributes & ATTR_G)
                s.limit = s.limit << 12 | 0xfff;
        return s;
}

static uint64_t descriptor_address(struct cpu *cpu, uint16_t selector, unsigned size)
{
        uint64_t base = cpu->s.gdtr.base;
        uint32_t limit = cpu->s.gdtr.limit;
        if (selector & 4) {
                if (cpu->s.ldtr.attributes & ATTR_UNUSABLE)
                        return UINT64_MAX;
                base = cpu->s.ldtr.base;
                limit = cpu->s.ldtr.limit;
        }
        uint32_t offset = selector & 0xfff8u;
        return offset + size - 1 > limit ? UINT64_MAX : base + offset;
}

int cpu_read_descriptor(struct cpu *cpu, uint16_t selector, uint64_t *ret)
{
        uint64_t at = descriptor_address(cpu, selector, 8);
        if (at == UINT64_MAX)
                return -1;
        cpu_load_system(cpu, at, ret, 8);
        return 0;
}

static uint64_t descriptor(struct cpu *cpu, uint16_t selector, int vector)
{
        uint64_t d;
        if (cpu_read_descriptor(cpu, selector, &d) < 0)
                cpu_raise_error(cpu, vector, INDEX(selector));
        return d;
}

static void mark_accessed(struct cpu *cpu, uint16_t selector, uint64_t d)
{
        if (d >> 40 & 1)
                return;
        uint8_t type = (uint8_t)(d >> 40 | 1);
        cpu_store_system(cpu, descriptor_address(cpu, selector, 8) + 5, &type, 1);
}

void cpu_set_real_segment(struct cpu *cpu, unsigned seg, uint16_t selector)
{
        cpu->s.seg[seg].selector = selector;
        cpu->s.seg[seg].base = (uint64_t)selector << 4;
}

static void load_null(struct cpu *cpu, unsigned seg, uint16_t selector)
{
        if (seg == CPU_SS && (!cpu->code64 || cpu->cpl == 3 || RPL(selector) != cpu->cpl))
                cpu_gp(cpu);
        cpu->s.seg[seg] = (struct cpu_segment){
                .selector = selector,
                .attributes = ATTR_UNUSABLE | (seg == CPU_SS ? (uint32_t)cpu->cpl << 5 : 0),
        };
}

/* SS for a given privilege; `vector` is #GP or #TS by who loads. */
static struct cpu_segment stack_segment(struct cpu *cpu, uint16_t selector, unsigned cpl,
                                        int vector)
{
        if (!(selector & 0xfffc))
                cpu_raise_error(cpu, vector, 0);
        uint64_t d = descriptor(cpu, selector, vector);
        struct cpu_segment s = cpu_segment_from(d, selector);
        bool writable_data = (s.attributes & 0x1a) == 0x12;
        if (!writable_data || RPL(selector) != cpl || ATTR_DPL(s.attributes) != cpl)
                cpu_raise_error(cpu, vector, INDEX(selector));
        if (!(s.attributes & ATTR_P))
                cpu_raise_error(cpu, VEC_SS, INDEX(selector));
        mark_accessed(cpu, selector, d);
        s.attributes |= 1;
        return s;
}

struct cpu_segment cpu_stack_for_interrupt(struct cpu *cpu, uint16_t selector, unsigned cpl)
{
        return stack_segment(cpu, selector, cpl, VEC_TS);
}

/* A segment to read from; `vector` is #GP or #TS by who loads. */
static struct cpu_segment data_segment(struct cpu *cpu, uint16_t selector, int vector)
{
        uint64_t d = descriptor(cpu, selector, vector);
        struct cpu_segment s = cpu_segment_from(d, selector);
        bool code = s.attributes & 8, conforming = code && s.attributes & 4;
        unsigned dpl = ATTR_DPL(s.attributes);
        if (!(s.attributes & ATTR_S) || (code && !(s.attributes & 2)) ||
            (!conforming && (RPL(selector) > dpl || cpu->cpl > dpl)))
                cpu_raise_error(cpu, vector, INDEX(selector));
        if (!(s.attributes & ATTR_P))
                cpu_raise_error(cpu, VEC_NP, INDEX(selector));
        mark_accessed(cpu, selector, d);
        s.attributes |= 1;
        return s;
}

void cpu_load_data_for_task(struct cpu *cpu, unsigned seg, uint16_t selector)
{
        if (INDEX(selector))
                cpu->s.seg[seg] = data_segment(cpu, selector, VEC_TS);
        else
                load_null(cpu, seg, selector);
        cpu_mode_changed(cpu);
}

void cpu_load_segment(struct cpu *cpu, unsigned seg, uint16_t selector)
{
        if (!(cpu->s.cr0 & CR0_PE)) {
                cpu_set_real_segment(cpu, seg, selector);
        } else if (!(selector & 0xfffc)) {
                load_null(cpu, seg, selector);
        } else if (seg == CPU_SS) {
                cpu->s.seg[seg] = stack_segment(cpu, selector, cpu->cpl, VEC_GP);
        } else {
                cpu->s.seg[seg] = data_segment(cpu, selector, VEC_GP);
        }
        cpu_mode_changed(cpu);
}

/* `vector` is #GP or, for the LDT of a new task, #TS. */
static struct cpu_segment system_segment(struct cpu *cpu, uint16_t selector, unsigned types,
                                         int vector)
{
        if (selector & 4)
                cpu_raise_error(cpu, vector, INDEX(selector));
        unsigned size = cpu->long_mode ? 16 : 8;
        uint64_t at = descriptor_address(cpu, selector, size);
        uint64_t d[2] = { 0, 0 };
        if (at == UINT64_MAX)
                cpu_raise_error(cpu, vector, INDEX(selector));
        cpu_load_system(cpu, at, d, size);
        struct cpu_segment s = cpu_segment_from(d[0], selector);
        s.base |= d[1] << 32;
        if (s.attributes & ATTR_S || !(types >> (s.attributes & 15) & 1) || d[1] >> 40 & 0x1f)
                cpu_raise_error(cpu, vector, INDEX(selector));
        if (!(s.attributes & ATTR_P))
                cpu_raise_error(cpu, vector == VEC_GP ? VEC_NP : vector, INDEX(selector));
        if (cpu->long_mode && !canonical(s.base))
                cpu_raise_error(cpu, vector, INDEX(selector));
        return s;
}

void cpu_load_ldt(struct cpu *cpu, uint16_t selector)
{
        if (!(selector & 0xfffc)) {
                cpu->s.ldtr.selector = selector;
                cpu->s.ldtr.attributes = ATTR_UNUSABLE;
                return;
        }
        cpu->s.ldtr = system_segment(cpu, selector, 1u << 2, VEC_GP);
}

void cpu_load_ldt_for_task(struct cpu *cpu, uint16_t selector)
{
        if (INDEX(selector))
                cpu->s.ldtr = system_segment(cpu, selector, 1u << 2, VEC_TS);
}

void cpu_load_tr(struct cpu *cpu, uint16_t selector)
{
        if (!(selector & 0xfffc))
                cpu_gp(cpu);
        struct cpu_segment s = system_segment(cpu, selector, 1u << 9 | 1u << 1, VEC_GP);
        s.attributes |= 2; /* busy */
        uint8_t type = (uint8_t)s.attributes;
        cpu_store_system(cpu, descriptor_address(cpu, selector, 8) + 5, &type, 1);
        cpu->s.tr = s;
}

/* ---- jumps ---- */

void cpu_jump(struct cpu *cpu, uint64_t target, unsigned opsize)
{
        if (likely(!cpu->legacy)) {
                if (!canonical(target))
                        cpu_gp(cpu);
        } else {
                target &= opsize == 2 ? 0xffff : 0xffffffff;
                if (target > cpu->s.seg[CPU_CS].limit)
                        cpu_gp(cpu);
        }
        cpu->s.rip = target;
}

static void check_target(struct cpu *cpu, const struct cpu_segment *cs, uint64_t offset)
{
        bool to64 = cpu->long_mode && cs->attributes & ATTR_L;
        if (to64 ? !canonical(offset) : offset > cs->limit)
                cpu_gp(cpu);
}

/* Code segment as the target of a far JMP or CALL without change of privilege. */
static struct cpu_segment code_segment(struct cpu *cpu, uint16_t selector)
{
        if (!(selector & 0xfffc))
                cpu_gp(cpu);
        uint64_t d = descriptor(cpu, selector, VEC_GP);
        struct cpu_segment s = cpu_segment_from(d, selector);
        unsigned dpl = ATTR_DPL(s.attributes);
        if (!(s.attributes & ATTR_S)) /* call gates */
                cpu_unimplemented(cpu);
        if ((s.attributes & 0x18) != 0x18)
                cpu_raise_error(cpu, VEC_GP, INDEX(selector));
        bool conforming = s.attributes & 4;
        if (conforming ? dpl > cpu->cpl : RPL(selector) > cpu->cpl || dpl != cpu->cpl)
                cpu_raise_error(cpu, VEC_GP, INDEX(selector));
        if (cpu->long_mode && s.attributes & ATTR_L && s.attributes & ATTR_DB)
                cpu_raise_error(cpu, VEC_GP, INDEX(selector));
        if (!(s.attributes & ATTR_P))
                cpu_raise_error(cpu, VEC_NP, INDEX(selector));
        mark_accessed(cpu, selector, d);
        s.attributes |= 1;
        s.selector = (uint16_t)((selector & ~3u) | cpu->cpl);
        return s;
}

/* Far JMP and CALL to a task, by its segment or by a gate. False: to something else. */
static bool switches_task(struct cpu *cpu, uint16_t selector, enum task_switch kind)
{
        uint64_t d;
        if (cpu->long_mode || !INDEX(selector) || cpu_read_descriptor(cpu, selector, &d) < 0)
                return false;
        struct cpu_segment s = cpu_segment_from(d, selector);
        unsigned type = s.attributes & 0x1f, dpl = ATTR_DPL(s.attributes);
        if (type != TYPE_TASK_GATE && (type & ~8u) != TYPE_TSS_AVAILABLE)
                return false;
        if (dpl < cpu->cpl || dpl < RPL(selector))
                cpu_raise_error(cpu, VEC_GP, INDEX(selector));
        if (type == TYPE_TASK_GATE) {
                if (!(s.attributes & ATTR_P))
                        cpu_raise_error(cpu, VEC_NP, INDEX(selector));
                selector = (uint16_t)(d >> 16);
        }
        cpu_task_switch(cpu, selector, kind, cpu->s.rflags);
        return true;
}

static void enter_code(struct cpu *cpu, const struct cpu_segment *cs, uint64_t offset)
{
        cpu->s.seg[CPU_CS] = *cs;
        cpu->s.rip = offset;
        cpu_mode_changed(cpu);
}

void cpu_far_jump(struct cpu *cpu, uint16_t selector, uint64_t offset)
{
        if (!(cpu->s.cr0 & CR0_PE)) {
                if (offset > cpu->s.seg[CPU_CS].limit)
                        cpu_gp(cpu);
                cpu_set_real_segment(cpu, CPU_CS, selector);
                cpu->s.rip = offset;
                cpu_mode_changed(cpu);
                return;
        }
        if (switches_task(cpu, selector, TASK_JUMP))
                return;
        struct cpu_segment cs = code_segment(cpu, selector);
        check_target(cpu, &cs, offset);
        enter_code(cpu, &cs, offset);
}

void cpu_far_call(struct cpu *cpu, uint16_t selector, uint64_t offset, unsigned size)
{
        struct cpu_segment cs = cpu->s.seg[CPU_CS];
        if (cpu->s.cr0 & CR0_PE) {
                if (switches_task(cpu, selector, TASK_CALL))
                        return;
                cs = code_segment(cpu, selector);
                check_target(cpu, &cs, offset);
        } else if (offset > cs.limit) {
                cpu_gp(cpu);
        } else {
                cs.selector = selector;
                cs.base = (uint64_t)selector << 4;
        }
        uint64_t mask = stack_mask(cpu), sp = cpu->s.gpr[CPU_RSP];
        uint64_t high = seg_linear(cpu, CPU_SS, (sp - size) & mask, size, true);
        uint64_t low = seg_linear(cpu, CPU_SS, (sp - 2 * size) & mask, size, true);
        cpu_probe_write(cpu, low, size);
        store_size(cpu, high, cpu->s.seg[CPU_CS].selector, size);
        store_size(cpu, low, cpu->s.rip, size);
        set_rsp(cpu, sp - 2 * size, mask);
        enter_code(cpu, &cs, offset);
}

/* Data segments an outer level may not keep: their selectors become null. The base stays,
 * which 64-bit code sees in FS and GS. Null selectors lose their RPL, which Linux counts on. */
static void drop_inner_segments(struct cpu *cpu)
{
        static const uint8_t which[] = { CPU_ES, CPU_DS, CPU_FS, CPU_GS };
        for (unsigned i = 0; i < sizeof(which); i++) {
                struct cpu_segment *s = &cpu->s.seg[which[i]];
                bool conforming = (s->attributes & 0x1c) == 0x1c;
                if (!INDEX(s->selector) && !(s->selector & 4))
                        s->selector = 0;
                if (!conforming && ATTR_DPL(s->attributes) < cpu->cpl &&
                    !(s->attributes & ATTR_UNUSABLE)) {
                        s->selector = 0;
                        s->attributes = ATTR_UNUSABLE;
                }
        }
}

/* Code segment as the target of RETF or IRET. */
static struct cpu_segment return_segment(struct cpu *cpu, uint16_t selector)
{
        if (!(selector & 0xfffc))
                cpu_gp(cpu);
        uint64_t d = descriptor(cpu, selector, VEC_GP);
        struct cpu_segment s = cpu_segment_from(d, selector);
        unsigned dpl = ATTR_DPL(s.attributes);
        bool conforming = s.attributes & 4;
        if ((s.attributes & 0x18) != 0x18 || RPL(selector) < cpu->cpl ||
            (conforming ? dpl > RPL(selector) : dpl != RPL(selector)) ||
            (cpu->long_mode && s.attributes & ATTR_L && s.attributes & ATTR_DB))
                cpu_raise_error(cpu, VEC_GP, INDEX(selector));
        if (!(s.attributes & ATTR_P))
                cpu_raise_error(cpu, VEC_NP, INDEX(selector));
        mark_accessed(cpu, selector, d);
        s.attributes |= 1;
        return s;
}

/* SS popped by a return to privilege `cpl`; null is legal to 64-bit CPL 0-2. */
static struct cpu_segment return_stack(struct cpu *cpu, uint16_t selector, unsigned cpl, bool to64)
{
        if (!(selector & 0xfffc) && to64 && cpl < 3 && RPL(selector) == cpl)
                return (struct cpu_segment){ .selector = selector,
                                             .attributes = ATTR_UNUSABLE | cpl << 5 };
        return stack_segment(cpu, selector, cpl, VEC_GP);
}

static void set_outer(struct cpu *cpu, const struct cpu_segment *cs, uint64_t rip,
                      const struct cpu_segment *ss, uint64_t rsp, unsigned release)
{
        cpu->s.seg[CPU_SS] = *ss;
        enter_code(cpu, cs, rip);
        uint64_t mask = stack_mask(cpu);
        set_rsp(cpu, rsp + release, mask == 0xffff ? mask : UINT64_MAX);
        drop_inner_segments(cpu);
        cpu_mode_changed(cpu);
}

void cpu_far_return(struct cpu *cpu, unsigned size, unsigned pop_bytes)
{
        uint64_t offset = stack_read(cpu, 0, size);
        uint16_t selector = (uint16_t)stack_read(cpu, size, size);
        if (!(cpu->s.cr0 & CR0_PE)) {
                if (offset > cpu->s.seg[CPU_CS].limit)
                        cpu_gp(cpu);
                set_rsp(cpu, cpu->s.gpr[CPU_RSP] + 2 * size + pop_bytes, stack_mask(cpu));
                cpu_far_jump(cpu, selector, offset);
                return;
        }
        struct cpu_segment cs = return_segment(cpu, selector);
        check_target(cpu, &cs, offset);
        if (RPL(selector) == cpu->cpl) {
                set_rsp(cpu, cpu->s.gpr[CPU_RSP] + 2 * size + pop_bytes, stack_mask(cpu));
                enter_code(cpu, &cs, offset);
                return;
        }
        uint64_t rsp = stack_read(cpu, 2 * size + pop_bytes, size);
        uint16_t ss_selector = (uint16_t)stack_read(cpu, 3 * size + pop_bytes, size);
        struct cpu_segment ss = return_stack(cpu, ss_selector, RPL(selector),
                                             cpu->long_mode && cs.attributes & ATTR_L);
        set_outer(cpu, &cs, offset, &ss, rsp, pop_bytes);
}

/* ---- flags and IRET ---- */

void cpu_set_flags(struct cpu *cpu, uint64_t value, uint64_t mask)
{
        cpu->s.rflags = (cpu->s.rflags & ~mask) | (value & mask) | RF_FIXED;
        cpu_mode_changed(cpu);
}

static uint64_t iret_flag_mask(const struct cpu *cpu, unsigned size)
{
        uint64_t mask = FLAGS_ARITHMETIC | FLAG_TF | FLAG_DF | RF_NT;
        if (size > 2)
                mask |= RF_RF | RF_AC | RF_ID;
        unsigned iopl = cpu->s.rflags >> 12 & 3;
        if (cpu->cpl == 0)
                mask |= RF_IOPL;
        if (cpu->cpl <= iopl || !(cpu->s.cr0 & CR0_PE))
                mask |= FLAG_IF;
        return mask;
}

static void iret_real(struct cpu *cpu, unsigned size)
{
        uint64_t offset = stack_read(cpu, 0, size);
        uint16_t selector = (uint16_t)stack_read(cpu, size, size);
        uint64_t flags = stack_read(cpu, 2 * size, size);
        if (offset > cpu->s.seg[CPU_CS].limit)
                cpu_gp(cpu);
        set_rsp(cpu, cpu->s.gpr[CPU_RSP] + 3 * size, stack_mask(cpu));
        cpu_far_jump(cpu, selector, offset);
        cpu_set_flags(cpu, flags, iret_flag_mask(cpu, size));
}

void cpu_interrupt_return(struct cpu *cpu, unsigned size)
{
        cpu->s.nmi_blocked = false;
        if (!(cpu->s.cr0 & CR0_PE)) {
                iret_real(cpu, size);
                return;
        }
        if (cpu->s.rflags & RF_NT) {
                uint16_t link = 0;
                if (cpu->long_mode)
                        cpu_gp(cpu);
                cpu_load_system(cpu, cpu->s.tr.base, &link, 2);
                cpu_task_switch(cpu, link, TASK_IRET, cpu->s.rflags);
                return;
        }
        uint64_t offset = stack_read(cpu, 0, size);
        uint16_t selector = (uint16_t)stack_read(cpu, size, size);
        uint64_t flags = stack_read(cpu, 2 * size, size);
        if (flags & RF_VM && size == 4 && cpu->cpl == 0 && !cpu->long_mode)
                cpu_unimplemented(cpu); /* virtual-8086 mode */
        struct cpu_segment cs = return_segment(cpu, selector);
        uint64_t mask = iret_flag_mask(cpu, size);
        check_target(cpu, &cs, offset);
        if (RPL(selector) == cpu->cpl && !cpu->code64) {
                set_rsp(cpu, cpu->s.gpr[CPU_RSP] + 3 * size, stack_mask(cpu));
                enter_code(cpu, &cs, offset);
        } else {
                uint64_t rsp = stack_read(cpu, 3 * size, size);
                uint16_t ss_selector = (uint16_t)stack_read(cpu, 4 * size, size);
                struct cpu_segment ss = return_stack(cpu, ss_selector, RPL(selector),
                                                     cpu->long_mode && cs.attributes & ATTR_L);
                set_outer(cpu, &cs, offset, &ss, rsp, 0);
        }
        cpu_set_flags(cpu, flags, mask);
}
