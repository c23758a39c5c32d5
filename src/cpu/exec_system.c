/* Privileged and system instructions. */
#include "cpu/exec.h"

#include <errno.h>

#define RAX_AT offsetof(struct cpu_state, gpr)

static void need_cpl0(struct cpu *cpu)
{
        if (cpu->cpl != 0)
                cpu_gp(cpu);
}

static void need_protected(struct cpu *cpu)
{
        if (!(cpu->s.cr0 & CR0_PE))
                cpu_raise(cpu, VEC_UD);
}

/* ---- segments ---- */

void exec_mov_from_seg(struct cpu *cpu, const struct step *st)
{
        uint16_t selector = cpu->s.seg[st->i.reg].selector;
        if (st->i.is_mem)
                store16(cpu, step_linear(cpu, st, 2, true), selector);
        else
                reg_set(cpu, st->dst, selector, st->i.opsize);
}

void exec_mov_to_seg(struct cpu *cpu, const struct step *st)
{
        cpu_load_segment(cpu, st->i.reg, (uint16_t)rm_get(cpu, st, 2));
        if (st->i.reg == CPU_SS)
                cpu->s.interrupt_shadow = true;
}

void exec_load_far(struct cpu *cpu, const struct step *st)
{
        static const uint8_t by_code[] = { CPU_SS, 0, CPU_FS, CPU_GS };
        unsigned seg = st->i.map == MAP_ONE ? (st->i.code == 0xc4 ? CPU_ES : CPU_DS)
                                            : by_code[st->i.code - 0xb2];
        unsigned size = st->i.opsize;
        uint64_t at = step_linear(cpu, st, size + 2, false);
        uint64_t offset = load_size(cpu, at, size);
        cpu_load_segment(cpu, seg, load16(cpu, at + size));
        reg_set(cpu, st->dst, offset, size);
        if (seg == CPU_SS)
                cpu->s.interrupt_shadow = true;
}

void exec_sys_store(struct cpu *cpu, const struct step *st)
{
        uint64_t value = st->i.op == OP_SMSW  ? cpu->s.cr0
                         : st->i.op == OP_STR ? cpu->s.tr.selector
                                              : cpu->s.ldtr.selector;
        if (st->i.op != OP_SMSW)
                need_protected(cpu);
        if (cpu->s.cr4 & CR4_UMIP)
                need_cpl0(cpu);
        if (st->i.is_mem)
                store16(cpu, step_linear(cpu, st, 2, true), (uint16_t)value);
        else
                reg_set(cpu, st->dst, value, st->i.opsize);
}

void exec_lldt_ltr(struct cpu *cpu, const struct step *st)
{
        need_protected(cpu);
        need_cpl0(cpu);
        uint16_t selector = (uint16_t)rm_get(cpu, st, 2);
        if (st->i.op == OP_LLDT)
                cpu_load_ldt(cpu, selector);
        else
                cpu_load_tr(cpu, selector);
}

/* Reads the descriptor LAR, LSL, VERR, VERW ask about; false: not accessible. */
static bool visible(struct cpu *cpu, uint16_t selector, uint64_t *ret)
{
        if (!(selector & 0xfffc) || cpu_read_descriptor(cpu, selector, ret) < 0)
                return false;
        unsigned attributes = (unsigned)(*ret >> 40), dpl = ATTR_DPL(attributes);
        bool conforming = (attributes & 0x1c) == 0x1c;
        return conforming || (dpl >= cpu->cpl && dpl >= (selector & 3u));
}

static void set_zf(struct cpu *cpu, bool set)
{
        cpu->s.rflags = (cpu->s.rflags & ~(uint64_t)FLAG_ZF) | (set ? FLAG_ZF : 0);
}

void exec_verify(struct cpu *cpu, const struct step *st)
{
        uint64_t d;
        need_protected(cpu);
        bool ok = visible(cpu, (uint16_t)rm_get(cpu, st, 2), &d);
        unsigned type = ok ? (unsigned)(d >> 40) & 31 : 0;
        if (st->i.op == OP_VERR)
                ok = ok && type & 16 && (!(type & 8) || type & 2);
        else
                ok = ok && (type & 26) == 18;
        set_zf(cpu, ok);
}

void exec_lar_lsl(struct cpu *cpu, const struct step *st)
{
        uint64_t d;
        need_protected(cpu);
        bool ok = visible(cpu, (uint16_t)rm_get(cpu, st, 2), &d);
        unsigned type = ok ? (unsigned)(d >> 40) & 31 : 0;
        if (ok && !(type & 16)) {
                /* Bit n: system type n answers. LDT, TSS, and for LAR gates. */
                uint32_t lar = cpu->long_mode ? 0x1a04 : 0x1a3e;
                uint32_t lsl = cpu->long_mode ? 0x0a04 : 0x0a0e;
                ok = (st->i.op == OP_LAR ? lar : lsl) >> type & 1;
        }
        set_zf(cpu, ok);
        if (!ok)
                return;
        uint64_t value = st->i.op == OP_LAR ? d >> 32 & 0x00ffff00 : cpu_segment_from(d, 0).limit;
        reg_set(cpu, st->dst, value, st->i.opsize);
}

void exec_arpl(struct cpu *cpu, const struct step *st)
{
        need_protected(cpu);
        uint16_t src = (uint16_t)reg_get(cpu, st->src, 2), dst;
        uint64_t at = 0;
        if (st->i.is_mem) {
                at = step_linear(cpu, st, 2, true);
                cpu_probe_write(cpu, at, 2);
                dst = load16(cpu, at);
        } else {
                dst = (uint16_t)reg_get(cpu, st->dst, 2);
        }
        bool raise = (dst & 3) < (src & 3);
        set_zf(cpu, raise);
        if (!raise)
                return;
        dst = (uint16_t)((dst & ~3u) | (src & 3u));
        if (st->i.is_mem)
                store16(cpu, at, dst);
        else
                reg_set(cpu, st->dst, dst, 2);
}

void exec_table_store(struct cpu *cpu, const struct step *st)
{
        const struct cpu_table *t = st->i.op == OP_SGDT ? &cpu->s.gdtr : &cpu->s.idtr;
        unsigned size = cpu->code64 ? 10 : 6;
        if (cpu->s.cr4 & CR4_UMIP)
                need_cpl0(cpu);
        uint64_t at = step_linear(cpu, st, size, true);
        cpu_probe_write(cpu, at, size);
        store16(cpu, at, t->limit);
        store_size(cpu, at + 2, t->base, size - 2);
}

void exec_table_load(struct cpu *cpu, const struct step *st)
{
        struct cpu_table *t = st->i.op == OP_LGDT ? &cpu->s.gdtr : &cpu->s.idtr;
        unsigned size = cpu->code64 ? 10 : 6;
        need_cpl0(cpu);
        uint64_t at = step_linear(cpu, st, size, false);
        uint16_t limit = load16(cpu, at);
        uint64_t base = load_size(cpu, at + 2, size - 2);
        if (cpu->code64 && !canonical(base))
                cpu_gp(cpu);
        if (!cpu->code64 && st->i.opsize == 2)
                base &= 0xffffff;
        t->limit = limit;
        t->base = base;
}

/* ---- control registers ---- */

static void set_cr0(struct cpu *cpu, uint64_t value)
{
        uint64_t old = cpu->s.cr0;
        if (value >> 32 || (value & CR0_PG && !(value & CR0_PE)) ||
            (value & CR0_NW && !(value & CR0_CD)))
                cpu_gp(cpu);
        value |= CR0_ET;
        value &= CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW |
                 CR0_CD | CR0_PG;
        if (value & CR0_PG && !(old & CR0_PG)) {
                if (cpu->s.efer & EFER_LME) {
                        if (!(cpu->s.cr4 & CR4_PAE) || cpu->s.seg[CPU_CS].attributes & ATTR_L)
                                cpu_gp(cpu);
                        cpu->s.efer |= EFER_LMA;
                } else if (cpu->s.cr4 & CR4_PAE && !cpu_pdptes_valid(cpu)) {
                        cpu_gp(cpu);
                }
        } else if (!(value & CR0_PG) && old & CR0_PG) {
                if (cpu->code64 || cpu->s.cr4 & CR4_PCIDE)
                        cpu_gp(cpu);
                cpu->s.efer &= ~(uint64_t)EFER_LMA;
        }
        cpu->s.cr0 = value;
        if ((value ^ old) & (CR0_PG | CR0_WP | CR0_PE))
                cpu_tlb_flush(cpu, true);
        cpu_mode_changed(cpu);
}

void cpu_load_cr3(struct cpu *cpu, uint64_t value)
{
        bool pcids = cpu->s.cr4 & CR4_PCIDE, keep = pcids && value & CR3_KEEP;
        if (pcids)
                value &= ~CR3_KEEP;
        if (cpu->long_mode && value >> 46)
                cpu_gp(cpu);
        uint64_t old = cpu->s.cr3;
        cpu->s.cr3 = value;
        if (cpu->s.cr0 & CR0_PG && cpu->s.cr4 & CR4_PAE && !cpu->long_mode &&
            !cpu_pdptes_valid(cpu)) {
                cpu->s.cr3 = old;
                cpu_gp(cpu);
        }
        uint16_t from = old & CR3_PCID, to = value & CR3_PCID;
        if (pcids && from != to)
                cpu_space_switch(cpu, from, to, keep);
        else if (!keep)
                cpu_tlb_flush(cpu, false);
}

static void set_cr4(struct cpu *cpu, uint64_t value)
{
        uint64_t old = cpu->s.cr4, changed = value ^ old;
        if (value & ~cpu->cr4_allowed || (cpu->long_mode && !(value & CR4_PAE)))
                cpu_gp(cpu);
        if (value & ~old & CR4_PCIDE && (!cpu->long_mode || cpu->s.cr3 & 0xfff))
                cpu_gp(cpu);
        cpu->s.cr4 = value;
        if (changed & CR4_PAE && value & CR4_PAE && cpu->s.cr0 & CR0_PG && !cpu->long_mode &&
            !cpu_pdptes_valid(cpu)) {
                cpu->s.cr4 = old;
                cpu_gp(cpu);
        }
        if (changed &
            (CR4_PSE | CR4_PAE | CR4_PGE | CR4_PCIDE | CR4_SMEP | CR4_SMAP | CR4_PKE | CR4_PKS))
                cpu_tlb_flush(cpu, true);
        cpu_mode_changed(cpu);
}

void exec_mov_from_cr(struct cpu *cpu, const struct step *st)
{
        need_cpl0(cpu);
        uint64_t value = 0;
        switch (st->i.reg) {
        case 0:
                value = cpu->s.cr0;
                break;
        case 2:
                value = cpu->s.cr2;
                break;
        case 3:
                value = cpu->s.cr3;
                break;
        case 4:
                value = cpu->s.cr4;
                break;
        case 8:
                value = cpu->bus->tpr_read ? cpu->bus->tpr_read(cpu->bus->arg) : cpu->s.cr8;
                break;
        }
        reg_set(cpu, st->dst, value, cpu->code64 ? 8 : 4);
}

void exec_mov_to_cr(struct cpu *cpu, const struct step *st)
{
        need_cpl0(cpu);
        uint64_t value = reg_get(cpu, st->src, cpu->code64 ? 8 : 4);
        switch (st->i.reg) {
        case 0:
                set_cr0(cpu, value);
                break;
        case 2:
                cpu->s.cr2 = value;
                break;
        case 3:
                cpu_load_cr3(cpu, value);
                break;
        case 4:
                set_cr4(cpu, value);
                break;
        case 8:
                if (value >> 4)
                        cpu_gp(cpu);
                cpu->s.cr8 = value;
                if (cpu->bus->tpr_changed)
                        cpu->bus->tpr_changed(cpu->bus->arg, (uint8_t)value);
                break;
        }
}

void exec_lmsw(struct cpu *cpu, const struct step *st)
{
        need_cpl0(cpu);
        uint64_t value = rm_get(cpu, st, 2) & 15;
        set_cr0(cpu, (cpu->s.cr0 & ~14ull) | value);
}

void exec_clts(struct cpu *cpu, const struct step *st)
{
        (void)st;
        need_cpl0(cpu);
        cpu->s.cr0 &= ~(uint64_t)CR0_TS;
        cpu_mode_changed(cpu);
}

/* ---- debug registers ---- */

static unsigned debug_register(struct cpu *cpu, const struct step *st)
{
        unsigned n = st->i.reg;
        if ((n == 4 || n == 5) && cpu->s.cr4 & CR4_DE)
                cpu_raise(cpu, VEC_UD);
        need_cpl0(cpu);
        if (cpu->s.dr7 & 0x2000)
                cpu_raise_debug(cpu, 0x2000);
        return n == 4 ? 6 : n == 5 ? 7 : n;
}

void exec_mov_from_dr(struct cpu *cpu, const struct step *st)
{
        unsigned n = debug_register(cpu, st);
        uint64_t value = n < 4 ? cpu->s.dr[n] : n == 6 ? cpu->s.dr6 : cpu->s.dr7;
        reg_set(cpu, st->dst, value, cpu->code64 ? 8 : 4);
}

void exec_mov_to_dr(struct cpu *cpu, const struct step *st)
{
        unsigned n = debug_register(cpu, st);
        uint64_t value = reg_get(cpu, st->src, cpu->code64 ? 8 : 4);
        if (n >= 6 && value >> 32)
                cpu_gp(cpu);
        if (n < 4)
                cpu->s.dr[n] = value;
        else if (n == 6)
                cpu->s.dr6 = (value & 0xe00f) | 0xffff0ff0;
        else
                cpu->s.dr7 = (value & 0xffff2bff) | 0x400;
        cpu_mode_changed(cpu);
}

/* ---- TLB and caches ---- */

void exec_invlpg(struct cpu *cpu, const struct step *st)
{
        need_cpl0(cpu);
        uint64_t linear = step_offset(cpu, st) + cpu->seg_base[st->i.seg];
        cpu_tlb_flush_page(cpu, cpu->long_mode ? linear : linear & 0xffffffff);
}

void exec_invpcid(struct cpu *cpu, const struct step *st)
{
        need_cpl0(cpu);
        uint64_t type = reg_get(cpu, st->dst, cpu->code64 ? 8 : 4), d[2];
        cpu_load_slow(cpu, step_linear(cpu, st, 16, false), d, 16);
        if (type > 3 || d[0] >> 12 || (type == 0 && !canonical(d[1])) ||
            (type < 2 && d[0] && !(cpu->s.cr4 & CR4_PCIDE)))
                cpu_gp(cpu);
        bool current = !(cpu->s.cr4 & CR4_PCIDE) || d[0] == (cpu->s.cr3 & CR3_PCID);
        if (type < 2 && !current)
                cpu_space_forget(cpu, (uint16_t)d[0]);
        else if (type == 0)
                cpu_tlb_flush_page(cpu, d[1]);
        else
                cpu_tlb_flush(cpu, type == 2);
        if (type == 3)
                cpu_spaces_forget(cpu);
}

void exec_wbinvd(struct cpu *cpu, const struct step *st)
{
        (void)st;
        need_cpl0(cpu);
}

/* Ends its block, and whoever continues looks for code that others changed: that is all. */
void exec_serialize(struct cpu *cpu, const struct step *st)
{
        (void)cpu;
        (void)st;
}

/* The line is only translated: our memory is coherent. */
void exec_cache_line(struct cpu *cpu, const struct step *st)
{
        (void)load8(cpu, step_linear(cpu, st, 1, false));
}

/* ---- time, identification, MSRs ---- */

void exec_rdtsc(struct cpu *cpu, const struct step *st)
{
        if (cpu->s.cr4 & CR4_TSD)
                need_cpl0(cpu);
        uint64_t now = cpu_tsc(cpu);
        cpu->s.gpr[CPU_RAX] = (uint32_t)now;
        cpu->s.gpr[CPU_RDX] = now >> 32;
        if (st->i.op == OP_RDTSCP)
                cpu->s.gpr[CPU_RCX] = (uint32_t)cpu->s.tsc_aux;
}

void exec_rdpmc(struct cpu *cpu, const struct step *st)
{
        (void)st;
        cpu_gp(cpu); /* there are no counters */
}

void exec_rdpid(struct cpu *cpu, const struct step *st)
{
        reg_set(cpu, st->dst, (uint32_t)cpu->s.tsc_aux, cpu->code64 ? 8 : 4);
}

void exec_rdmsr(struct cpu *cpu, const struct step *st)
{
        (void)st;
        need_cpl0(cpu);
        uint64_t value;
        if (!cpu_msr_read(cpu, (uint32_t)cpu->s.gpr[CPU_RCX], &value))
                cpu_gp(cpu);
        cpu->s.gpr[CPU_RAX] = (uint32_t)value;
        cpu->s.gpr[CPU_RDX] = value >> 32;
}

void exec_wrmsr(struct cpu *cpu, const struct step *st)
{
        (void)st;
        need_cpl0(cpu);
        uint64_t value = (uint32_t)cpu->s.gpr[CPU_RAX] | cpu->s.gpr[CPU_RDX] << 32;
        if (!cpu_msr_write(cpu, (uint32_t)cpu->s.gpr[CPU_RCX], value))
                cpu_gp(cpu);
        cpu_mode_changed(cpu);
}

void exec_cpuid(struct cpu *cpu, const struct step *st)
{
        (void)st;
        uint32_t r[4], leaf = (uint32_t)cpu->s.gpr[CPU_RAX], sub = (uint32_t)cpu->s.gpr[CPU_RCX];
        cpu_cpuid(cpu, leaf, sub, r);
        if (cpu->bus->cpuid)
                cpu->bus->cpuid(cpu->bus->arg, leaf, sub, r);
        cpu->s.gpr[CPU_RAX] = r[0];
        cpu->s.gpr[CPU_RBX] = r[1];
        cpu->s.gpr[CPU_RCX] = r[2];
        cpu->s.gpr[CPU_RDX] = r[3];
}

void exec_xgetbv(struct cpu *cpu, const struct step *st)
{
        (void)st;
        if (!(cpu->s.cr4 & CR4_OSXSAVE))
                cpu_raise(cpu, VEC_UD);
        if ((uint32_t)cpu->s.gpr[CPU_RCX])
                cpu_gp(cpu);
        cpu->s.gpr[CPU_RAX] = (uint32_t)cpu->s.xcr0;
        cpu->s.gpr[CPU_RDX] = cpu->s.xcr0 >> 32;
}

void exec_xsetbv(struct cpu *cpu, const struct step *st)
{
        (void)st;
        if (!(cpu->s.cr4 & CR4_OSXSAVE))
                cpu_raise(cpu, VEC_UD);
        need_cpl0(cpu);
        uint64_t value = (uint32_t)cpu->s.gpr[CPU_RAX] | cpu->s.gpr[CPU_RDX] << 32;
        if ((uint32_t)cpu->s.gpr[CPU_RCX] || value & ~cpu->xcr0_allowed || !(value & 1) ||
            (value & 6) == 4)
                cpu_gp(cpu);
        cpu->s.xcr0 = value;
        cpu_mode_changed(cpu);
}

void exec_swapgs(struct cpu *cpu, const struct step *st)
{
        (void)st;
        need_cpl0(cpu);
        uint64_t base = cpu->s.seg[CPU_GS].base;
        cpu->s.seg[CPU_GS].base = cpu->s.kernel_gs_base;
        cpu->s.kernel_gs_base = base;
        cpu->seg_base[CPU_GS] = cpu->s.seg[CPU_GS].base;
}

void exec_fsgsbase(struct cpu *cpu, const struct step *st)
{
        if (!(cpu->s.cr4 & CR4_FSGSBASE))
                cpu_raise(cpu, VEC_UD);
        unsigned seg = (st->i.modrm >> 3 & 1) ? CPU_GS : CPU_FS, size = st->i.w ? 8 : 4;
        if (!(st->i.modrm >> 3 & 2)) {
                reg_set(cpu, st->dst, cpu->s.seg[seg].base, size);
                return;
        }
        uint64_t base = reg_get(cpu, st->dst, size);
        if (!canonical(base))
                cpu_gp(cpu);
        cpu->s.seg[seg].base = base;
        cpu->seg_base[seg] = base;
}

/* ---- interrupt flag, halt ---- */

void exec_cli(struct cpu *cpu, const struct step *st)
{
        (void)st;
        if (cpu->cpl > (cpu->s.rflags >> 12 & 3))
                cpu_gp(cpu);
        cpu->s.rflags &= ~(uint64_t)FLAG_IF;
}

void exec_sti(struct cpu *cpu, const struct step *st)
{
        (void)st;
        if (cpu->cpl > (cpu->s.rflags >> 12 & 3))
                cpu_gp(cpu);
        if (!(cpu->s.rflags & FLAG_IF))
                cpu->s.interrupt_shadow = true;
        cpu->s.rflags |= FLAG_IF;
        cpu->end = cpu->step + 1; /* the run loop cares for the shadow */
}

void exec_ac(struct cpu *cpu, const struct step *st)
{
        if (cpu->cpl != 0 || !(cpu->s.cr0 & CR0_PE))
                cpu_raise(cpu, VEC_UD);
        cpu->s.rflags &= ~(uint64_t)RF_AC;
        if (st->i.op == OP_STAC)
                cpu->s.rflags |= RF_AC;
        cpu_ac_changed(cpu);
}

void exec_hlt(struct cpu *cpu, const struct step *st)
{
        (void)st;
        need_cpl0(cpu);
        cpu->s.activity = CPU_HALTED;
}

/* One instruction for both vendors' opcodes: code made for either works. */
void exec_hypercall(struct cpu *cpu, const struct step *st)
{
        (void)st;
        if (!cpu->bus->hypercall)
                cpu_raise(cpu, VEC_UD);
        uint64_t mask = cpu->code64 ? UINT64_MAX : UINT32_MAX;
        const uint64_t *r = cpu->s.gpr;
        const uint64_t arguments[4] = { r[CPU_RBX] & mask, r[CPU_RCX] & mask, r[CPU_RDX] & mask,
                                        r[CPU_RSI] & mask };
        uint64_t result = (uint64_t)-EPERM;
        cpu_code_catch_up(cpu); /* it may send interrupts */
        if (cpu->cpl == 0)
                result = cpu->bus->hypercall(cpu->bus->arg, r[CPU_RAX] & mask, arguments);
        cpu->s.gpr[CPU_RAX] = result & mask;
}

/* ---- fast system calls ---- */

static void flat_segment(struct cpu *cpu, unsigned seg, uint16_t selector, unsigned dpl,
                         uint32_t type)
{
        cpu->s.seg[seg] = (struct cpu_segment){
                .limit = UINT32_MAX,
                .attributes = type | ATTR_S | dpl << 5 | ATTR_P | ATTR_G,
                .selector = selector,
        };
}

/* CS and SS for a fast transfer; `wide` is 64-bit code. */
static void flat_code_and_stack(struct cpu *cpu, uint16_t cs, uint16_t ss, unsigned dpl, bool wide)
{
        flat_segment(cpu, CPU_CS, cs, dpl, 11 | (wide ? ATTR_L : ATTR_DB));
        flat_segment(cpu, CPU_SS, ss, dpl, 3 | ATTR_DB);
}

void exec_syscall(struct cpu *cpu, const struct step *st)
{
        (void)st;
        if (!(cpu->s.efer & EFER_SCE) || !(cpu->s.cr0 & CR0_PE))
                cpu_raise(cpu, VEC_UD);
        uint16_t cs = cpu->s.star >> 32 & 0xfffc;
        uint64_t target = (uint32_t)cpu->s.star, clear = FLAG_IF | RF_VM | RF_RF;
        cpu->s.gpr[CPU_RCX] = cpu->s.rip;
        if (cpu->long_mode) {
                cpu->s.gpr[11] = cpu->s.rflags & ~(uint64_t)RF_RF;
                target = cpu->code64 ? cpu->s.lstar : cpu->s.cstar;
                clear = cpu->s.sfmask | RF_RF;
        }
        flat_code_and_stack(cpu, cs, (uint16_t)(cs + 8), 0, cpu->long_mode);
        cpu->s.rip = target;
        cpu_set_flags(cpu, 0, clear);
}

void exec_sysret(struct cpu *cpu, const struct step *st)
{
        if (!(cpu->s.efer & EFER_SCE) || !(cpu->s.cr0 & CR0_PE))
                cpu_raise(cpu, VEC_UD);
        need_cpl0(cpu);
        bool wide = st->i.opsize == 8;
        uint16_t cs = (uint16_t)(cpu->s.star >> 48 | 3);
        uint64_t target = cpu->s.gpr[CPU_RCX];
        if (wide && !canonical(target))
                cpu_gp(cpu);
        uint64_t flags = cpu->s.gpr[11] & 0x3c7fd7;
        uint64_t mask = ~0ull;
        if (!cpu->long_mode) {
                flags = FLAG_IF;
                mask = FLAG_IF;
        }
        flat_code_and_stack(cpu, (uint16_t)(wide ? cs + 16 : cs), (uint16_t)((cs + 8) | 3), 3,
                            wide);
        cpu->s.rip = wide ? target : (uint32_t)target;
        cpu_set_flags(cpu, flags, mask);
        if (cpu->s.rflags & FLAG_TF) { /* as if the SYSCALL had just been stepped over */
                cpu->step = NULL;      /* which is complete */
                cpu_raise_debug(cpu, DR6_BS);
        }
}

void exec_sysenter(struct cpu *cpu, const struct step *st)
{
        (void)st;
        uint16_t cs = cpu->s.sysenter_cs & 0xfffc;
        if (!(cpu->s.cr0 & CR0_PE) || !cs)
                cpu_gp(cpu);
        flat_code_and_stack(cpu, cs, (uint16_t)(cs + 8), 0, cpu->long_mode);
        cpu->s.rip = cpu->long_mode ? cpu->s.sysenter_eip : (uint32_t)cpu->s.sysenter_eip;
        cpu->s.gpr[CPU_RSP] = cpu->long_mode ? cpu->s.sysenter_esp : (uint32_t)cpu->s.sysenter_esp;
        cpu_set_flags(cpu, 0, FLAG_IF | RF_VM);
}

void exec_sysexit(struct cpu *cpu, const struct step *st)
{
        uint16_t cs = cpu->s.sysenter_cs & 0xfffc;
        if (!(cpu->s.cr0 & CR0_PE) || !cs || cpu->cpl != 0)
                cpu_gp(cpu);
        bool wide = st->i.opsize == 8;
        uint64_t rip = cpu->s.gpr[CPU_RDX], rsp = cpu->s.gpr[CPU_RCX];
        if (wide && (!canonical(rip) || !canonical(rsp)))
                cpu_gp(cpu);
        cs = (uint16_t)(cs + (wide ? 32 : 16));
        flat_code_and_stack(cpu, cs | 3, (uint16_t)((cs + 8) | 3), 3, wide);
        cpu->s.rip = wide ? rip : (uint32_t)rip;
        cpu->s.gpr[CPU_RSP] = wide ? rsp : (uint32_t)rsp;
        cpu_mode_changed(cpu);
}
