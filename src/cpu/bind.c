/* From a decoded instruction to the function that performs it. */
#include "cpu/exec.h"

static const struct {
        step_fn *run;
} functions[INSN_OP_COUNT] = {
#define F(name, fn) [OP_##name] = { fn }
        F(SHLD, exec_shift_double),
        F(SHRD, exec_shift_double),
        F(MUL, exec_mul),
        F(IMUL1, exec_mul),
        F(IMUL, exec_imul),
        F(DIV, exec_div),
        F(IDIV, exec_div),
        F(BT, exec_bt),
        F(BTS, exec_bt),
        F(BTR, exec_bt),
        F(BTC, exec_bt),
        F(BSF, exec_bitscan),
        F(BSR, exec_bitscan),
        F(BSWAP, exec_bswap),
        F(MOVZX, exec_movx),
        F(MOVSX, exec_movx),
        F(LEA, exec_lea),
        F(XADD, exec_xadd),
        F(CMPXCHG, exec_cmpxchg),
        F(CMPXCHG8B, exec_cmpxchg8b),
        F(CMOV, exec_cmov),
        F(SETCC, exec_setcc),
        F(CBW, exec_cbw),
        F(CWD, exec_cwd),
        F(LAHF, exec_lahf),
        F(SAHF, exec_sahf),
        F(CLC, exec_flag),
        F(STC, exec_flag),
        F(CMC, exec_flag),
        F(CLD, exec_flag),
        F(STD, exec_flag),
        F(SALC, exec_salc),
        F(XLAT, exec_xlat),
        F(DAA, exec_decimal),
        F(DAS, exec_decimal),
        F(AAA, exec_decimal),
        F(AAS, exec_decimal),
        F(AAM, exec_decimal),
        F(AAD, exec_decimal),
        F(NOP, exec_nop),
        F(FENCE, exec_fence),
        F(PUSH, exec_push),
        F(POP, exec_pop),
        F(PUSHA, exec_pusha),
        F(POPA, exec_popa),
        F(PUSHF, exec_pushf),
        F(POPF, exec_popf),
        F(PUSH_SEG, exec_push_seg),
        F(POP_SEG, exec_pop_seg),
        F(ENTER, exec_enter),
        F(LEAVE, exec_leave),
        F(JMP, exec_jmp),
        F(JMP_IND, exec_jmp_ind),
        F(JMP_FAR, exec_jmp_far),
        F(JMP_FAR_IND, exec_jmp_far),
        F(CALL_FAR, exec_jmp_far),
        F(CALL_FAR_IND, exec_jmp_far),
        F(JCC, exec_jcc),
        F(CALL, exec_call),
        F(CALL_IND, exec_call_ind),
        F(RET, exec_ret),
        F(RET_FAR, exec_ret_far),
        F(IRET, exec_iret),
        F(LOOP, exec_loop),
        F(LOOPE, exec_loop),
        F(LOOPNE, exec_loop),
        F(JCXZ, exec_jcxz),
        F(INT, exec_int),
        F(INT3, exec_int),
        F(INT1, exec_int),
        F(INTO, exec_int),
        F(BOUND, exec_bound),
        F(UD, exec_ud),
        F(MOVS, exec_movs),
        F(CMPS, exec_cmps),
        F(STOS, exec_stos),
        F(LODS, exec_lods),
        F(SCAS, exec_scas),
        F(INS, exec_ins),
        F(OUTS, exec_outs),
        F(IN, exec_in),
        F(OUT, exec_out),
        F(MOV_FROM_SEG, exec_mov_from_seg),
        F(MOV_TO_SEG, exec_mov_to_seg),
        F(LOAD_FAR, exec_load_far),
        F(MOV_FROM_CR, exec_mov_from_cr),
        F(MOV_TO_CR, exec_mov_to_cr),
        F(MOV_FROM_DR, exec_mov_from_dr),
        F(MOV_TO_DR, exec_mov_to_dr),
        F(SGDT, exec_table_store),
        F(SIDT, exec_table_store),
        F(LGDT, exec_table_load),
        F(LIDT, exec_table_load),
        F(SLDT, exec_sys_store),
        F(STR, exec_sys_store),
        F(SMSW, exec_sys_store),
        F(LLDT, exec_lldt_ltr),
        F(LTR, exec_lldt_ltr),
        F(VERR, exec_verify),
        F(VERW, exec_verify),
        F(LAR, exec_lar_lsl),
        F(LSL, exec_lar_lsl),
        F(ARPL, exec_arpl),
        F(LMSW, exec_lmsw),
        F(CLTS, exec_clts),
        F(INVLPG, exec_invlpg),
        F(INVPCID, exec_invpcid),
        F(SWAPGS, exec_swapgs),
        F(RDTSC, exec_rdtsc),
        F(RDTSCP, exec_rdtsc),
        F(RDPMC, exec_rdpmc),
        F(RDPID, exec_rdpid),
        F(RDMSR, exec_rdmsr),
        F(WRMSR, exec_wrmsr),
        F(CPUID, exec_cpuid),
        F(SYSCALL, exec_syscall),
        F(SYSRET, exec_sysret),
        F(SYSENTER, exec_sysenter),
        F(SYSEXIT, exec_sysexit),
        F(CLI, exec_cli),
        F(STI, exec_sti),
        F(CLAC, exec_ac),
        F(STAC, exec_ac),
        F(HLT, exec_hlt),
        F(INVD, exec_wbinvd),
        F(WBINVD, exec_wbinvd),
        F(CACHE_LINE, exec_cache_line),
        F(VMCALL, exec_hypercall),
        F(SERIALIZE, exec_serialize),
        F(XGETBV, exec_xgetbv),
        F(XSETBV, exec_xsetbv),
        F(RDPKRU, exec_rdpkru),
        F(WRPKRU, exec_wrpkru),
        F(RDFSBASE, exec_fsgsbase),
        F(RDGSBASE, exec_fsgsbase),
        F(WRFSBASE, exec_fsgsbase),
        F(WRGSBASE, exec_fsgsbase),
        F(FXSAVE, exec_fxsave),
        F(FXRSTOR, exec_fxrstor),
        F(XSAVE, exec_xsave),
        F(XSAVEOPT, exec_xsave),
        F(XSAVEC, exec_xsavec),
        F(XRSTOR, exec_xrstor),
        F(LDMXCSR, exec_ldmxcsr),
        F(STMXCSR, exec_stmxcsr),
        F(FWAIT, exec_fwait),
        F(EMMS, exec_emms),
        F(VZERO, exec_vzero),
        F(MASKMOVQ, exec_maskmovq),
        F(VMASKMOV, exec_vmaskmov),
        F(VGATHER, exec_vgather),
#undef F
};

static uint16_t gpr_offset(const struct insn *i, unsigned n, unsigned size)
{
        if (size == 1 && !i->rex && n >= 4 && n < 8)
                return (uint16_t)(offsetof(struct cpu_state, gpr) + 8 * (n - 4) + 1);
        return (uint16_t)(offsetof(struct cpu_state, gpr) + 8 * n);
}

static uint16_t address_offset(unsigned n)
{
        if (n == REG_NONE)
                return offsetof(struct cpu, zero);
        if (n == BASE_RIP)
                return offsetof(struct cpu_state, rip);
        return (uint16_t)(offsetof(struct cpu_state, gpr) + 8 * n);
}

/* Offset of a general register operand; that of rax where it is none. */
static uint16_t operand_offset(const struct insn *i, struct operand o)
{
        unsigned size = insn_operand_size(i, o);
        switch (o.kind) {
        case OPK_E:
                return i->is_mem ? 0 : gpr_offset(i, i->rm, size);
        case OPK_Z:
                return gpr_offset(i, i->rm, size);
        case OPK_G:
                return gpr_offset(i, i->reg, size);
        case OPK_B:
                return gpr_offset(i, i->vvvv, size);
        default:
                return 0;
        }
}

static unsigned operation_size(const struct insn *i)
{
        struct operand first = i->row->operands[0], second = i->row->operands[1];
        switch (i->op) {
        case OP_PUSH:
        case OP_POP:
                return i->opsize;
        case OP_OUT:
        case OP_OUTS:
                return insn_operand_size(i, second);
        default:
                return insn_operand_size(i, first);
        }
}

static enum alu_form alu_form(const struct insn *i)
{
        struct operand a = i->row->operands[0], b = i->row->operands[1];
        bool immediate = b.kind == OPK_I;
        if (a.kind == OPK_O || (a.kind == OPK_E && i->is_mem)) {
                if (i->lock)
                        return immediate ? ALU_LOCK_I : ALU_LOCK_R;
                return immediate ? ALU_MI : ALU_MR;
        }
        if (b.kind == OPK_O || (b.kind == OPK_E && i->is_mem))
                return ALU_RM;
        return immediate ? ALU_RI : ALU_RR;
}

static uint8_t unit_of(const struct insn *i)
{
        uint64_t p = i->row->properties;
        if (i->op == OP_X87)
                return UNIT_X87;
        if (p & SSE)
                return i->vex ? UNIT_AVX : UNIT_SSE;
        if (p & MMX && (i->op == OP_HOST || i->op == OP_EMMS || i->op == OP_MASKMOVQ))
                return UNIT_MMX;
        return UNIT_INTEGER;
}

/* Of x87 it is SSE3's: opcodes DB, DD and DF. */
static bool is_fisttp(const struct insn *i)
{
        return i->op == OP_X87 && i->is_mem && (i->modrm >> 3 & 7) == 1 && i->code & 1 &&
               (i->code & 7) != 1;
}

/* What an instruction needs beside its row's feature. */
static enum cpu_feature needed_by_form(const struct cpu *cpu, const struct insn *i)
{
        if (i->vex && i->row->properties & SSE)
                return FEATURE_AVX;
        if (i->op == OP_CMPXCHG8B && i->opsize == 8)
                return FEATURE_CX16;
        if ((i->op == OP_LAHF || i->op == OP_SAHF) && cpu->code64)
                return FEATURE_LAHF;
        return is_fisttp(i) ? FEATURE_SSE3 : FEATURE_BASE;
}

static bool available(const struct cpu *cpu, const struct insn *i)
{
        return cpu->features >> FEAT_OF(i->row->properties) & 1 &&
               cpu->features >> needed_by_form(cpu, i) & 1;
}

static step_fn *choose(struct step *st)
{
        struct insn *i = &st->i;
        unsigned log2_size = st->size == 8 ? 3 : st->size == 4 ? 2 : st->size == 2 ? 1 : 0;
        if (i->op >= OP_ADD && i->op <= OP_TEST)
                return exec_alu_function(i->op, log2_size, alu_form(i));
        if (i->op >= OP_INC && i->op <= OP_NEG)
                return exec_unary_function(i->op, log2_size,
                                           !i->is_mem ? UNARY_R
                                           : i->lock  ? UNARY_LOCK
                                                      : UNARY_M);
        if (i->op >= OP_ROL && i->op <= OP_SAR)
                return exec_shift_function(i->op, log2_size, i->is_mem);
        if (i->op == OP_MOV)
                return exec_mov_function(log2_size, alu_form(i));
        if (i->op == OP_MOVBE)
                return i->row->operands[0].kind == OPK_E ? exec_movbe_store : exec_movbe_load;
        if (i->op == OP_XCHG) {
                if (i->is_mem)
                        return exec_xchg_mr;
                bool nop = i->map == MAP_ONE && i->code == 0x90 && i->rm == 0;
                return nop ? exec_nop : exec_xchg_rr;
        }
        return functions[i->op].run;
}

bool cpu_bind(struct cpu *cpu, struct step *st)
{
        struct insn *i = &st->i;
        const struct operand *o = i->row->operands;
        st->dst = operand_offset(i, o[0]);
        st->src = o[1].kind && o[1].kind != OPK_I && o[1].kind != OPK_CL && o[1].kind != OPK_ONE
                          ? operand_offset(i, o[1])
                          : st->dst;
        st->base = address_offset(i->base);
        st->index = i->row->properties & VSIB ? address_offset(REG_NONE) : address_offset(i->index);
        st->address_shift = (uint8_t)(64 - 8 * i->adsize);
        st->size = (uint8_t)operation_size(i);
        st->blocked = unit_of(i);
        for (unsigned n = 0; n < 4; n++) {
                st->count_in_cl |= o[n].kind == OPK_CL;
                if (o[n].kind == OPK_ONE)
                        i->imm = 1;
        }
        if (!available(cpu, i)) {
                st->run = exec_ud;
                return true;
        }
        bool host = i->op >= OP_HOST || i->op == OP_X87;
        if (!host) {
                st->run = choose(st);
                return true;
        }
        st->run = i->op == OP_X87 ? exec_x87 : i->is_mem ? exec_host : exec_host_reg;
        st->thunk = cpu_thunk_get(cpu, i);
        return st->thunk != NULL;
}
