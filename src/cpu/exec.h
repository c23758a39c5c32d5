/* Names of the functions that perform instructions, for bind.c. */
#pragma once

#include "cpu/core.h"

#define EXEC_FUNCTIONS(X)                                                                          \
        X(exec_host)                                                                               \
        X(exec_host_reg)                                                                           \
        X(exec_x87)                                                                                \
        X(exec_fwait)                                                                              \
        X(exec_emms)                                                                               \
        X(exec_vzero)                                                                              \
        X(exec_vmaskmov)                                                                           \
        X(exec_maskmovq)                                                                           \
        X(exec_vgather)                                                                            \
        X(exec_ldmxcsr)                                                                            \
        X(exec_stmxcsr)                                                                            \
        X(exec_fxsave)                                                                             \
        X(exec_fxrstor)                                                                            \
        X(exec_xsave)                                                                              \
        X(exec_xsavec)                                                                             \
        X(exec_xrstor)                                                                             \
        X(exec_movbe_load)                                                                         \
        X(exec_movbe_store)                                                                        \
        X(exec_lea)                                                                                \
        X(exec_xchg_rr)                                                                            \
        X(exec_xchg_mr)                                                                            \
        X(exec_xadd)                                                                               \
        X(exec_cmpxchg)                                                                            \
        X(exec_cmpxchg8b)                                                                          \
        X(exec_cmov)                                                                               \
        X(exec_setcc)                                                                              \
        X(exec_movx)                                                                               \
        X(exec_cbw)                                                                                \
        X(exec_cwd)                                                                                \
        X(exec_bswap)                                                                              \
        X(exec_lahf)                                                                               \
        X(exec_sahf)                                                                               \
        X(exec_flag)                                                                               \
        X(exec_salc)                                                                               \
        X(exec_xlat)                                                                               \
        X(exec_decimal)                                                                            \
        X(exec_nop)                                                                                \
        X(exec_fence)                                                                              \
        X(exec_mul)                                                                                \
        X(exec_imul)                                                                               \
        X(exec_div)                                                                                \
        X(exec_bt)                                                                                 \
        X(exec_bitscan)                                                                            \
        X(exec_shift_double)                                                                       \
        X(exec_push)                                                                               \
        X(exec_pop)                                                                                \
        X(exec_pusha)                                                                              \
        X(exec_popa)                                                                               \
        X(exec_pushf)                                                                              \
        X(exec_popf)                                                                               \
        X(exec_push_seg)                                                                           \
        X(exec_pop_seg)                                                                            \
        X(exec_enter)                                                                              \
        X(exec_leave)                                                                              \
        X(exec_jmp)                                                                                \
        X(exec_jmp_ind)                                                                            \
        X(exec_jmp_far)                                                                            \
        X(exec_jcc)                                                                                \
        X(exec_call)                                                                               \
        X(exec_call_ind)                                                                           \
        X(exec_ret)                                                                                \
        X(exec_ret_far)                                                                            \
        X(exec_iret)                                                                               \
        X(exec_loop)                                                                               \
        X(exec_jcxz)                                                                               \
        X(exec_int)                                                                                \
        X(exec_bound)                                                                              \
        X(exec_ud)                                                                                 \
        X(exec_movs)                                                                               \
        X(exec_cmps)                                                                               \
        X(exec_stos)                                                                               \
        X(exec_lods)                                                                               \
        X(exec_scas)                                                                               \
        X(exec_ins)                                                                                \
        X(exec_outs)                                                                               \
        X(exec_in)                                                                                 \
        X(exec_out)                                                                                \
        X(exec_mov_from_seg)                                                                       \
        X(exec_mov_to_seg)                                                                         \
        X(exec_load_far)                                                                           \
        X(exec_mov_from_cr)                                                                        \
        X(exec_mov_to_cr)                                                                          \
        X(exec_mov_from_dr)                                                                        \
        X(exec_mov_to_dr)                                                                          \
        X(exec_table_store)                                                                        \
        X(exec_table_load)                                                                         \
        X(exec_sys_store)                                                                          \
        X(exec_lldt_ltr)                                                                           \
        X(exec_verify)                                                                             \
        X(exec_lar_lsl)                                                                            \
        X(exec_arpl)                                                                               \
        X(exec_lmsw)                                                                               \
        X(exec_clts)                                                                               \
        X(exec_invlpg)                                                                             \
        X(exec_invpcid)                                                                            \
        X(exec_swapgs)                                                                             \
        X(exec_rdtsc)                                                                              \
        X(exec_rdpmc)                                                                              \
        X(exec_rdpid)                                                                              \
        X(exec_rdmsr)                                                                              \
        X(exec_wrmsr)                                                                              \
        X(exec_cpuid)                                                                              \
        X(exec_syscall)                                                                            \
        X(exec_sysret)                                                                             \
        X(exec_sysenter)                                                                           \
        X(exec_sysexit)                                                                            \
        X(exec_cli)                                                                                \
        X(exec_sti)                                                                                \
        X(exec_ac)                                                                                 \
        X(exec_hypercall)                                                                          \
        X(exec_serialize)                                                                          \
        X(exec_hlt)                                                                                \
        X(exec_wbinvd)                                                                             \
        X(exec_cache_line)                                                                         \
        X(exec_xgetbv)                                                                             \
        X(exec_xsetbv)                                                                             \
        X(exec_rdpkru)                                                                             \
        X(exec_wrpkru)                                                                             \
        X(exec_fsgsbase)

#define X(name) void name(struct cpu *cpu, const struct step *step);
EXEC_FUNCTIONS(X)
#undef X

/* ALU and shift functions by operation, size (log2) and operand form; NULL where
 * there is none. */
enum alu_form { ALU_RR, ALU_RM, ALU_MR, ALU_RI, ALU_MI, ALU_LOCK_R, ALU_LOCK_I, ALU_FORMS };
step_fn *exec_alu_function(unsigned op, unsigned log2_size, enum alu_form form);
enum unary_form { UNARY_R, UNARY_M, UNARY_LOCK, UNARY_FORMS };
step_fn *exec_unary_function(unsigned op, unsigned log2_size, enum unary_form form);
step_fn *exec_mov_function(unsigned log2_size, enum alu_form form);
step_fn *exec_shift_function(unsigned op, unsigned log2_size, bool memory);

static inline void check_unit(struct cpu *cpu, const struct step *step)
{
        if (unlikely(cpu->blocked[step->blocked]))
                cpu_raise(cpu, cpu->blocked[step->blocked]);
        if (step->blocked == UNIT_AVX)
                cpu->uppers = UPPERS_USED;
}

/* x87 instructions that neither wait for pending exceptions nor move FIP. */
static inline bool x87_control(const struct insn *i)
{
        unsigned escape = i->code & 7, reg = i->modrm >> 3 & 7;
        if (i->is_mem)
                return (escape == 1 && reg >= 4) || (escape == 5 && reg >= 4);
        return (escape == 3 && reg == 4) || (escape == 7 && reg == 4);
}

/* What FOP holds of one. */
static inline uint32_t x87_opcode(const struct insn *i)
{
        return (i->code & 7u) << 8 | i->modrm;
}

/* Host pointer for an atomic operation, or NULL where the operand is not plain
 * memory within one page. The page counts as written. */
void *mem_atomic(struct cpu *cpu, uint64_t linear, unsigned size);

/* Operand in the r/m position, register or memory, of step->size bytes. */
static inline uint64_t rm_get(struct cpu *cpu, const struct step *step, unsigned size)
{
        if (!step->i.is_mem)
                return reg_get(cpu, step->src, size);
        return load_size(cpu, step_linear(cpu, step, size, false), size);
}
