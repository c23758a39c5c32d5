/* Stack and control transfer. */
#include "cpu/exec.h"

/* ---- stack ---- */

void exec_push(struct cpu *cpu, const struct step *st)
{
        uint64_t value = st->i.row->operands[0].kind == OPK_I ? st->i.imm
                                                              : rm_get(cpu, st, st->size);
        push(cpu, value, st->size);
}

void exec_pop(struct cpu *cpu, const struct step *st)
{
        unsigned size = st->size;
        uint64_t value = stack_read(cpu, 0, size), mask = stack_mask(cpu);
        uint64_t old = cpu->s.gpr[CPU_RSP];
        if (!st->i.is_mem) {
                set_rsp(cpu, old + size, mask);
                reg_set(cpu, st->dst, value, size);
                return;
        }
        /* An address based on rSP uses its new value. */
        set_rsp(cpu, old + size, mask);
        uint64_t offset = step_offset(cpu, st);
        cpu->s.gpr[CPU_RSP] = old;
        store_size(cpu, seg_linear(cpu, st->i.seg, offset, size, true), value, size);
        set_rsp(cpu, old + size, mask);
}

void exec_pusha(struct cpu *cpu, const struct step *st)
{
        unsigned size = st->i.opsize;
        uint64_t mask = stack_mask(cpu), sp = cpu->s.gpr[CPU_RSP];
        for (unsigned i = 0; i < 8; i++)
                cpu_probe_write(cpu,
                                seg_linear(cpu, CPU_SS, (sp - size * (i + 1)) & mask, size, true),
                                size);
        for (unsigned i = 0; i < 8; i++)
                push(cpu, i == CPU_RSP ? sp : cpu->s.gpr[i], size);
}

void exec_popa(struct cpu *cpu, const struct step *st)
{
        unsigned size = st->i.opsize;
        uint64_t values[8];
        for (unsigned i = 0; i < 8; i++)
                values[i] = stack_read(cpu, size * i, size);
        set_rsp(cpu, cpu->s.gpr[CPU_RSP] + 8 * size, stack_mask(cpu));
        for (unsigned i = 0; i < 8; i++)
                if (7 - i != CPU_RSP)
                        reg_set(cpu, offsetof(struct cpu_state, gpr) + 8 * (7 - i), values[i],
                                size);
}

void exec_pushf(struct cpu *cpu, const struct step *st)
{
        push(cpu, cpu->s.rflags & ~(uint64_t)(RF_RF | RF_VM), st->i.opsize);
}

void exec_popf(struct cpu *cpu, const struct step *st)
{
        unsigned size = st->i.opsize, iopl = cpu->s.rflags >> 12 & 3;
        uint64_t value = stack_read(cpu, 0, size);
        uint64_t mask = FLAGS_ARITHMETIC | FLAG_TF | FLAG_DF | RF_NT;
        if (size > 2)
                mask |= RF_AC | RF_ID | RF_RF;
        if (cpu->cpl == 0)
                mask |= RF_IOPL;
        if (cpu->cpl <= iopl)
                mask |= FLAG_IF;
        set_rsp(cpu, cpu->s.gpr[CPU_RSP] + size, stack_mask(cpu));
        cpu_set_flags(cpu, value & ~(uint64_t)RF_RF, mask);
}

static unsigned named_segment(const struct step *st)
{
        if (st->i.map == MAP_0F)
                return st->i.code < 0xa8 ? CPU_FS : CPU_GS;
        return st->i.code >> 3;
}

void exec_push_seg(struct cpu *cpu, const struct step *st)
{
        push(cpu, cpu->s.seg[named_segment(st)].selector, st->i.opsize);
}

void exec_pop_seg(struct cpu *cpu, const struct step *st)
{
        uint16_t selector = (uint16_t)stack_read(cpu, 0, st->i.opsize == 2 ? 2 : st->i.opsize);
        unsigned seg = named_segment(st);
        uint64_t mask = stack_mask(cpu);
        cpu_load_segment(cpu, seg, selector);
        set_rsp(cpu, cpu->s.gpr[CPU_RSP] + st->i.opsize, mask);
        if (seg == CPU_SS)
                cpu->s.interrupt_shadow = true;
}

void exec_enter(struct cpu *cpu, const struct step *st)
{
        unsigned size = st->i.opsize, level = st->i.imm2 & 31;
        uint64_t mask = stack_mask(cpu), sp = cpu->s.gpr[CPU_RSP], bp = cpu->s.gpr[CPU_RBP];
        uint64_t frame = (sp - size) & mask;
        store_size(cpu, seg_linear(cpu, CPU_SS, frame, size, true), bp, size);
        sp = frame;
        for (unsigned i = 1; i < level; i++) {
                bp = (bp - size) & mask;
                uint64_t v = load_size(cpu, seg_linear(cpu, CPU_SS, bp, size, false), size);
                sp = (sp - size) & mask;
                store_size(cpu, seg_linear(cpu, CPU_SS, sp, size, true), v, size);
        }
        if (level) {
                sp = (sp - size) & mask;
                store_size(cpu, seg_linear(cpu, CPU_SS, sp, size, true), frame, size);
        }
        sp = (sp - (uint16_t)st->i.imm) & mask;
        cpu_probe_write(cpu, seg_linear(cpu, CPU_SS, sp, size, true), size);
        reg_set(cpu, offsetof(struct cpu_state, gpr) + 8 * CPU_RBP, frame, size);
        set_rsp(cpu, sp, mask);
}

void exec_leave(struct cpu *cpu, const struct step *st)
{
        unsigned size = st->i.opsize;
        uint64_t mask = stack_mask(cpu), bp = cpu->s.gpr[CPU_RBP] & mask;
        uint64_t value = load_size(cpu, seg_linear(cpu, CPU_SS, bp, size, false), size);
        set_rsp(cpu, bp + size, mask);
        reg_set(cpu, offsetof(struct cpu_state, gpr) + 8 * CPU_RBP, value, size);
}

/* ---- branches ---- */

void exec_jmp(struct cpu *cpu, const struct step *st)
{
        cpu_jump(cpu, cpu->s.rip + st->i.imm, st->i.opsize);
}

void exec_jcc(struct cpu *cpu, const struct step *st)
{
        if (condition_holds(cpu->s.rflags, st->i.code & 15))
                cpu_jump(cpu, cpu->s.rip + st->i.imm, st->i.opsize);
}

void exec_jmp_ind(struct cpu *cpu, const struct step *st)
{
        cpu_jump(cpu, rm_get(cpu, st, st->i.opsize), st->i.opsize);
}

/* The target is checked before anything is pushed: jump, and take it back when
 * the push raises. */
static void call(struct cpu *cpu, const struct step *st, uint64_t target)
{
        uint64_t back = cpu->s.rip;
        if (unlikely(cpu->legacy)) {
                target &= st->i.opsize == 2 ? 0xffff : 0xffffffff;
                if (target > cpu->s.seg[CPU_CS].limit)
                        cpu_gp(cpu);
        } else if (unlikely(!canonical(target))) {
                cpu_gp(cpu);
        }
        push(cpu, back, st->i.opsize);
        cpu->s.rip = target;
}

void exec_call(struct cpu *cpu, const struct step *st)
{
        call(cpu, st, cpu->s.rip + st->i.imm);
}

void exec_call_ind(struct cpu *cpu, const struct step *st)
{
        call(cpu, st, rm_get(cpu, st, st->i.opsize));
}

void exec_ret(struct cpu *cpu, const struct step *st)
{
        uint64_t target = stack_read(cpu, 0, st->i.opsize);
        uint64_t sp = cpu->s.gpr[CPU_RSP] + st->i.opsize + (uint16_t)st->i.imm;
        cpu_jump(cpu, target, st->i.opsize);
        set_rsp(cpu, sp, stack_mask(cpu));
}

void exec_jmp_far(struct cpu *cpu, const struct step *st)
{
        uint64_t offset = st->i.imm;
        uint16_t selector = st->i.imm2;
        if (st->i.is_mem) {
                unsigned size = st->i.opsize;
                uint64_t at = step_linear(cpu, st, size + 2, false);
                offset = load_size(cpu, at, size);
                selector = load16(cpu, at + size);
        }
        if (st->i.op == OP_JMP_FAR || st->i.op == OP_JMP_FAR_IND)
                cpu_far_jump(cpu, selector, offset);
        else
                cpu_far_call(cpu, selector, offset, st->i.opsize);
}

void exec_ret_far(struct cpu *cpu, const struct step *st)
{
        cpu_far_return(cpu, st->i.opsize, (uint16_t)st->i.imm);
}

void exec_iret(struct cpu *cpu, const struct step *st)
{
        cpu_interrupt_return(cpu, st->i.opsize);
}

void exec_loop(struct cpu *cpu, const struct step *st)
{
        uint64_t mask = address_mask(st), count = (cpu->s.gpr[CPU_RCX] - 1) & mask;
        bool taken = count != 0;
        if (st->i.op == OP_LOOPE)
                taken = taken && cpu->s.rflags & FLAG_ZF;
        else if (st->i.op == OP_LOOPNE)
                taken = taken && !(cpu->s.rflags & FLAG_ZF);
        if (taken)
                cpu_jump(cpu, cpu->s.rip + st->i.imm, st->i.opsize);
        if (mask == 0xffff)
                count |= cpu->s.gpr[CPU_RCX] & ~mask;
        cpu->s.gpr[CPU_RCX] = count;
}

void exec_jcxz(struct cpu *cpu, const struct step *st)
{
        if (!(cpu->s.gpr[CPU_RCX] & address_mask(st)))
                cpu_jump(cpu, cpu->s.rip + st->i.imm, st->i.opsize);
}

void exec_int(struct cpu *cpu, const struct step *st)
{
        switch (st->i.op) {
        case OP_INT3:
                if (cpu->debug.int3)
                        cpu_int3_stop(cpu);
                cpu_interrupt(cpu, VEC_BP, INTERRUPT_SOFTWARE, NULL);
                break;
        case OP_INT1:
                cpu_interrupt(cpu, VEC_DB, INTERRUPT_EXTERNAL, NULL);
                break;
        case OP_INTO:
                if (cpu->s.rflags & FLAG_OF)
                        cpu_interrupt(cpu, VEC_OF, INTERRUPT_SOFTWARE, NULL);
                break;
        default:
                cpu_interrupt(cpu, (uint8_t)st->i.imm, INTERRUPT_SOFTWARE, NULL);
        }
}

void exec_bound(struct cpu *cpu, const struct step *st)
{
        unsigned size = st->i.opsize, shift = 64 - size * 8;
        uint64_t at = step_linear(cpu, st, 2 * size, false);
        int64_t low = (int64_t)(load_size(cpu, at, size) << shift) >> shift;
        int64_t high = (int64_t)(load_size(cpu, at + size, size) << shift) >> shift;
        int64_t index = (int64_t)(reg_get(cpu, st->dst, size) << shift) >> shift;
        if (index < low || index > high)
                cpu_raise(cpu, VEC_BR);
}

void exec_ud(struct cpu *cpu, const struct step *st)
{
        (void)st;
        cpu_raise(cpu, VEC_UD);
}
